package store

import (
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/turn"
)

// task is an Op on its way through the store. One that covers more than a
// window of extents goes window by window.
type task struct {
	replica *Replica
	op      *Op
	// at and end bound what is left of the span, windowEnd the current window.
	at, windowEnd, end int64
	// pieces are those of the window; waiting of them are not granted yet,
	// running not done.
	pieces  []*piece
	waiting int
	running int
	// layer is that of the cut of a Read, Hash or layer write, 0 for the head.
	layer uint32
	// since is the layer of the other cut of a Hash, 0 for none. later is the first
	// number of layers above layer that may have other bytes than it, 0 for none.
	since, later uint32
	// active: the window counts as writing. gate: an Update that holds writes back.
	active bool
	gate   bool
	// pruning is what the store's own operation is for.
	pruning *pruning
	// synced: an Update whose regions needed a flush has had it.
	synced bool
	err    error
	bad    int64
	next   *task
}

// Windows, in bytes.
const (
	zeroWindow = 4 << 20
	hashWindow = block.ChunkSize
	// maxHashSpan bounds the results of one Hash.
	maxHashSpan = 1 << 30
)

// Submit starts op. It never blocks on the disk. Overlapping writes are applied
// in the order of their submission.
func (r *Replica) Submit(op *Op) {
	s := r.store
	op.Err, op.Bad, op.Next = nil, 0, block.SnapshotID{}
	if !s.enter() {
		return
	}
	s.turn, op.Submitting = op.Submitting, nil
	err := r.admissible(op)
	if err == nil {
		err = r.validate(op)
	}
	if err != nil {
		s.finishOp(op, fmt.Errorf("%s replica %s: %w", op.Kind, r.id, err))
	} else {
		t := s.newTask(r, op)
		switch op.Kind {
		case Flush:
			s.awaitRound(t)
		case Update:
			s.submitUpdate(t)
		case Fence:
			s.commitWaiting = append(s.commitWaiting, t)
			s.startCommit()
		case Changed:
			s.jobs++
			s.options.Executor.Go(func() { s.runChanged(t) })
		default:
			s.submitSpan(t)
		}
	}
	s.run()
	s.deliverLater()
	s.turn = nil
	s.mu.Unlock()
}

// validate checks what is asked for. The mutex is held.
func (r *Replica) validate(op *Op) error {
	span := block.Span{Offset: op.Offset, Length: op.Length}
	size := r.durable.size
	if !op.Snapshot.IsZero() {
		c, err := r.cutOf(op.Snapshot)
		if err != nil {
			return err
		}
		size = c.Size
	}
	bad := func(what string) error {
		return fmt.Errorf("%s of %d bytes at %d, size %d: %w", what, op.Length, op.Offset, size, block.ErrInvalid)
	}
	switch op.Kind {
	case Flush, Update, Fence:
		if !op.Snapshot.IsZero() {
			return fmt.Errorf("of a snapshot: %w", block.ErrInvalid)
		}
	case Write, Zero:
		if whole := op.Offset%block.ExtentSize == 0 && (op.Length%block.ExtentSize == 0 || span.End() == size); !op.Snapshot.IsZero() && !whole {
			return bad("snapshot, span")
		}
	}
	if !op.Since.IsZero() && op.Kind != Hash {
		return fmt.Errorf("since a snapshot: %w", block.ErrInvalid)
	}
	switch op.Kind {
	case Repair:
		if op.Snapshot.IsZero() || !wholeBlocks(span, size) {
			return bad("snapshot, span")
		}
		fallthrough
	case Read, Write:
		if !span.Within(size, block.SectorSize) || op.Length > block.MaxTransfer {
			return bad("span")
		}
		if op.Buf == nil || int64(len(op.Buf.Data)) != op.Length {
			return bad("buffer")
		}
	case Zero:
		if !span.Within(size, block.SectorSize) {
			return bad("span")
		}
	case Hash:
		whole := (size + block.ExtentSize - 1) &^ (block.ExtentSize - 1)
		// An engine may know a smaller size; what lies beyond it is hashed, too.
		span.Length = (span.Length + block.ExtentSize - 1) &^ (block.ExtentSize - 1)
		if !span.Within(whole, block.ExtentSize) || span.Offset+op.Length > size || op.Length > maxHashSpan {
			return bad("span")
		}
	case Flush:
		if len(op.Confirmed) > maxConfirmed {
			return fmt.Errorf("%d confirmed flushes, at most %d: %w", len(op.Confirmed), maxConfirmed, block.ErrInvalid)
		}
	case Update:
		if op.Meta == nil {
			return fmt.Errorf("no update: %w", block.ErrInvalid)
		}
		return validateUpdate(op.Meta, size)
	case Changed:
		if op.Snapshot.IsZero() || !span.Within(r.durable.size, block.SectorSize) || op.Offset%block.ExtentSize != 0 ||
			op.Length > maxExtentsSpan || op.Buf == nil || len(op.Buf.Data) != block.ChangedBytes(op.Length) {
			return bad("span")
		}
	case Fence:
	default:
		return fmt.Errorf("operation %d: %w", op.Kind, block.ErrInvalid)
	}
	return nil
}

// admissible checks what depends on state. The mutex is held.
func (r *Replica) admissible(op *Op) error {
	switch s := r.store; {
	case s.closing:
		return block.ErrClosed
	case r.record.deleting:
		return block.ErrNotFound
	case s.failed != nil && (s.stalled || op.Kind != Read && op.Kind != Hash):
		return s.failed
	default:
		return nil
	}
}

// newTask takes a task from the free list.
func (s *Store) newTask(r *Replica, op *Op) *task {
	t := s.freeTasks
	if t == nil {
		t = &task{}
	} else {
		s.freeTasks = t.next
	}
	pieces := t.pieces[:0]
	*t = task{replica: r, op: op, at: op.Offset, end: op.Offset + op.Length, pieces: pieces}
	r.inFlight++
	s.inFlight++
	return t
}

// finish ends a task and hands its Op back.
func (s *Store) finish(t *task, err error) {
	r, op := t.replica, t.op
	op.Bad = t.bad
	if t.gate {
		s.openGate(r)
	}
	if err != nil {
		err = fmt.Errorf("%s replica %s: %w", op.Kind, r.id, err)
	}
	s.finishOp(op, err)
	pieces := t.pieces[:0]
	*t = task{pieces: pieces, next: s.freeTasks}
	s.freeTasks = t
	s.inFlight--
	if r.inFlight--; r.inFlight == 0 && r.record.deleting {
		s.wantPruning(r)
		s.startDeletions()
		s.startPruning()
	}
	if s.inFlight == 0 {
		s.quiet.Broadcast()
	}
}

// finishOp queues op's Done, to be called when the mutex is free.
func (s *Store) finishOp(op *Op, err error) {
	op.Err = err
	op.next = nil
	if s.finishedLast != nil {
		s.finishedLast.next = op
	} else {
		s.finished = op
	}
	s.finishedLast = op
}

// submitSpan begins a Read, Write, Zero or Hash. A Zero of many windows takes
// its extents one window after the other; what overlaps it, or overlaps
// something that waits for it, is held back meanwhile.
func (s *Store) submitSpan(t *task) {
	r := t.replica
	if r.heldBack(t, len(r.held)) {
		r.held = append(r.held, t)
		return
	}
	s.begin(t)
}

func (s *Store) begin(t *task) {
	op := t.op
	switch op.Kind {
	case Zero:
		if t.at/zeroWindow != (t.end-1)/zeroWindow {
			t.replica.long = append(t.replica.long, t)
		}
	case Hash:
		t.end = (t.end + block.ExtentSize - 1) &^ (block.ExtentSize - 1)
		op.Hashes = resizeHashes(op.Hashes, int((t.end-t.at)/block.ExtentSize))
	}
	s.beginWindow(t)
}

func resizeHashes(h []block.ExtentHash, n int) []block.ExtentHash {
	if cap(h) < n {
		return make([]block.ExtentHash, n)
	}
	h = h[:n]
	clear(h)
	return h
}

// heldBack reports whether t overlaps a long Zero in progress or one of the
// first n tasks held back.
func (r *Replica) heldBack(t *task, n int) bool {
	if len(r.long) == 0 {
		return false
	}
	span := t.span().Blocks()
	for _, q := range r.long {
		if span.Overlaps(q.span().Blocks()) {
			return true
		}
	}
	for _, q := range r.held[:n] {
		if span.Overlaps(q.span().Blocks()) {
			return true
		}
	}
	return false
}

func (t *task) span() block.Span { return block.Span{Offset: t.op.Offset, Length: t.op.Length} }

// endLong lets go what was held back by t.
func (s *Store) endLong(t *task) {
	r := t.replica
	for i, q := range r.long {
		if q == t {
			r.long = append(r.long[:i], r.long[i+1:]...)
			break
		}
	}
	waiting := r.held
	r.held = nil
	for _, q := range waiting {
		s.submitSpan(q)
	}
}

// beginWindow cuts the next window into pieces and queues them all.
func (s *Store) beginWindow(t *task) {
	t.windowEnd = t.end
	switch t.op.Kind {
	case Zero:
		t.windowEnd = min(t.end, t.at-t.at%zeroWindow+zeroWindow)
	case Hash:
		t.windowEnd = min(t.end, t.at+hashWindow)
	}
	t.waiting = 1
	for at := t.at; at < t.windowEnd; {
		extent := at / block.ExtentSize
		start := extent * block.ExtentSize
		to := min(start+block.ExtentSize, t.windowEnd)
		p := s.newPiece()
		p.task = t
		p.page = s.page(t.replica, uint32(extent/pageExtents))
		p.index = int(extent % pageExtents)
		p.from, p.to = int(at-start), int(to-start)
		p.mask = blockMask(p.from, p.to)
		p.exclusive = t.op.Kind == Write || t.op.Kind == Zero || t.op.Kind == Repair
		if p.exclusive && !t.op.Snapshot.IsZero() {
			p.mask = 1<<block.BlocksPerExtent - 1
		}
		t.pieces = append(t.pieces, p)
		s.enqueue(p)
		at = to
	}
	if t.waiting--; t.waiting == 0 {
		s.makeReady(t)
	}
}

// makeReady queues a task for proceed.
func (s *Store) makeReady(t *task) {
	t.next = nil
	if s.readyLast != nil {
		s.readyLast.next = t
	} else {
		s.ready = t
	}
	s.readyLast = t
}

// run goes on with every task that can.
func (s *Store) run() {
	for s.ready != nil {
		t := s.ready
		if s.ready = t.next; s.ready == nil {
			s.readyLast = nil
		}
		t.next = nil
		s.proceed(t)
	}
}

// proceed goes on with a window all of whose pieces are granted: the regions
// must be in the intent log and there must be space, then the pieces start. From
// the taking of space to the end of the window no cut is taken.
func (s *Store) proceed(t *task) {
	for _, p := range t.pieces {
		if p.page.err != nil {
			s.endWindow(t, p.page.err)
			return
		}
	}
	writes := t.op.Kind == Write || t.op.Kind == Zero
	if writes || t.op.Kind == prune {
		if s.failed != nil {
			s.endWindow(t, s.failed)
			return
		}
		if writes && s.awaitLog(t) || s.awaitGate(t) {
			return
		}
	}
	if t.op.Kind == Repair && s.failed != nil {
		s.endWindow(t, s.failed)
		return
	}
	if err := t.findLayer(); err != nil {
		s.endWindow(t, err)
		return
	}
	if writes && s.awaitSpace(t) {
		return
	}
	if writes || t.op.Kind == prune {
		t.active = true
		t.replica.active++
	}
	switch {
	case t.op.Kind == prune || writes && t.layer != 0:
		s.startChains(t)
	case t.layer == 0 && t.since == 0 || s.lookUp(t):
		s.startPieces(t)
	}
}

// findLayer finds the cut that t is about. A write must not change a valid cut, nor
// one that has inherited from what it changes.
func (t *task) findLayer() error {
	if !t.op.Since.IsZero() {
		c, err := t.replica.cutOf(t.op.Since)
		if err != nil {
			return err
		}
		t.since = c.layer
	}
	if t.op.Snapshot.IsZero() {
		return nil
	}
	c, err := t.replica.cutOf(t.op.Snapshot)
	if err != nil {
		return err
	}
	t.layer = c.layer
	switch {
	case t.op.Kind == Repair && !c.Valid:
		return fmt.Errorf("snapshot %s is not valid: %w", t.op.Snapshot, block.ErrInvalid)
	case t.op.Kind != Repair && t.pieces[0].exclusive && (c.Valid || c.layer < t.replica.newestValid):
		return fmt.Errorf("snapshot %s is valid: %w", t.op.Snapshot, block.ErrInvalid)
	}
	return nil
}

func (s *Store) startPieces(t *task) {
	t.running = len(t.pieces) + 1
	for _, p := range t.pieces {
		s.startPiece(p)
	}
	s.taskStep(t)
}

func (s *Store) startPiece(p *piece) {
	if p.task.layer == 0 {
		p.state = p.entry().entryState
	}
	switch p.task.op.Kind {
	case Read:
		s.startRead(p)
	case Write:
		s.startWrite(p)
	case Zero:
		if p.task.layer != 0 {
			s.layerWritten(p)
		} else {
			s.startZero(p)
		}
	case Hash:
		s.startHash(p)
	case Repair:
		s.startRepair(p)
	case prune:
		s.startPrune(p)
	}
}

// pieceDone ends the work of p. The first error of a window is the task's.
func (s *Store) pieceDone(p *piece, err error) {
	t := p.task
	if t.err == nil {
		t.err = err
	}
	s.taskStep(t)
}

func (s *Store) taskStep(t *task) {
	if t.running--; t.running == 0 {
		s.endWindow(t, t.err)
	}
}

// endWindow lets go of the window's extents and goes on with the next one, or
// ends the task.
func (s *Store) endWindow(t *task, err error) {
	for i, p := range t.pieces {
		s.release(p)
		s.recycle(p)
		t.pieces[i] = nil
	}
	t.pieces = t.pieces[:0]
	if t.active {
		t.active = false
		t.replica.active--
		s.drained(t.replica)
	}
	t.at = t.windowEnd
	if err == nil && t.at < t.end {
		s.beginWindow(t)
		return
	}
	if t.op.Kind == Zero && len(t.replica.long) > 0 {
		s.endLong(t)
	}
	if err == nil && t.op.Kind == Write && t.op.Flags&block.FlagDurable != 0 {
		s.awaitRound(t)
		return
	}
	s.finish(t, err)
}

// unlock frees the mutex after going on with what can, and then calls the Done
// of what has ended.
func (s *Store) unlock() {
	s.run()
	op, t := s.finished, s.turn
	s.finished, s.finishedLast, s.turn = nil, nil, nil
	s.mu.Unlock()
	deliver(op, t)
}

// deliverLater leaves the Done calls to a job, for callers from within Submit.
func (s *Store) deliverLater() {
	if s.finished != nil && !s.delivering {
		s.delivering = true
		s.jobs++
		s.options.Executor.Go(s.deliverJob)
	}
}

func (s *Store) runDeliver() {
	s.mu.Lock()
	s.delivering = false
	s.jobDone()
	if s.abandoned {
		s.mu.Unlock()
		return
	}
	s.quiet.Broadcast()
	s.unlock()
}

// deliver calls the Done of op and of those behind it, in a turn of the caller.
func deliver(op *Op, t *turn.Turn) {
	for op != nil {
		next := op.next
		op.next = nil
		op.Ending = t
		op.Done(op)
		op = next
	}
}
