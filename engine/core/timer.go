package core

import "github.com/holdfast-io/holdfast/internal/block"

// Deadline is the earliest instant at which an EventTick does something; the
// largest instant if none does.
func (c *Core) Deadline() block.Instant {
	if c.phase == stopped {
		return never
	}
	return c.timer()
}

// timer is the earliest instant after the last tick at which something is due.
func (c *Core) timer() block.Instant {
	if c.phase == ending {
		return c.ending.until
	}
	next := never
	at := func(t block.Instant) {
		if t > c.ticked && t < next {
			next = t
		}
	}
	if c.pingsWanted() {
		at(c.nextPing)
	}
	for i := range c.peers {
		if p := &c.peers[i]; p.link == linkDown && c.wanted(i) {
			at(p.retryAt)
		}
		if t := c.peers[i].target; t != nil {
			at(t.blockedUntil)
		}
		if p := &c.peers[i]; p.readOnly {
			at(p.refusedUntil)
		}
	}
	if c.proposal.waiting {
		at(c.proposal.retryAt)
	}
	at(c.proposal.notBefore)
	at(c.unsureUntil)
	at(c.log.next)
	if c.flush.waiters > 0 && !c.flush.active {
		at(c.flush.gatherUntil)
	}
	at(c.spaceRetry)
	at(c.throttle.wake)
	if c.cut.holds() {
		at(c.cut.until)
	}
	at(c.scrub.next)
	for i := range c.jobs {
		if j := &c.jobs[i]; j.used && j.state == jobPausing {
			at(j.resume)
		}
	}
	if c.dark {
		at(c.darkUntil())
	}
	if c.phase == attaching {
		at(c.attachUntil())
		at(c.graceUntil())
		if c.view.NotWaitedOut {
			at(c.waitedOutAt())
		}
	}
	return next
}

// tick does what is due.
func (c *Core) tick() {
	c.ticked = c.now
	if c.now >= c.nextPing {
		c.tickPings()
	}
	if c.spaceRetry != 0 && c.now >= c.spaceRetry {
		c.spaceRetry = 0
		c.retrySpace()
	}
	if c.now >= c.log.next {
		c.inspectLog()
	}
	for i := range c.peers {
		if p := &c.peers[i]; p.readOnly && c.now >= p.refusedUntil {
			c.pump(i)
		}
	}
}

// retrySpace asks full replicas again, and plans the next time.
func (c *Core) retrySpace() {
	for i := range c.writes {
		w := &c.writes[i]
		if w.used && w.running && w.full != 0 {
			c.pushWrite(i)
		}
		if w.used && w.full != 0 {
			c.planSpaceRetry(w.retryAt)
		}
	}
}

func (c *Core) planSpaceRetry(at block.Instant) {
	if c.spaceRetry == 0 || at < c.spaceRetry {
		c.spaceRetry = at
	}
}
