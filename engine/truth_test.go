package engine

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
)

// truth is the cluster's state machine without a Raft group around it.
type truth struct {
	t *testing.T

	mu      sync.Mutex
	state   *state.State
	changed chan struct{}
	// lost is how many outcomes of proposals and starts are committed and not
	// told; silent proposals are never answered; down refuses everything. If there is
	// an old state, nodes see that one, and start no engine.
	lost   int
	silent bool
	down   bool
	old    *state.State
}

func newTruth(t *testing.T) *truth {
	return &truth{t: t, state: &state.State{}, changed: make(chan struct{})}
}

func (r *truth) now() *state.State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}

func (r *truth) apply(c state.Command) state.Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	var result state.Result
	r.state, result = r.state.Apply(r.state.Index()+1, c)
	r.tell()
	return result
}

// tell has everybody look again. mu is held.
func (r *truth) tell() {
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *truth) must(c state.Command) state.Result {
	r.t.Helper()
	result := r.apply(c)
	if result.Err != nil {
		r.t.Fatal(result.Err)
	}
	return result
}

// set changes how the truth misbehaves, and with it perhaps what nodes see.
func (r *truth) set(change func(r *truth)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r)
	r.tell()
}

// losing reports whether this outcome is not told.
func (r *truth) losing() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lost == 0 {
		return false
	}
	r.lost--
	return true
}

func (r *truth) isDown() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down {
		return block.ErrUnavailable
	}
	return nil
}

// wait waits until the state fulfils a condition.
func (r *truth) wait(holds func(*state.State) bool, what string) {
	r.t.Helper()
	timeout := time.After(patience)
	for {
		r.mu.Lock()
		s, changed := r.state, r.changed
		r.mu.Unlock()
		if holds(s) {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			r.t.Fatal("waited in vain for", what)
		}
	}
}

// nodeTruth is the truth as one node sees it.
type nodeTruth struct {
	*truth
	node block.NodeID
}

func (r nodeTruth) Propose(ctx context.Context, p block.Proposal) (block.Verdict, block.View) {
	r.mu.Lock()
	silent := r.silent
	r.mu.Unlock()
	if silent {
		<-ctx.Done()
		return block.Unknown, block.View{}
	}
	if r.isDown() != nil {
		return block.Unknown, block.View{}
	}
	result := r.apply(state.Propose{Proposal: p})
	if r.losing() {
		return block.Unknown, block.View{}
	}
	return result.Verdict, result.View()
}

func (r nodeTruth) StartEngine(_ context.Context, volume block.VolumeID, attachment block.AttachmentID, start block.StartID) (Started, error) {
	if err := r.isDown(); err != nil {
		return Started{}, err
	}
	r.mu.Lock()
	old := r.old
	r.mu.Unlock()
	if old != nil {
		return Started{}, block.ErrUnavailable
	}
	v, _ := r.now().Volume(volume)
	c := state.StartEngine{Volume: volume, Node: r.node, Start: start, Epoch: v.View.Epoch, Attachment: attachment}
	return r.start(c)
}

func (r nodeTruth) BorrowVolume(_ context.Context, volume block.VolumeID, start block.StartID, yields bool) (Started, error) {
	if err := r.isDown(); err != nil {
		return Started{}, err
	}
	v, _ := r.now().Volume(volume)
	return r.start(state.StartEngine{Volume: volume, Node: r.node, Start: start, Epoch: v.View.Epoch, Borrow: true, Yield: yields})
}

func (r nodeTruth) start(c state.StartEngine) (Started, error) {
	if c.Attachment.IsZero() {
		id, err := block.NewID(rand.Reader)
		if err != nil {
			return Started{}, err
		}
		c.NewAttachment = block.AttachmentID{ID: id}
	}
	result := r.apply(c)
	if r.losing() {
		return Started{}, block.ErrUnknown
	}
	if result.Err != nil {
		return Started{}, result.Err
	}
	started := Started{View: result.View(), MinInSync: 1}
	if result.Volume.RevertBegun() {
		started.Reverting = result.Volume.Revert.To
	}
	return started, nil
}

func (r nodeTruth) EndRevert(_ context.Context, volume block.VolumeID, snapshot block.SnapshotID, epoch block.Epoch) error {
	if err := r.isDown(); err != nil {
		return err
	}
	err := r.apply(state.EndRevert{Volume: volume, Snapshot: snapshot, Epoch: epoch}).Err
	if r.losing() {
		return block.ErrUnknown
	}
	return err
}

func (r nodeTruth) EndAttachment(_ context.Context, volume block.VolumeID, attachment block.AttachmentID) error {
	if err := r.isDown(); err != nil {
		return err
	}
	err := r.apply(state.EndAttachment{Volume: volume, Attachment: attachment}).Err
	if errors.Is(err, block.ErrNotFound) {
		return nil
	}
	return err
}

func (r nodeTruth) Attachments(context.Context) ([]Attachment, error) {
	if err := r.isDown(); err != nil {
		return nil, err
	}
	var all []Attachment
	for v := range r.now().Volumes() {
		if v.View.Owner == r.node && !v.View.Attachment.IsZero() && !v.Borrowed() {
			all = append(all, Attachment{Volume: v.ID, ID: v.View.Attachment})
		}
	}
	return all, nil
}

func (r nodeTruth) Borrowed() []block.View {
	var all []block.View
	for v := range r.now().Volumes() {
		if v.View.Owner == r.node && v.Borrowed() {
			all = append(all, v.View)
		}
	}
	return all
}

func (r nodeTruth) Growing(volume block.VolumeID) int64 {
	v, _ := r.now().Volume(volume)
	return v.GrowTo
}

func (r nodeTruth) Retiring(volume block.VolumeID) (old, next block.ReplicaID) {
	v, _ := r.now().Volume(volume)
	leaving, _ := v.Retiring()
	return leaving.Old, leaving.New.Replica
}

func (r nodeTruth) View(volume block.VolumeID) (block.View, bool) {
	r.mu.Lock()
	seen := cmp.Or(r.old, r.state)
	r.mu.Unlock()
	v, ok := seen.Volume(volume)
	return v.View, ok
}

func (r nodeTruth) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}
