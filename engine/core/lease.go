package core

import (
	"github.com/holdfast-io/holdfast/internal/block"
)

// leased reports whether a read may be sent now.
//
// Rule 7 (leases): every replica of need() answered, at this epoch, a ping that was
// sent less than a lease ago. A lone member with no proposal open needs none: nobody
// can be dropped or added behind this engine's back without a commit on its epoch
// that the member sees. The other half is waitedOutAt: who drops a member, or finds
// the mark of one that was dropped, waits until no such lease can be left.
func (c *Core) leased() bool {
	need := c.need()
	if need.count() == 1 && !c.proposal.open {
		return true
	}
	for i := range need.all() {
		if !c.leasedBy(i) {
			return false
		}
	}
	return true
}

// leasedBy reports whether one replica has its part in the lease.
func (c *Core) leasedBy(i int) bool {
	p := &c.peers[i]
	return p.leased && c.now < p.leaseFrom+block.Instant(c.cfg.Timing.Lease)
}

// ping asks a replica for a sign of life; one at a time.
func (c *Core) ping(i int) {
	p := &c.peers[i]
	if p.link != linkOpen || p.pinging {
		return
	}
	p.pinging = true
	p.pingAt = c.now
	c.call(i, forPing, 0, 0, block.Request{Op: block.OpPing})
}

func (c *Core) pong(i int, e *call) {
	p := &c.peers[i]
	p.pinging = false
	if !p.leased || e.sentAt > p.leaseFrom {
		p.leased, p.leaseFrom = true, e.sentAt
	}
	if c.settled() {
		c.wakeReads()
	}
}

// renewLease pings those whose answer a waiting read needs. The others are not
// asked: while one of them cannot answer, they would be asked without end.
func (c *Core) renewLease() {
	for i := range c.need().all() {
		if !c.leasedBy(i) {
			c.ping(i)
		}
	}
}

// pingsWanted reports whether the regular pings must go on: while a lease or the
// liveness of somebody matters.
func (c *Core) pingsWanted() bool {
	if c.need().count() > 1 || c.proposal.open {
		return true
	}
	for i := range c.peers {
		p := &c.peers[i]
		if p.link == linkOpening || p.target != nil || p.calls.active > 0 {
			return true
		}
	}
	return false
}

// tickPings sends the regular pings, unless nobody wants them, or the volume is idle and
// those of an idle volume are not due.
func (c *Core) tickPings() {
	interval := block.Instant(c.cfg.Timing.PingInterval)
	paused := c.now-c.nextPing >= interval
	// Moved on even if no ping is wanted: else it would not be due any more when one is.
	c.nextPing = c.now + interval
	if !c.pingsWanted() {
		return
	}
	if due := c.beatAt + block.Instant(c.cfg.Timing.IdlePing); c.now < due && c.unused() {
		c.nextPing = due
		return
	}
	c.beat(paused)
}

// unused reports that nobody has been asked anything but pings since the regular ones were
// sent, and that all is answered: then nothing waits for a replica that vanishes, and a
// read asks for its lease itself. Many idle volumes would keep a machine busy with pings.
func (c *Core) unused() bool {
	if c.askedAt >= c.beatAt || c.proposal.open {
		return false
	}
	for i := range c.peers {
		if p := &c.peers[i]; p.link == linkOpening || p.target != nil || p.calls.active > 0 {
			return false
		}
	}
	return true
}

// hastenPing ends the long interval of an idle volume: who is asked now is given up as
// soon as on a busy one.
func (c *Core) hastenPing() {
	c.nextPing = min(c.nextPing, c.now+block.Instant(c.cfg.Timing.PingInterval))
}

// beat sends the regular pings and gives up those who have been silent for too
// long. After a pause of the engine's own (a frozen process, a starved machine)
// answers may be waiting to be taken in, so that nobody is given up at once.
func (c *Core) beat(paused bool) {
	c.beatAt = c.now
	for i := range c.peers {
		p := &c.peers[i]
		if p.link == linkDown {
			continue
		}
		if !paused && c.silent(p) {
			c.fail(i, block.ErrUnavailable)
			continue
		}
		c.ping(i)
	}
}

// silent reports whether a replica has left anything unanswered past the
// deadline.
func (c *Core) silent(p *peer) bool {
	limit := c.now - block.Instant(c.cfg.Timing.ReplicaDeadline)
	pingLimit := c.now - block.Instant(c.cfg.Timing.PingDeadline)
	if p.link == linkOpening {
		return p.openAt <= limit
	}
	for at := p.calls.head; at != 0; at = p.calls.slots[at-1].next {
		e := &p.calls.slots[at-1]
		if e.sent && (e.sentAt <= limit || e.purpose == forPing && e.sentAt <= pingLimit) {
			return true
		}
	}
	return false
}
