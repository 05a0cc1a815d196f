package core

import (
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/invariant"
)

// target is a replica on its way back into the in-sync set (rule 21 to rule 23). A
// region goes missing -> compared -> flushing -> cleared -> clearing -> gone;
// a write that misses the target takes it back to missing alone.
type target struct {
	// active: gets every write. Before, what it may lack is being recorded.
	active bool
	// missing are the regions it may lack. Every one of them is in the durable
	// dirty set of the replica or in the intent log of every member.
	missing block.Regions
	// todo are the chunks still to be compared.
	todo chunkSet
	// layered are the chunks of which all cuts were compared since the last one was
	// taken: a write that misses the target changes its head alone.
	layered chunkSet
	from    block.Region

	compared, inFlush, cleared, clearing block.Regions

	// flushing: a flush is under way at the target, numbered flushN, begun at
	// serial flushBegan. clean is when the last one it finished began; every
	// write queued before was delivered before it.
	flushing   bool
	flushN     uint64
	flushBegan uint64
	clean      uint64

	// counts: acknowledgements and flushes need it. caughtUp: every write from
	// before then is delivered. settledFlush: a flush begun after that, at
	// serial flushFrom or later, is finished. took: it holds the dirty sets of
	// others; taking is the stamp of the update that brings them.
	counts, caughtUp, settledFlush, took bool
	flushFrom                            uint64
	taking                               uint64

	// cutting is the stamp of the update by which it is taking a cut, else zero.
	// claimed: no flush makes a cut valid that it took as a member.
	cutting uint64
	claimed bool

	copied       int64
	reported     int
	blockedUntil block.Instant
	// full are the chunks for which its disk had no room in this turn through the
	// volume.
	full chunkSet
	// starvedAt is when its disk had no room last, zero if it always had.
	starvedAt block.Instant
	// crowded: a turn ended for want of room.
	crowded bool
	// hurried are the chunks to which a write did not fit the window while they were
	// copied, until the resync ends.
	hurried chunkSet
}

// flushRegions is how many compared regions make a flush worth its while.
const flushRegions = 64

// startTarget begins the return of a replica that was opened. First, everything
// it may lack is recorded durably on every member.
func (c *Core) startTarget(i int) {
	p := &c.peers[i]
	p.target = &target{}
	p.changed.logged.Union(p.log)
	if p.rolledBack() {
		c.guarded(GuardRolledBack)
	}
	if p.rolledBack() || p.needAll || c.misordered(p) {
		p.changed = changes{}
	}
	c.wantDirty(i, c.unrecorded(i))
	c.kick = true
}

// unrecorded is what a replica that returns may lack beyond its dirty set.
//
// Rule 22 (resync): it is compared in its dirty set, which is everything if none has
// the name of its removal, in what the members' logs name, and in what its own log
// names; in everything, if its disk was put back. All of that is in its durable
// dirty set before it becomes a target. Compared are hashes of bytes read and
// verified now; a write to a chunk that is being copied goes to the target after the
// copy (copying); and a bit is cleared after the target's flush, if no write has
// missed the target since the copy began (missChunk).
func (c *Core) unrecorded(i int) block.Regions {
	p := &c.peers[i]
	if p.rolledBack() || p.needAll || c.misordered(p) {
		return block.AllRegions(c.view.Size)
	}
	lacks := c.unionLogs()
	lacks.Union(p.log)
	return lacks
}

// driveTargets carries every target one step on.
func (c *Core) driveTargets() {
	if !c.settled() || c.phase != serving {
		return
	}
	for i := range c.absent().all() {
		p := &c.peers[i]
		t := p.target
		switch {
		case t == nil || p.link != linkOpen:
		case !t.active:
			if c.mayPrepare(i) && c.preparation(i) == nil {
				c.activate(i)
			}
		case t.counts:
			c.driveCounting(i)
		default:
			c.driveResync(i)
		}
	}
}

// activate makes a target get every write from now on, those under way included.
func (c *Core) activate(i int) {
	p := &c.peers[i]
	t := p.target
	invariant.Assert(p.dirty.Contains(p.log), "own log of target %s is not in its dirty set", p.id)
	t.active = true
	t.missing = p.dirty.Clone()
	t.missing.Union(c.unionLogs())
	c.planResync(i)
	for k := range c.writes {
		if w := &c.writes[k]; w.used && w.running {
			c.queueForTarget(i, k)
		}
	}
	t.reported = t.todo.count
	c.throttle.relearn()
	c.kick = true
	c.emit(Effect{Kind: EffectNotice, Notice: Notice{
		Kind: NoticeResyncStarted, Replica: p.id, Bytes: t.remaining(),
	}})
}

// queueForTarget brings a write to a target.
//
// Rule 21 (targets): a target gets every write from the moment it is one. It serves
// no reads (reader) and counts for nothing until rule 6 makes it. Past its window,
// which holds only for one that does not count, it misses the write and has its
// chunks to be compared again.
func (c *Core) queueForTarget(k, i int) {
	w := &c.writes[i]
	p := &c.peers[k]
	if p.calls.writes < c.cfg.Limits.TargetWindow {
		c.deliver(k, i)
		return
	}
	c.guarded(GuardWindow)
	c.hurry(k, w.span)
	w.missed |= bit(k)
	c.missed(k, w.span)
	c.forgetOlder(k, w.span)
}

// hurry has the chunks of a span that are being copied, and so keep writes waiting,
// copied at full speed the next time: at the pace of the throttle there may be too
// many writes each time, and the resync would never end.
func (c *Core) hurry(k int, span block.Span) {
	t := c.peers[k].target
	for chunk := span.Offset / block.ChunkSize; chunk <= (span.End()-1)/block.ChunkSize; chunk++ {
		if c.copyingChunk(k, chunk) {
			t.hurried.add(chunk)
		}
	}
}

// forgetOlder takes writes out of a target's queue that a missed one has
// overwritten: delivered after a copy that brought the newer bytes, they would
// bring the older ones back. They are missed, too.
func (c *Core) forgetOlder(k int, span block.Span) {
	t := &c.peers[k].calls
	for at := t.head; at != 0; {
		e := &t.slots[at-1]
		next := e.next
		if e.purpose == forWrite && !e.sent && e.req.Span().Blocks().Overlaps(span.Blocks()) {
			gone := t.remove(at - 1)
			if w := &c.writes[gone.index]; w.used && w.stamp == gone.stamp {
				w.sent &^= bit(k)
				w.missed |= bit(k)
			}
			c.missed(k, gone.req.Span())
			c.forgetOlder(k, gone.req.Span())
			next = t.head
		}
		at = next
	}
}

// missed marks what a target did not get. Until the members' logs are cleared,
// which makes the mark durable first, those logs hold it.
func (c *Core) missed(k int, span block.Span) {
	t := c.peers[k].target
	if t == nil || !t.active {
		return
	}
	invariant.Assert(!t.counts, "target %s counts and misses a write", c.peers[k].id)
	for chunk := span.Offset / block.ChunkSize; chunk <= (span.End()-1)/block.ChunkSize; chunk++ {
		t.missChunk(chunk)
	}
}

// missChunk puts a chunk back among those to be compared.
func (t *target) missChunk(chunk int64) {
	r, _ := chunkPlace(chunk)
	t.todo.add(chunk)
	t.missing.Add(r)
	t.compared.Remove(r)
	t.inFlush.Remove(r)
	t.cleared.Remove(r)
	t.clearing.Remove(r)
}

// nextChunk is a chunk still to be compared for which skip is false, or -1. It
// goes round the volume in order.
func (t *target) nextChunk(skip func(chunk int64) bool) int64 {
	k := t.todo.next(t.from, skip)
	if k >= 0 {
		t.from, _ = chunkPlace(k)
	}
	return k
}

// flushSent notes what a flush of the target will cover.
func (t *target) flushSent(number, began uint64) {
	t.flushing = true
	t.flushN, t.flushBegan = number, began
	t.inFlush.Union(t.compared)
	t.compared = nil
}

// targetFlushed: what was compared before the flush is durable on the target.
func (c *Core) targetFlushed(i int, number uint64) {
	t := c.peers[i].target
	if !t.flushing || t.flushN != number {
		return
	}
	t.flushing = false
	t.clean = t.flushBegan
	t.cleared.Union(t.inFlush)
	t.inFlush = nil
	c.kick = true
}

// driveResync asks for flushes of what was compared and, when nothing is missing
// any more, makes the target count.
func (c *Core) driveResync(i int) {
	t := c.peers[i].target
	if t.reported-t.todo.count >= flushRegions*block.ChunksPerRegion {
		c.progress(i)
	}
	if !t.flushing && !t.compared.Empty() && (t.todo.count == 0 || t.compared.Count() >= flushRegions) {
		c.flush.wanted = true
		c.kick = c.kick || !c.flush.active
	}
	if !t.missing.Empty() || c.counting >= 0 || c.proposal.open || c.healthy() != c.iss || c.cut.stage > cutWanted || t.cutting != 0 {
		return
	}
	if !c.deliverMissed(i) {
		return
	}
	t.counts = true
	c.counting = i
	c.kick, c.wake = true, true
}

// deliverMissed hands the writes under way that have missed a target to it after
// all, as far as its window goes, and reports whether none is left. They may be
// waiting for this very target to become a member (rule 9). Their ranges are
// locked, so that nothing newer can be under them.
func (c *Core) deliverMissed(i int) bool {
	for k := range c.writes {
		w := &c.writes[k]
		if !w.used || !w.running || !w.missed.has(i) {
			continue
		}
		if c.peers[i].calls.writes >= c.cfg.Limits.TargetWindow {
			return false
		}
		w.missed &^= bit(i)
		c.deliver(i, k)
	}
	return true
}

// driveCounting brings a target that counts to the point where it can be
// proposed: every earlier write delivered, a flush begun after that finished
// (rule 6), the dirty sets of others taken over (rule 23).
func (c *Core) driveCounting(i int) {
	t := c.peers[i].target
	if !t.caughtUp {
		if c.behind(i) {
			return
		}
		t.caughtUp = true
		t.flushFrom = c.serial + 1
		c.flush.wanted = true
		c.kick = true
	}
	if !t.settledFlush && c.flush.clean >= t.flushFrom && t.clean >= t.flushFrom {
		t.settledFlush = true
		c.kick = true
	}
}

// behind reports whether a write that has ended is still queued for the target.
func (c *Core) behind(i int) bool {
	p := &c.peers[i]
	for at := p.calls.head; at != 0; at = p.calls.slots[at-1].next {
		e := &p.calls.slots[at-1]
		if e.purpose != forWrite {
			continue
		}
		if w := &c.writes[e.index]; !w.used || w.stamp != e.stamp {
			return true
		}
	}
	return false
}

// proposeAdmission proposes a target that has everything.
func (c *Core) proposeAdmission() bool {
	i := c.counting
	if i < 0 || !c.peers[i].target.took || c.phase != serving || c.meta.viewOwed {
		return false
	}
	p := &c.peers[i]
	t := p.target
	invariant.Assert(t.counts && t.caughtUp && t.settledFlush, "admission of a target that lacks something")
	invariant.Assert(t.missing.Empty() && t.todo.count == 0, "admission of a target that misses regions")
	invariant.Assert(!c.cut.open() && !c.lacksCut(p), "admission of a target that lacks a snapshot or the size")
	// The proposer knows the outcome of all its removals: it reads under the
	// lease of the present members only, so that older ones are waited out.
	c.propose(block.Proposal{
		Admit:        []block.ReplicaID{p.id},
		Incarnations: []block.MemberIncarnation{{Replica: p.id, Incarnation: p.incarnation}},
		WaitedOut:    c.view.NotWaitedOut,
	})
	return true
}

// stopCounting takes the target that counts back, unless its admission is
// proposed.
func (c *Core) stopCounting() {
	if c.counting < 0 || c.proposal.open {
		return
	}
	t := c.peers[c.counting].target
	t.counts, t.caughtUp, t.settledFlush, t.took, t.taking = false, false, false, false, 0
	c.abandonTakeOver()
	c.counting = -1
	c.kick, c.wake = true, true
}

// abandonTakeOver stops waiting for a target that no longer matters.
func (c *Core) abandonTakeOver() {
	if c.meta.active && c.meta.kind == metaTakeOver {
		c.meta.to = 0
	}
	if c.meta.active && c.counting >= 0 {
		c.meta.to &^= bit(c.counting) &^ c.iss
	}
}

// endTarget ends a resync with the session. What the members logged meanwhile
// is added to the replica's dirty set again (rule 16).
func (c *Core) endTarget(i int) {
	p := &c.peers[i]
	t := p.target
	if t == nil {
		return
	}
	if c.counting == i {
		c.abandonTakeOver()
		c.counting = -1
	}
	p.target = nil
	if !p.gone {
		c.wantDirty(i, t.missing)
		logs := c.unionLogs()
		if !p.dirty.Contains(logs) {
			c.guarded(GuardLogsAgain)
		}
		c.wantDirty(i, logs)
	}
	for k := range c.writes {
		c.writes[k].missed &^= bit(i)
	}
	for k := range c.jobs {
		if j := &c.jobs[k]; j.used && j.target == i {
			c.endJob(k)
		}
	}
	c.kick, c.wake = true, true
}

// missesForSpace deals with a write or copy for which the disk of a target that
// does not count has no room, and reports whether it did. The target misses it and
// goes on: what else it lacks may be trims, which give room, and to begin again
// each time would never reach them.
func (c *Core) missesForSpace(i int, at int32) bool {
	p := &c.peers[i]
	t, e := p.target, &p.calls.slots[at]
	if t == nil || !t.active || t.counts || e.purpose != forWrite && e.purpose != forJob {
		return false
	}
	if e.purpose == forJob {
		j := &c.jobs[e.index]
		if !j.used || j.stamp != e.stamp || j.target != i || j.state != jobWriting {
			return false
		}
		gone := p.calls.remove(at)
		t.noRoom(c.jobs[gone.index].span, c.now)
		c.abortCopy(int(gone.index))
	} else {
		gone := p.calls.remove(at)
		if w := &c.writes[gone.index]; w.used && w.stamp == gone.stamp {
			w.sent &^= bit(i)
			w.missed |= bit(i)
		}
		span := gone.req.Span()
		c.missed(i, span)
		c.forgetOlder(i, span)
		t.noRoom(span, c.now)
		c.pump(i)
	}
	c.kick = true
	return true
}

// noRoom leaves the chunks of a span to the next turn.
func (t *target) noRoom(span block.Span, now block.Instant) {
	t.starvedAt = now
	for chunk := span.Offset / block.ChunkSize; chunk <= (span.End()-1)/block.ChunkSize; chunk++ {
		t.full.add(chunk)
	}
}

// progress reports how far a resync is.
func (c *Core) progress(i int) {
	t := c.peers[i].target
	t.reported = t.todo.count
	c.emit(Effect{Kind: EffectNotice, Notice: Notice{
		Kind: NoticeResyncProgress, Replica: c.peers[i].id,
		Bytes: t.remaining(), Copied: t.copied,
	}})
}
