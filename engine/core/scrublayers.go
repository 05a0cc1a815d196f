package core

import (
	"github.com/holdfast-io/holdfast/internal/block"
)

// A scrub verifies a part of the volume in all its layers before it goes on to the next
// part: the oldest snapshot whole, then the younger ones and the head without what a
// replica holds but once for them and the one before. So each block of a disk is read
// once, and a snapshot that has nothing of its own in the part costs nothing. A
// snapshot that is taken meanwhile has, before the cursor, what the head had.

// enterPart begins the part at the cursor, unless it was begun: a chunk or, while
// clients are at work, an extent. A part whose layer was deleted is begun anew.
func (c *Core) enterPart(chunk int64) {
	s := &c.scrub
	long := c.small() && s.end-s.at > block.ExtentSize
	if s.end > s.at && !long && c.isLayer(s.layer) && c.isLayer(s.since) {
		return
	}
	s.end = min(c.chunkSpan(chunk).End(), c.scrubEnd())
	if c.small() {
		s.end = min(s.end, s.at+block.ExtentSize)
	}
	s.since = block.SnapshotID{}
	s.layer = c.layerBehind(block.SnapshotID{})
}

// isLayer reports whether an ID is that of a snapshot, or zero, for the head.
func (c *Core) isLayer(id block.SnapshotID) bool { return id.IsZero() || c.view.Snapshot(id) != nil }

// partEnd is where the part ends in a layer, which may be smaller than the volume.
func (c *Core) partEnd(layer block.SnapshotID) int64 {
	end := min(c.scrub.end, c.scrubEnd())
	if v := c.view.Snapshot(layer); v != nil {
		end = min(end, v.Size)
	}
	return end
}

// layerBehind is the oldest snapshot behind another one, or of all for zero, that
// reaches into the part; zero for the head.
func (c *Core) layerBehind(id block.SnapshotID) block.SnapshotID {
	found := id.IsZero()
	for k := range c.view.Snapshots {
		v := &c.view.Snapshots[k]
		if found && v.Size > c.scrub.at {
			return v.ID
		}
		found = found || v.ID == id
	}
	return block.SnapshotID{}
}

// layerPlace is the place of a layer in the order of their age, -1 if it is none.
func (c *Core) layerPlace(id block.SnapshotID) int {
	for k := range c.view.Snapshots {
		if c.view.Snapshots[k].ID == id {
			return k
		}
	}
	if id.IsZero() {
		return len(c.view.Snapshots)
	}
	return -1
}

// noteNext takes in which layer a member says to have something of its own next. One
// that took its cuts in another order than the others, or names one that is none (given
// up, or deleted just now), does not know.
func (c *Core) noteNext(k int, j *job, next block.SnapshotID) {
	if j.scrub.walk == 0 || j.ticket != 0 || j.layer.IsZero() {
		return
	}
	if c.layerPlace(next) <= c.layerPlace(j.layer) || !c.inOrder(&c.peers[k]) {
		next = c.layerBehind(j.layer)
	}
	if c.layerPlace(next) < c.layerPlace(j.scrub.next) {
		j.scrub.next = next
	}
}

// inOrder reports whether a replica took the snapshots that it holds in the order of
// the view.
func (c *Core) inOrder(p *peer) bool {
	last := -1
	for k := range p.cuts {
		if at := c.layerPlace(p.cuts[k].Snapshot); at >= 0 {
			if at < last {
				return false
			}
			last = at
		}
	}
	return true
}

// putOffScrub ends a step, to be tried again.
func (c *Core) putOffScrub(i int) {
	c.scrub.next = max(c.scrub.next, c.now+block.Instant(scrubRetry))
	c.endJob(i)
}

// mendLayer gives a run of a layer to those whose disks have lost it. It takes over one
// reference of buf. Their stores take only what they have had. The range is held, as
// for every repair.
func (c *Core) mendLayer(i int, buf *block.Buffer) {
	j := &c.jobs[i]
	j.mending = j.run.damaged
	for k := range j.mending.all() {
		c.call(k, forJob, i, j.stamp, block.Request{
			Op: block.OpWrite, Flags: block.FlagResync | block.FlagRepair,
			Offset: j.run.span.Offset, Length: j.run.span.Length, Buf: buf, Snapshot: j.layer,
		})
	}
	buf.Release()
}

// layerMended: a replica has its layer back, or has refused what it was given: other
// bytes than it had, for all that it knows.
func (c *Core) layerMended(k, i int, err error) {
	j := &c.jobs[i]
	j.mending &^= bit(k)
	if err != nil {
		j.run.damaged &^= bit(k)
		j.run.wrong &^= bit(k)
		j.scrub.compared &^= bit(k)
		c.noteBytes(NoticeDiffer, k, j.layer, j.run.span, nil)
	}
	if j.mending == 0 {
		c.jobWritten(i)
	}
}
