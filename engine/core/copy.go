package core

import (
	"github.com/holdfast-io/holdfast/internal/block"
)

// startCopy begins to copy one more chunk to a target that lacks it. While the members
// take a cut, they do not hold what a target that has taken it lacks of it.
func (c *Core) startCopy() bool {
	if c.cut.stage == cutTaking {
		return false
	}
	for i := range c.peers {
		t := c.peers[i].target
		if t == nil || !t.active || t.cutting != 0 || c.peers[i].link != linkOpen || c.now < t.blockedUntil {
			continue
		}
		chunk := c.nextMissing(i)
		if chunk < 0 {
			if t.full.count > 0 {
				// Only what found no room is left: another turn, after a while.
				t.full, t.crowded = chunkSet{}, true
				c.kick = true
				t.blockedUntil = c.now + block.Instant(c.cfg.Timing.NoSpaceRetry)
			}
			continue
		}
		k := c.startJob(i, chunk)
		if k < 0 {
			return false
		}
		t.todo.remove(chunk)
		c.jobs[k].state = jobReady
		c.advanceJob(k)
		return true
	}
	return false
}

// nextMissing is a chunk that a target lacks and that can be copied now, or -1.
// A divergent chunk is repaired first: a copy of one member's version could
// outlive that member.
func (c *Core) nextMissing(i int) int64 {
	t := c.peers[i].target
	return t.nextChunk(func(chunk int64) bool {
		return c.divide.has(chunk) || t.full.has(chunk) || c.copyingChunk(i, chunk)
	})
}

func (c *Core) copyingChunk(target int, chunk int64) bool {
	for i := range c.jobs {
		if j := &c.jobs[i]; j.used && j.target == target && j.chunk == chunk {
			return true
		}
	}
	return false
}

// copying reports whether a copy to the target touches the span: its writes wait
// until the copy is done (rule 22).
func (c *Core) copying(target int, span block.Span) bool {
	for i := range c.jobs {
		if j := &c.jobs[i]; j.used && j.target == target && j.span.Overlaps(span) {
			return true
		}
	}
	return false
}

// copyingRegion reports whether a copy to the target runs in the region.
func (c *Core) copyingRegion(target int, r block.Region) bool {
	return c.copying(target, r.Span())
}

// hashForCopy compares source and target, once the writes that were under way at
// the target in this chunk have ended.
func (c *Core) hashForCopy(i int) {
	j := &c.jobs[i]
	p := &c.peers[j.target]
	for at := p.calls.head; at != 0; at = p.calls.slots[at-1].next {
		e := &p.calls.slots[at-1]
		if e.purpose == forWrite && e.sent && e.req.Span().Blocks().Overlaps(j.span) {
			return
		}
	}
	j.source = c.reader(0)
	if j.source < 0 {
		return
	}
	j.view = c.stamp
	c.deliverAgain(j)
	first := c.layerAfter(j.target, j.span, block.SnapshotID{})
	if c.peers[j.target].target.layered.has(j.chunk) {
		first = block.SnapshotID{}
	}
	c.enterLayer(j, first)
	extents, known := c.peers[j.target].changed.extents(j.chunk)
	if j.layer.IsZero() && known && extents != 0 && !c.peers[j.source].acceptSuspect {
		c.copyChanged(i, extents)
		return
	}
	c.hash(i, bit(j.source)|bit(j.target))
}

// layerAfter is the layer of a span at which a copy to a target goes on after another
// one, zero to begin with and in the end for the head.
//
// Rule 25 (layers): a chunk is compared and copied cut by cut, in the order in which
// the target took them, for a later one inherits what an earlier one is given, and then
// the head; it is clean when the head is. A valid cut never changes and is left out. A
// new cut has the chunks that run compared again, and those to come in its layer, too
// (prepareForCut). No cut of a target is valid before nothing is missing (takeOver).
func (c *Core) layerAfter(target int, span block.Span, layer block.SnapshotID) block.SnapshotID {
	found := layer.IsZero()
	for k := range c.peers[target].cuts {
		cut := &c.peers[target].cuts[k]
		if found && !cut.Valid && !cut.Kept && c.layerSize(cut.Snapshot) > span.Offset {
			return cut.Snapshot
		}
		found = found || cut.Snapshot == layer
	}
	return block.SnapshotID{}
}

// layerSize is the size of the volume at a cut, 0 if that is no layer of it.
func (c *Core) layerSize(id block.SnapshotID) int64 {
	if c.cut.open() && c.cut.snapshot.ID == id {
		return c.cut.snapshot.Size
	}
	if s := c.view.Snapshot(id); s != nil {
		return s.Size
	}
	return 0
}

// enterLayer has a copy begin with a layer.
func (c *Core) enterLayer(j *job, layer block.SnapshotID) {
	j.layer, j.end = layer, j.span.End()
	if !layer.IsZero() {
		c.guarded(GuardLayer)
		j.end = min(j.end, c.layerSize(layer))
	}
	j.slice, j.block, j.changed = block.Span{}, 0, 0
}

// layerFailed: the layer does not verify at the source, or one of the two does not
// hold it. Any other member serves as well, for the layer is the same everywhere. One
// that was given up or deleted is left out the next time, as soon as Raft says so.
func (c *Core) layerFailed(k, i int, err error) {
	j := &c.jobs[i]
	switch {
	case c.layerSize(j.layer) == 0:
		c.abortCopy(i)
		return
	case k == j.target:
		c.fail(k, err)
		return
	}
	j.tried |= bit(k)
	source := c.reader(j.tried)
	if source < 0 {
		c.copyBlocked(i)
		return
	}
	j.source = source
	j.stamp++ // the other one's answer may be on its way
	c.enterLayer(j, j.layer)
	c.hash(i, bit(j.source)|bit(j.target))
}

// copyChanged copies the extents that were written while the target was away, and
// hashes nothing: all others are equal.
func (c *Core) copyChanged(i int, extents uint16) {
	j := &c.jobs[i]
	j.changed = extents
	c.clearHashes(j)
	j.slice = j.span
	c.copyNext(i)
}

// deliverAgain queues behind a copy what the target has already and the source
// may not have yet (its disk is full, or takes no writes): the copy would undo it
// on the target, which counts as having it.
func (c *Core) deliverAgain(j *job) {
	for k := range c.writes {
		w := &c.writes[k]
		if !w.used || !w.running || !w.has.has(j.target) || w.has.has(j.source) || !w.span.Blocks().Overlaps(j.span) {
			continue
		}
		w.has &^= bit(j.target)
		w.sent &^= bit(j.target)
		c.queueForTarget(j.target, k)
	}
}

// mayCopyFrom reports whether an extent of a source may be copied on.
//
// Rule 30 (verified copies): nothing that does not verify is copied on. Only the
// unflushed set of a member that is trusted because nobody knows better (trust) is
// taken as found. Copies that differ and verify are reported (reportDifferences),
// never made equal silently.
func (c *Core) mayCopyFrom(source int, h *block.ExtentHash) bool {
	return h.Bad|h.Suspect == 0 || h.Bad == 0 && c.peers[source].acceptSuspect
}

// copyRunMax is how many extents that lie side by side are copied at once.
const copyRunMax = 4

// copyNext copies the next extents that differ, or ends the copy.
func (c *Core) copyNext(i int) {
	j := &c.jobs[i]
	for ; j.block < block.ExtentsPerChunk*block.BlocksPerExtent; j.block += block.BlocksPerExtent {
		first := j.span.Offset + int64(j.block)*block.BlockSize
		if first >= j.end {
			break
		}
		e := j.block / block.BlocksPerExtent
		if !c.mayCopyFrom(j.source, &j.hashes[j.source][e]) {
			if !j.layer.IsZero() {
				c.layerFailed(j.source, i, block.ErrChecksum)
				return
			}
			c.copyBlocked(i)
			return
		}
		if !j.differs(e) {
			continue
		}
		extents, most := 1, copyRunMax
		if c.smallCopy(j) {
			most = min(most, c.throttle.extents())
		}
		for extents < most && e+extents < block.ExtentsPerChunk && j.copiedWith(e+extents) {
			extents++
		}
		j.block += extents * block.BlocksPerExtent
		j.run = run{provider: j.source, span: block.Span{
			Offset: first, Length: min(int64(extents)*block.ExtentSize, j.end-first),
		}}
		if c.peers[j.source].acceptSuspect {
			j.run.flags = block.FlagAcceptSuspect
		}
		j.state = jobReading
		c.call(j.source, forJob, i, j.stamp, block.Request{
			Op: block.OpRead, Flags: j.run.flags | block.FlagResync,
			Offset: j.run.span.Offset, Length: j.run.span.Length, Snapshot: j.layer,
		})
		return
	}
	c.copied(i)
}

// differs reports whether an extent must be copied.
func (j *job) differs(e int) bool {
	if j.changed != 0 {
		return j.changed&(1<<uint(e)) != 0
	}
	from, to := &j.hashes[j.source][e], &j.hashes[j.target][e]
	return from.Bad|from.Suspect|to.Bad|to.Suspect != 0 || from.Sum != to.Sum
}

// copiedWith reports whether an extent is copied together with the one before it.
func (j *job) copiedWith(e int) bool {
	from := &j.hashes[j.source][e]
	return j.span.Offset+int64(e)*block.ExtentSize < j.end && j.differs(e) && from.Bad|from.Suspect == 0
}

// cutRun shortens a run to the extents at its front that are all zero, or all not:
// the rest is copied next.
func (j *job) cutRun(buf *block.Buffer) {
	zero := allZero(buf.Data[:min(block.ExtentSize, len(buf.Data))])
	for at := block.ExtentSize; at < len(buf.Data); at += block.ExtentSize {
		if allZero(buf.Data[at:min(at+block.ExtentSize, len(buf.Data))]) == zero {
			continue
		}
		buf.Data = buf.Data[:at]
		j.run.span.Length = int64(at)
		j.block = int(j.run.span.End()-j.span.Offset) / block.BlockSize
		return
	}
}

// copyWrite writes to the target what was read from the source. It takes over
// one reference of buf.
func (c *Core) copyWrite(i int, buf *block.Buffer) {
	j := &c.jobs[i]
	j.cutRun(buf)
	p := &c.peers[j.target]
	req := block.Request{
		Op: block.OpWrite, Flags: block.FlagResync,
		Offset: j.run.span.Offset, Length: j.run.span.Length, Buf: buf, Snapshot: j.layer,
	}
	if allZero(buf.Data) {
		req.Op, req.Buf = block.OpZero, nil
	}
	for r := range regionsOf(j.run.span) {
		p.log.Add(r)
	}
	p.target.copied += j.run.span.Length
	c.call(j.target, forJob, i, j.stamp, req)
	buf.Release()
}

// pace begins the next step of a copy, after a pause if it is small.
func (c *Core) pace(i int) {
	j := &c.jobs[i]
	if pause := c.throttle.step(); pause > 0 && c.smallCopy(j) {
		j.state, j.resume = jobPausing, c.now+pause
		return
	}
	c.copyStep(i)
}

// copyStep compares or copies on.
func (c *Core) copyStep(i int) {
	if j := &c.jobs[i]; j.slice.End() < j.end {
		c.hashSlice(i)
		return
	}
	c.copyNext(i)
}

// copied ends a copy with its last layer, the head; the writes that waited for it go
// on.
func (c *Core) copied(i int) {
	if j := &c.jobs[i]; !j.layer.IsZero() {
		j.since = j.layer
		c.enterLayer(j, c.layerAfter(j.target, j.span, j.layer))
		if j.layer.IsZero() {
			c.peers[j.target].target.layered.add(j.chunk)
		}
		c.clearHashes(j)
		j.tried = 0
		c.pace(i)
		return
	}
	target, chunk := c.jobs[i].target, c.jobs[i].chunk
	if c.smallCopy(&c.jobs[i]) {
		c.throttle.stepped(c.now)
	}
	c.endJob(i)
	t := c.peers[target].target
	r, _ := chunkPlace(chunk)
	if t.todo.in(r) == 0 && t.missing.Has(r) && !c.copyingRegion(target, r) {
		t.compared.Add(r)
	}
	c.pump(target)
}

// abortCopy gives a copy up for now; the chunk stays missing.
func (c *Core) abortCopy(i int) {
	target, chunk := c.jobs[i].target, c.jobs[i].chunk
	c.endJob(i)
	if t := c.peers[target].target; t != nil {
		t.missChunk(chunk)
		c.pump(target)
	}
}

// copyBlocked: the source has no intact copy of the chunk. Another member may
// have; else it is tried again later, because a client may overwrite it.
func (c *Core) copyBlocked(i int) {
	j := &c.jobs[i]
	t := c.peers[j.target].target
	c.guarded(GuardBadSource)
	if c.iss.count() > 1 && j.layer.IsZero() {
		c.suspect(j.span)
	}
	t.blockedUntil = c.now + block.Instant(c.cfg.Timing.ConnectRetry)
	c.noteBytes(NoticeDiffer, j.source, j.layer, j.span, block.ErrChecksum)
	c.abortCopy(i)
}
