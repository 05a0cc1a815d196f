package core

import (
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/invariant"
)

// logState is what the core knows of the regions in the members' intent logs.
type logState struct {
	// regions has an entry for every region in the log of a member. It is looked
	// up, and walked only through the ordered bits of unionLogs.
	regions map[block.Region]regionState
	// next is when the logs are looked at again.
	next block.Instant
	// clearing are the regions that members are taking out of their logs; no
	// write enters one meanwhile, else it would slip into a region that has just
	// left the log (rule 14).
	clearing block.Regions
	// due: regions are to be cleared, all that can be or only idle ones, once a
	// flush that begins after serial after is finished.
	// marked: what absent replicas may lack of them is being recorded.
	due, all, marked bool
	after            uint64
}

// regionState is the recent history of a logged region.
type regionState struct {
	// busy counts the writes under way.
	busy int32
	// ended is the serial at which the last write ended, endedAt its instant.
	ended   uint64
	endedAt block.Instant
}

// unionLogs are all regions in the intent log of any member.
func (c *Core) unionLogs() block.Regions {
	var u block.Regions
	for i := range c.iss.all() {
		u.Union(c.peers[i].log)
	}
	return u
}

// regionsOf yields the regions that a span touches.
func regionsOf(span block.Span) func(yield func(block.Region) bool) {
	return func(yield func(block.Region) bool) {
		for r := block.RegionOf(span.Offset); r <= block.RegionOf(span.End()-1); r++ {
			if !yield(r) {
				return
			}
		}
	}
}

// enterLog notes that a write is about to be sent to the given replicas, who
// log its regions first (rule 14).
func (c *Core) enterLog(span block.Span) {
	for r := range regionsOf(span) {
		s := c.log.regions[r]
		s.busy++
		c.log.regions[r] = s
	}
}

// leaveLog notes the end of a write.
func (c *Core) leaveLog(span block.Span) {
	for r := range regionsOf(span) {
		s, ok := c.log.regions[r]
		invariant.Assert(ok && s.busy > 0, "write ended in region %d, which has none", r)
		s.busy--
		s.ended, s.endedAt = c.serial, c.now
		c.log.regions[r] = s
	}
	if c.log.next == never {
		c.scheduleLog()
	}
	if !c.log.due && len(c.log.regions) > c.cfg.Limits.LogRegions {
		c.log.next = min(c.log.next, c.now+block.Instant(c.cfg.Timing.PingInterval))
	}
}

// clearingAny reports whether a span touches a region that is leaving the logs.
func (c *Core) clearingAny(span block.Span) bool {
	if len(c.log.clearing) == 0 {
		return false
	}
	for r := range regionsOf(span) {
		if c.log.clearing.Has(r) {
			return true
		}
	}
	return false
}

// scheduleLog plans the next look at the logs.
func (c *Core) scheduleLog() {
	if len(c.log.regions) == 0 {
		c.log.next = never
		return
	}
	// So a region is in them for little longer than it takes to be idle.
	wait := c.cfg.Timing.LogIdle / 4
	if len(c.log.regions) > c.cfg.Limits.LogRegions {
		wait = min(wait, 2*c.cfg.Timing.PingInterval)
	}
	c.log.next = c.now + block.Instant(wait)
}

// inspectLog asks for a flush if there are regions that should leave the logs:
// those idle for long, or past the limit all that are not being written.
func (c *Core) inspectLog() {
	c.scheduleLog()
	if c.phase != serving || c.log.due || c.meta.active && c.meta.kind == metaClearLog {
		return
	}
	crowded := len(c.log.regions) > c.cfg.Limits.LogRegions
	if !c.clearable(crowded, c.serial+1).Empty() {
		c.clearLogAfterFlush(crowded)
	}
}

// clearLogAfterFlush begins a clearing of the logs.
func (c *Core) clearLogAfterFlush(all bool) {
	c.log.due, c.log.all, c.log.marked = true, all, false
	c.log.after = c.serial
	c.flush.wanted = true
	c.kick = true
}

// driveLog records what absent replicas may lack of the regions that are about
// to leave the logs.
func (c *Core) driveLog() {
	if !c.log.due || c.log.marked || c.flush.clean <= c.log.after || !c.settled() {
		return
	}
	regions := c.clearable(c.log.all, c.flush.clean)
	for i := range c.absent().all() {
		lacked := c.lacks(i, regions)
		if !lacked.Empty() {
			c.guarded(GuardLackedLog)
		}
		c.wantDirty(i, lacked)
	}
	c.log.marked, c.kick = true, true
}

// clearable are the regions that could leave the logs, as far as the members are
// concerned: not divergent, and everything in them completed before
// a flush that began at serial clean and was finished by all.
func (c *Core) clearable(all bool, clean uint64) block.Regions {
	var s block.Regions
	idle := c.now - block.Instant(c.cfg.Timing.LogIdle)
	for r := range c.unionLogs().All() {
		e := c.log.regions[r]
		switch {
		case e.busy != 0 || e.ended >= clean || !all && e.endedAt > idle:
		case c.divide.region(r) || c.unsure.region(r):
			c.guarded(GuardDivergentLog)
		default:
			s.Add(r)
		}
	}
	return s
}

// lacks are those regions of which an absent replica may lack something that is
// not durably in its dirty set.
func (c *Core) lacks(i int, regions block.Regions) block.Regions {
	p := &c.peers[i]
	missing := regions.Clone()
	missing.Subtract(p.dirty)
	t := p.target
	if t == nil || !t.active {
		return missing
	}
	for r := range missing.Clone().All() {
		if !t.missing.Has(r) && t.clean > c.log.regions[r].ended {
			missing.Remove(r)
		}
	}
	return missing
}

// mayClear are the regions that may leave the logs.
//
// Rule 15 (clearing): those that are settled among the members (clearable), and of
// which no absent replica lacks anything but what its durable dirty set names
// (lacks). A member that is away keeps its log until it was verified.
func (c *Core) mayClear() block.Regions {
	regions := c.clearable(c.log.all, c.flush.clean)
	for i := range c.absent().all() {
		regions.Subtract(c.lacks(i, regions))
	}
	return regions
}

// clearLog takes regions out of the members' intent logs.
func (c *Core) clearLog() {
	if !c.log.due || !c.log.marked {
		return
	}
	c.log.due = false
	regions := c.mayClear()
	c.detach.cleared = true
	members := c.healthy()
	if regions.Empty() || members == 0 {
		c.kick = true
		return
	}
	for r := range regions.All() {
		e := c.log.regions[r]
		invariant.Assert(e.busy == 0 && e.ended < c.flush.clean, "region %d leaves the log unflushed", r)
		invariant.Assert(!c.divide.region(r) && !c.unsure.region(r), "region %d leaves the log divergent", r)
	}
	c.log.clearing = regions
	c.sendMeta(metaState{kind: metaClearLog, to: members, regions: regions},
		&block.Update{ClearLog: regions.Clone()})
}

// logCleared forgets the regions that left the logs and lets writes in again.
func (c *Core) logCleared() {
	left := c.unionLogs()
	for r := range c.log.clearing.All() {
		if !left.Has(r) {
			delete(c.log.regions, r)
		}
	}
	c.log.clearing = nil
	c.scheduleLog()
}

// forgetLog forgets the regions that were in the log of a former member alone: the
// others had cleared theirs while it was away.
func (c *Core) forgetLog(i int) {
	left := c.unionLogs()
	for r := range c.peers[i].log.All() {
		if !left.Has(r) && c.log.regions[r].busy == 0 {
			delete(c.log.regions, r)
		}
	}
}
