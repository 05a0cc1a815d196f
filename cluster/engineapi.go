package cluster

import (
	"context"
	"errors"
	"fmt"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
)

// StartEngine gives a start of this node's engine its epoch (rule 2); attachment
// is zero for a fresh one. It may be repeated with the same start. Refusals are
// those of state.StartEngine.
func (c *Cluster) StartEngine(ctx context.Context, volume block.VolumeID, attachment block.AttachmentID, start block.StartID) (state.Volume, error) {
	return c.startEngine(ctx, state.StartEngine{Volume: volume, Start: start, Attachment: attachment})
}

// BorrowVolume gives an engine without a frontend, on this node, an epoch of a volume
// that is published to nobody. It may be repeated with the same start. Refusals are
// those of state.StartEngine. If it yields, a publication ends what is borrowed.
func (c *Cluster) BorrowVolume(ctx context.Context, volume block.VolumeID, start block.StartID, yields bool) (state.Volume, error) {
	return c.startEngine(ctx, state.StartEngine{Volume: volume, Start: start, Borrow: true, Yield: yields})
}

// startEngine fills in what is missing in a command.
func (c *Cluster) startEngine(ctx context.Context, command state.StartEngine) (state.Volume, error) {
	volume := command.Volume
	if command.Attachment.IsZero() {
		id, err := block.NewID(c.options.Random)
		if err != nil {
			return state.Volume{}, fmt.Errorf("start engine of volume %s: %w", volume, err)
		}
		command.NewAttachment = block.AttachmentID{ID: id}
	}
	command.Node = c.NodeID()
	// The local epoch may lag; the answer to a stale one carries the right one.
	seen, _ := c.State().Volume(volume)
	command.Epoch = seen.View.Epoch
	const attempts = 4
	for range attempts {
		r, err := c.do(ctx, command)
		if err == nil {
			return *r.Volume, nil
		}
		if !errors.Is(err, block.ErrConflict) {
			return state.Volume{}, err
		}
		view := r.View()
		command.Epoch = view.Epoch
	}
	return state.Volume{}, fmt.Errorf("start engine of volume %s: the epoch rose %d times meanwhile: %w", volume, attempts, block.ErrUnavailable)
}

// Propose asks for a change of a view. Any failure to learn the outcome is
// Unknown.
func (c *Cluster) Propose(ctx context.Context, p block.Proposal) (block.Verdict, block.View) {
	r, err := c.apply(ctx, state.Propose{Proposal: p}, true)
	if err != nil {
		c.logger.Warn("the outcome of a proposal is unknown", "volume", p.Volume, "epoch", p.Epoch, "revision", p.Revision, "error", err)
		return block.Unknown, block.View{}
	}
	if r.Err != nil {
		c.logger.Error("a proposal was refused", "volume", p.Volume, "epoch", p.Epoch, "revision", p.Revision, "error", r.Err)
	}
	return r.Verdict, r.View()
}

// EndAttachment ends an attachment of a volume; one that is over, or whose volume
// is gone, has ended already.
func (c *Cluster) EndAttachment(ctx context.Context, volume block.VolumeID, attachment block.AttachmentID) error {
	_, err := c.do(ctx, state.EndAttachment{Volume: volume, Attachment: attachment})
	if errors.Is(err, block.ErrNotFound) {
		return nil
	}
	return err
}

// Attached are the volumes that have an attachment on this node, borrowed ones apart,
// according to a state that is not older than the call.
func (c *Cluster) Attached(ctx context.Context) ([]state.Volume, error) {
	if err := c.Sync(ctx); err != nil {
		return nil, err
	}
	var attached []state.Volume
	own := c.NodeID()
	for v := range c.State().Volumes() {
		if v.View.Owner == own && !v.Borrowed() && !v.View.Attachment.IsZero() {
			attached = append(attached, v)
		}
	}
	return attached, nil
}

// Borrowed are the views of the volumes that this node has borrowed, as far as it has
// applied.
func (c *Cluster) Borrowed() []block.View {
	var borrowed []block.View
	own := c.NodeID()
	for v := range c.State().BorrowedVolumes() {
		if v.View.Owner == own {
			borrowed = append(borrowed, v.View)
		}
	}
	return borrowed
}

// DataAddress is where the replicas of a node are served, host:port.
func (c *Cluster) DataAddress(node block.NodeID) (string, error) {
	n, ok := c.State().Node(node)
	if !ok {
		return "", fmt.Errorf("address of node %s: %w", node, block.ErrNotFound)
	}
	return n.DataAddress, nil
}
