package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/engine/frontend"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/clock"
)

// Truth is what a host needs of the cluster's Raft state.
type Truth interface {
	Proposer
	// StartEngine raises the epoch of a volume that is published to this node.
	// A zero attachment asks for a fresh one. start makes a repeated call
	// harmless.
	StartEngine(ctx context.Context, volume block.VolumeID, attachment block.AttachmentID, start block.StartID) (Started, error)
	// EndAttachment ends an attachment; ending one that is over succeeds.
	EndAttachment(ctx context.Context, volume block.VolumeID, attachment block.AttachmentID) error
	// Attachments are those that Raft shows on this node now.
	Attachments(ctx context.Context) ([]Attachment, error)
	// View is the newest view of a volume known here.
	View(volume block.VolumeID) (block.View, bool)
	// Changed returns a channel that is closed when views may have changed.
	Changed() <-chan struct{}
}

// Started is the answer to the start of an engine.
type Started struct {
	View      block.View
	MinInSync int
}

// Attachment names a staged device of a volume.
type Attachment struct {
	Volume block.VolumeID
	ID     block.AttachmentID
}

// Devices makes the block devices that pods use.
type Devices interface {
	// Attach makes a fresh device.
	Attach(ctx context.Context, spec frontend.Spec) (frontend.Device, error)
	// Adopt takes the device of this attachment over from an earlier daemon or
	// engine; block.ErrNotFound if there is none.
	Adopt(ctx context.Context, spec frontend.Spec) (frontend.Device, error)
	// List names the devices on this machine, served or not.
	List(ctx context.Context) ([]frontend.Identity, error)
	// Remove ends a device that nobody serves: its I/O fails. One that does not
	// exist is not an error.
	Remove(ctx context.Context, id frontend.Identity) error
}

// HostConfig is what a Host needs.
type HostConfig struct {
	Node    block.NodeID
	Cluster block.ClusterID
	Timing  core.Timing
	Limits  core.Limits
	Truth   Truth
	Dialer  Dialer
	Devices Devices
	Clock   clock.Clock
	Logger  *slog.Logger
	Metrics *Metrics
}

// Host owns the engines and devices of a node.
type Host struct {
	config  HostConfig
	adopted chan struct{} // closed when the devices of an earlier daemon are known
	ctx     context.Context
	cancel  context.CancelFunc
	work    sync.WaitGroup

	mu      sync.Mutex
	keepers map[block.VolumeID]*keeper
	closed  bool
}

// restartDelay is how long a keeper waits before it starts an engine again, so
// that an engine that cannot live does not burn epochs.
const restartDelay = 200 * time.Millisecond

// NewHost makes a host; Run must be called for it to do anything.
func NewHost(config HostConfig) *Host {
	ctx, cancel := context.WithCancel(context.Background())
	return &Host{
		config:  config,
		adopted: make(chan struct{}),
		ctx:     ctx,
		cancel:  cancel,
		keepers: make(map[block.VolumeID]*keeper),
	}
}

// Run takes over the devices of an earlier daemon, then follows Raft's state
// until ctx ends. In the end every device is left as it is, for the next daemon.
func (h *Host) Run(ctx context.Context) error {
	defer h.close()
	for {
		attachments, err := h.config.Truth.Attachments(ctx)
		if err == nil {
			h.removeUnknown(ctx, attachments)
			h.adopt(attachments)
			break
		}
		h.config.Logger.Warn("attachments of this node are not known yet", "err", err)
		if !h.wait(ctx, restartDelay) {
			return ctx.Err()
		}
	}
	close(h.adopted)
	for {
		changed := h.config.Truth.Changed()
		h.observe()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// removeUnknown removes devices whose attachment Raft does not show here: an old
// mount's dirty pages must not reach a newer attachment (rule 2).
func (h *Host) removeUnknown(ctx context.Context, attachments []Attachment) {
	devices, err := h.config.Devices.List(ctx)
	if err != nil {
		h.config.Logger.Warn("devices of this machine cannot be listed", "err", err)
		return
	}
	for _, id := range devices {
		if slices.Contains(attachments, Attachment{Volume: id.Volume, ID: id.Attachment}) {
			continue
		}
		log := h.config.Logger.With("volume", id.Volume.String(), "attachment", id.Attachment.String())
		if err := h.config.Devices.Remove(ctx, id); err != nil {
			log.Error("device of an ended attachment cannot be removed", "err", err)
			continue
		}
		log.Warn("device of an ended attachment removed")
	}
}

func (h *Host) adopt(attachments []Attachment) {
	for _, a := range attachments {
		h.config.Logger.Info("attachment taken over", "volume", a.Volume.String(), "attachment", a.ID.String())
		if _, err := h.keep(a.Volume, a.ID); err != nil {
			h.config.Logger.Warn("attachment is not taken over", "volume", a.Volume.String(), "err", err)
		}
	}
}

// observe shows every keeper what Raft says of its volume.
func (h *Host) observe() {
	h.mu.Lock()
	keepers := make([]*keeper, 0, len(h.keepers))
	for _, k := range h.keepers {
		keepers = append(keepers, k)
	}
	h.mu.Unlock()
	for _, k := range keepers {
		if view, ok := h.config.Truth.View(k.volume); ok {
			k.observe(view)
		}
	}
}

// keep returns the keeper of a volume and makes it if there is none. A zero
// attachment asks for a fresh device.
func (h *Host) keep(volume block.VolumeID, attachment block.AttachmentID) (*keeper, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if k := h.keepers[volume]; k != nil {
		return k, nil
	}
	if h.closed {
		return nil, fmt.Errorf("stage volume %s: %w", volume, block.ErrClosed)
	}
	k := newKeeper(h, volume, attachment)
	h.keepers[volume] = k
	h.work.Go(func() {
		k.run(h.ctx)
		h.mu.Lock()
		delete(h.keepers, volume)
		h.mu.Unlock()
		close(k.gone)
	})
	return k, nil
}

// Stage shows a volume as a block device and returns its path. Staging again
// returns the device that is there.
func (h *Host) Stage(ctx context.Context, volume block.VolumeID) (string, block.AttachmentID, error) {
	if err := h.known(ctx); err != nil {
		return "", block.AttachmentID{}, fmt.Errorf("stage volume %s: %w", volume, err)
	}
	k, err := h.keep(volume, block.AttachmentID{})
	if err != nil {
		return "", block.AttachmentID{}, err
	}
	select {
	case <-k.ready:
		path, attachment := k.device()
		return path, attachment, nil
	case <-k.gone:
		err := k.failure()
		if err == nil {
			err = block.ErrUnavailable
		}
		return "", block.AttachmentID{}, fmt.Errorf("stage volume %s: %w", volume, err)
	case <-ctx.Done():
		return "", block.AttachmentID{}, fmt.Errorf("stage volume %s: %w: %w", volume, k.waitsFor(), ctx.Err())
	}
}

// Unstage drains, flushes and removes the device of a volume and ends its
// attachment. Unstaging what is not staged succeeds.
func (h *Host) Unstage(ctx context.Context, volume block.VolumeID) error {
	if err := h.known(ctx); err != nil {
		return fmt.Errorf("unstage volume %s: %w", volume, err)
	}
	h.mu.Lock()
	k := h.keepers[volume]
	h.mu.Unlock()
	if k == nil {
		return h.endLeftover(ctx, volume)
	}
	select {
	case k.unstage <- struct{}{}:
	default: // asked for already
	}
	select {
	case <-k.gone:
		return k.failure()
	case err := <-k.refused:
		return fmt.Errorf("unstage volume %s: %w", volume, err)
	case <-ctx.Done():
		return fmt.Errorf("unstage volume %s: %w", volume, ctx.Err())
	}
}

// endLeftover ends an attachment that Raft shows here though no device is left.
func (h *Host) endLeftover(ctx context.Context, volume block.VolumeID) error {
	view, ok := h.config.Truth.View(volume)
	if !ok || view.Attachment.IsZero() || view.Owner != h.config.Node {
		return nil
	}
	if err := h.config.Truth.EndAttachment(ctx, volume, view.Attachment); err != nil {
		return fmt.Errorf("unstage volume %s: %w", volume, err)
	}
	return nil
}

// Status describes a staged volume and its device.
func (h *Host) Status(ctx context.Context, volume block.VolumeID) (core.Status, string, error) {
	h.mu.Lock()
	k := h.keepers[volume]
	h.mu.Unlock()
	if k == nil {
		return core.Status{}, "", fmt.Errorf("engine of volume %s: %w", volume, block.ErrNotFound)
	}
	return k.status(ctx)
}

// known waits until it is known which devices an earlier daemon left.
func (h *Host) known(ctx context.Context) error {
	select {
	case <-h.adopted:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the daemon does not know its attachments yet (is there a quorum?): %w", ctx.Err())
	}
}

// close ends every engine and leaves every device for the next daemon.
func (h *Host) close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.cancel()
	h.work.Wait()
}

// wait pauses for d; false when ctx ended first.
func (h *Host) wait(ctx context.Context, d time.Duration) bool {
	done := make(chan struct{})
	stop := h.config.Clock.AfterFunc(d, func() { close(done) })
	defer stop()
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}

func newStartID() (block.StartID, error) {
	id, err := block.NewID(rand.Reader)
	return block.StartID{ID: id}, err
}

// permanent reports whether starting an engine again cannot help.
func permanent(err error) bool {
	for _, target := range []error{block.ErrInvalid, block.ErrNotFound, block.ErrInUse, block.ErrDetached, block.ErrForeign} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}
