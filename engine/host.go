package engine

import (
	"context"
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
	// BorrowVolume raises the epoch of a volume that is published to nobody, for an
	// engine without a frontend. start makes a repeated call harmless. If it yields, a
	// publication ends the attachment without a question.
	BorrowVolume(ctx context.Context, volume block.VolumeID, start block.StartID, yields bool) (Started, error)
	// EndRevert says that the engine of an epoch has made a volume what a snapshot was,
	// durably (rule 26). It may be repeated. block.ErrConflict: that engine is gone.
	EndRevert(ctx context.Context, volume block.VolumeID, snapshot block.SnapshotID, epoch block.Epoch) error
	// EndAttachment ends an attachment; ending one that is over succeeds.
	EndAttachment(ctx context.Context, volume block.VolumeID, attachment block.AttachmentID) error
	// Attachments are those that Raft shows on this node now, borrowed ones apart.
	Attachments(ctx context.Context) ([]Attachment, error)
	// Borrowed are the views of volumes that this node has borrowed, as far as it is
	// known here.
	Borrowed() []block.View
	// Growing is the size that a volume is to get, 0 if it has it, as far as it is known
	// here.
	Growing(volume block.VolumeID) int64
	// Retiring is a replica that is to leave the in-sync set because next has taken its
	// place, zero if there is none, as far as it is known here.
	Retiring(volume block.VolumeID) (old, next block.ReplicaID)
	// View is the newest view of a volume known here.
	View(volume block.VolumeID) (block.View, bool)
	// Changed returns a channel that is closed when views may have changed.
	Changed() <-chan struct{}
}

// Started is the answer to the start of an engine.
type Started struct {
	View      block.View
	MinInSync int
	// Reverting is the snapshot that the volume is to be reverted to, as Raft had it at
	// the start; zero if it is not, or if what it was is still to be kept.
	Reverting block.SnapshotID
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
	// Metrics may be nil.
	Metrics *Metrics
	// Scrubs may be nil: then no volume is verified in the background.
	Scrubs Scrubs
}

// Validate reports what is missing.
func (c *HostConfig) Validate() error {
	if c.Node.IsZero() || c.Cluster.IsZero() {
		return fmt.Errorf("host of engines without node or cluster: %w", block.ErrInvalid)
	}
	if c.Truth == nil || c.Dialer == nil || c.Devices == nil || c.Clock == nil || c.Logger == nil {
		return fmt.Errorf("host of engines without truth, dialer, devices, clock or logger: %w", block.ErrInvalid)
	}
	return errors.Join(c.Timing.Validate(), c.Limits.Validate())
}

// Host owns the engines and devices of a node.
type Host struct {
	config  HostConfig
	adopted chan struct{} // closed when the devices of an earlier daemon are known
	closing chan struct{} // closed when Run ends
	born    chan *keeper  // those that Run is to run
	// borrowers are the engines of volumes that nobody has attached; left holds a token
	// when one has left and Run is to look for what it left behind.
	borrowers borrowers
	left      chan struct{}
	// scrubbing holds a token while a volume is verified because it is time to.
	scrubbing chan struct{}

	mu      sync.Mutex
	keepers map[block.VolumeID]*keeper
	closed  bool // closing is closed; set before any keeper is forgotten for it
}

// The pause before something is tried again doubles from the first to the
// second, so that an engine that cannot live does not burn epochs.
const (
	retryPauseMin = 200 * time.Millisecond
	retryPauseMax = 10 * time.Second
)

// NewHost makes a host; Run must be called for it to do anything.
func NewHost(config HostConfig) (*Host, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if config.Metrics == nil {
		config.Metrics = newMetrics()
	}
	h := &Host{
		config:  config,
		adopted: make(chan struct{}),
		closing: make(chan struct{}),
		born:    make(chan *keeper),
		left:    make(chan struct{}, 1),
		keepers: make(map[block.VolumeID]*keeper),

		scrubbing: make(chan struct{}, 1),
	}
	h.borrowers.init()
	return h, nil
}

// Run takes over the devices of an earlier daemon, then follows Raft's state
// until ctx ends. In the end every device is left as it is, for the next daemon.
// It is called once.
func (h *Host) Run(ctx context.Context) error {
	var work sync.WaitGroup
	defer work.Wait()
	defer h.close()
	attachments, clean, err := h.takeStock(ctx)
	if err != nil {
		return err
	}
	if !clean {
		work.Go(func() { h.sweepUntilClean(ctx) })
	}
	for _, asked := range []bool{true, false} {
		work.Go(func() { h.scrubDetached(ctx, asked) })
	}
	for _, a := range attachments {
		h.config.Logger.Info("attachment taken over", "volume", a.Volume.String(), "attachment", a.ID.String())
		if k, fresh, err := h.keeper(a.Volume, a.ID); err == nil && fresh {
			work.Go(func() { h.keep(ctx, k) })
		}
	}
	close(h.adopted)
	for {
		changed := h.config.Truth.Changed()
		h.observe()
		for _, stray := range h.borrowers.strays(h.config.Truth.Borrowed()) {
			work.Go(func() { h.endStray(ctx, stray) })
		}
		select {
		case <-changed:
		case <-h.left:
		case k := <-h.born:
			work.Go(func() { h.keep(ctx, k) })
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// takeStock learns which attachments Raft shows here, however long that takes,
// and removes the devices of all others; clean tells whether none is left.
func (h *Host) takeStock(ctx context.Context) (attachments []Attachment, clean bool, err error) {
	for pause := retryPauseMin; ; pause = min(2*pause, retryPauseMax) {
		attachments, clean, err = h.sweep(ctx)
		if err == nil {
			return attachments, clean, nil
		}
		h.config.Logger.Warn("attachments of this node are not known yet", "err", err)
		if !h.wait(ctx, pause, nil) {
			return nil, false, ctx.Err()
		}
	}
}

func (h *Host) sweep(ctx context.Context) (attachments []Attachment, clean bool, err error) {
	return Sweep(ctx, h.config.Devices, h.config.Truth.Attachments, h.config.Logger)
}

// Leftovers are devices that an earlier daemon has left.
type Leftovers interface {
	List(ctx context.Context) ([]frontend.Identity, error)
	Remove(ctx context.Context, id frontend.Identity) error
}

// Sweep removes devices whose attachment Raft does not show here: an old mount's
// dirty pages must not reach a newer attachment (rule 2). The devices are listed
// first: an attachment is in Raft before its device is made, and IDs are never
// used again, so what is missing now was ended. It returns what Raft shows, and
// whether no other device is left.
func Sweep(ctx context.Context, left Leftovers, shown func(context.Context) ([]Attachment, error),
	logger *slog.Logger) (attachments []Attachment, clean bool, err error) {
	devices, listErr := left.List(ctx)
	if listErr != nil {
		logger.Warn("devices of this machine cannot be listed", "err", listErr)
	}
	attachments, err = shown(ctx)
	if err != nil {
		return nil, false, err
	}
	clean = listErr == nil
	for _, id := range devices {
		if slices.Contains(attachments, Attachment{Volume: id.Volume, ID: id.Attachment}) {
			continue
		}
		log := logger.With("volume", id.Volume.String(), "attachment", id.Attachment.String())
		if err := left.Remove(ctx, id); err != nil {
			log.Error("device of an ended attachment cannot be removed", "err", err)
			clean = false
			continue
		}
		log.Warn("device of an ended attachment removed")
	}
	return attachments, clean, nil
}

// sweepUntilClean sweeps until nothing is left that should not be.
func (h *Host) sweepUntilClean(ctx context.Context) {
	for pause := retryPauseMin; h.wait(ctx, pause, nil); pause = min(2*pause, retryPauseMax) {
		if _, clean, err := h.sweep(ctx); err == nil && clean {
			return
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
	h.observeBorrowed()
}

// keeper returns the keeper of a volume, made if there was none: then fresh is
// true, and the caller sees to it that it is run.
func (h *Host) keeper(volume block.VolumeID, attachment block.AttachmentID) (k *keeper, fresh bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, false, errClosing
	}
	if k := h.keepers[volume]; k != nil {
		return k, false, nil
	}
	k = newKeeper(h, volume, attachment)
	h.keepers[volume] = k
	return k, true, nil
}

// close refuses what would begin something, or take a missing keeper for a volume
// that is not staged.
func (h *Host) close() {
	h.mu.Lock()
	h.closed = true
	close(h.closing)
	h.mu.Unlock()
	for _, e := range h.borrowers.engines() {
		e.Abort()
	}
}

func (h *Host) isClosed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.closed
}

// keep runs a keeper to its end and forgets it.
func (h *Host) keep(ctx context.Context, k *keeper) {
	k.finish(k.run(ctx))
	h.forget(k)
}

func (h *Host) forget(k *keeper) {
	h.mu.Lock()
	delete(h.keepers, k.volume)
	h.mu.Unlock()
	close(k.gone)
}

// Stage shows a volume as a block device and returns its path. Staging again
// returns the device that is there.
func (h *Host) Stage(ctx context.Context, volume block.VolumeID) (string, block.AttachmentID, error) {
	path, attachment, err := h.stage(ctx, volume)
	if err != nil {
		return "", block.AttachmentID{}, fmt.Errorf("stage volume %s: %w", volume, err)
	}
	return path, attachment, nil
}

func (h *Host) stage(ctx context.Context, volume block.VolumeID) (string, block.AttachmentID, error) {
	ctx, cancel := early(ctx)
	defer cancel()
	if err := h.known(ctx); err != nil {
		return "", block.AttachmentID{}, err
	}
	k, fresh, err := h.keeper(volume, block.AttachmentID{})
	if err != nil {
		return "", block.AttachmentID{}, err
	}
	if fresh {
		select {
		case h.born <- k:
		case <-h.closing:
			k.finish(errClosing)
			h.forget(k)
		}
	}
	select {
	case <-k.ready:
	case <-k.gone: // never was ready, or is not any more
		return "", block.AttachmentID{}, k.whyGone()
	case <-ctx.Done():
		return "", block.AttachmentID{}, fmt.Errorf("%w: %w", k.waitsFor(), ctx.Err())
	}
	path, attachment, err := k.device()
	if err == nil && !fresh {
		err = h.stillAttached(ctx, Attachment{Volume: volume, ID: attachment})
	}
	return path, attachment, err
}

// early ends a little before its parent's deadline, while the caller still listens.
func early(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	const share = 10
	return context.WithDeadline(ctx, deadline.Add(-min(answerTime, time.Until(deadline)/share)))
}

// stillAttached asks Raft whether a device that was there before is of the present
// attachment. A node that was cut off may still have the one that was ended
// meanwhile, and be the next to which the volume is published: its keeper is about to
// remove the device.
func (h *Host) stillAttached(ctx context.Context, a Attachment) error {
	attachments, err := h.config.Truth.Attachments(ctx)
	if err != nil {
		return err
	}
	if !slices.Contains(attachments, a) {
		return fmt.Errorf("its device is of an attachment that was ended, and is being removed: %w", block.ErrUnavailable)
	}
	return nil
}

// Unstage drains, flushes and removes the device of a volume and ends its
// attachment. Unstaging what is not staged succeeds. When ctx ends first, the
// volume goes on being unstaged.
func (h *Host) Unstage(ctx context.Context, volume block.VolumeID) error {
	if err := h.unstage(ctx, volume); err != nil {
		return fmt.Errorf("unstage volume %s: %w", volume, err)
	}
	return nil
}

// keeperOf is that of a volume that is staged here, nil for any other.
func (h *Host) keeperOf(ctx context.Context, volume block.VolumeID) (*keeper, error) {
	if err := h.known(ctx); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errClosing
	}
	return h.keepers[volume], nil
}

func (h *Host) unstage(ctx context.Context, volume block.VolumeID) error {
	k, err := h.keeperOf(ctx, volume)
	switch {
	case err != nil:
		return err
	case k == nil:
		return h.endLeftover(ctx, volume, nil)
	}
	attempt := k.askEnd()
	select {
	case <-k.gone:
		if errors.Is(k.whyGone(), errClosing) {
			return errClosing
		}
		return h.endLeftover(ctx, volume, nil)
	case <-attempt.failed:
		return attempt.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// endLeftover ends an attachment that Raft shows here though no device is left. own is the
// keeper that asks, if one does: what any other has was staged since, and stays.
func (h *Host) endLeftover(ctx context.Context, volume block.VolumeID, own *keeper) error {
	// The view comes first: who made the attachment that it shows is a keeper by now.
	view, ok := h.config.Truth.View(volume)
	h.mu.Lock()
	keeper := h.keepers[volume]
	h.mu.Unlock()
	if keeper != own || !ok || !h.owns(view) {
		return nil
	}
	return h.config.Truth.EndAttachment(ctx, volume, view.Attachment)
}

// owns reports whether a view shows an attachment here.
func (h *Host) owns(view block.View) bool {
	return !view.Attachment.IsZero() && view.Owner == h.config.Node
}

// ownsUnseen reports whether Raft shows an attachment of a volume here. The caller
// knows of no device.
func (h *Host) ownsUnseen(volume block.VolumeID) bool {
	view, ok := h.config.Truth.View(volume)
	return ok && h.owns(view)
}

// Status describes a staged volume and its device, or one that is borrowed.
func (h *Host) Status(ctx context.Context, volume block.VolumeID) (core.Status, string, error) {
	h.mu.Lock()
	k := h.keepers[volume]
	h.mu.Unlock()
	if e := h.borrowers.engine(volume); k == nil && e != nil {
		status, err := e.Status(ctx)
		return status, "", err
	}
	if k == nil {
		return core.Status{}, "", fmt.Errorf("engine of volume %s: %w", volume, block.ErrNotFound)
	}
	return k.status(ctx)
}

// errClosing: the daemon is about to end; the next one takes over.
var errClosing = fmt.Errorf("the daemon is stopping: %w: %w", block.ErrClosed, block.ErrUnavailable)

// known waits until it is known which devices an earlier daemon left.
func (h *Host) known(ctx context.Context) error {
	select {
	case <-h.adopted:
		return nil
	case <-h.closing:
		return errClosing
	case <-ctx.Done():
		return fmt.Errorf("the daemon does not know its attachments yet (is there a quorum?): %w: %w", block.ErrUnavailable, ctx.Err())
	}
}

// wait pauses for d, or until wake is readable; false when ctx ended first.
func (h *Host) wait(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	done := make(chan struct{})
	stop := h.config.Clock.AfterFunc(d, func() { close(done) })
	defer stop()
	select {
	case <-done:
		return true
	case <-wake:
		return true
	case <-ctx.Done():
		return false
	}
}
