package core

import (
	"fmt"
	"math"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/invariant"
)

// phase is where a core stands in its life. It only moves forward.
type phase uint8

const (
	// attaching: members are opened, the view is settled; requests wait.
	attaching phase = iota
	serving
	// draining: a clean detach; what was admitted is finished, nothing is added.
	draining
	// ending: the attachment is over; a disk that was put back is brought past that.
	ending
	stopped
)

const never = block.Instant(math.MaxInt64)

// Core is the mirroring protocol of one attached volume, for one epoch.
type Core struct {
	cfg   Config
	now   block.Instant
	phase phase
	view  block.View
	peers []peer
	// iss is the in-sync set of view.
	iss set
	// stamp counts the changes of iss; a job that sees another one starts over.
	stamp uint64
	// serial is the core's logical clock: it ticks when a flush begins.
	serial uint64

	locks    lockTable
	grants   []lockOwner
	requests []request
	writes   []write
	jobs     []job
	// freeRequests and freeWrites are the unused slots.
	freeRequests, freeWrites []int32

	attach   attachState
	cut      cutState
	grow     growState
	retire   retireState
	proposal proposalState
	meta     metaState
	flush    flushState
	log      logState
	divide   divergence
	unsure   divergence
	// unsureUntil is when the chunks of unsure are looked at again.
	unsureUntil block.Instant
	suspects    []int64
	scrub       scrubState
	throttle    throttle
	detach      detachState
	ending      endingState

	// darkSince is when the last healthy member was lost; zero while there is
	// one.
	darkSince block.Instant
	dark      bool
	nextPing  block.Instant
	// beatAt is when the regular pings were sent last, askedAt when anything else was.
	beatAt, askedAt block.Instant
	// ticked is when the last tick ran; what was due then is done.
	ticked block.Instant
	// spaceRetry is when writes that found no space are tried again, or zero.
	spaceRetry block.Instant
	// starved counts the writes that found a disk full.
	starved int
	// mends counts the calls for mends, to tell them apart.
	mends uint64
	// counting is the target that counts for acknowledgements, or -1.
	counting int
	// kick asks for a run of drive, wake for another look at all that waits.
	kick, wake bool
	stopping   error
	mustStop   bool
	frozen     error

	effects []Effect
	taken   bool
	guards  [Guards]uint64
}

// New makes the core of one engine start. Its first effects are ready.
func New(cfg Config, now block.Instant) (*Core, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("start core: %w", err)
	}
	cfg.View = cfg.View.Clone()
	c := &Core{
		cfg:      cfg,
		now:      now,
		view:     cfg.View.Clone(),
		counting: -1,
		requests: make([]request, cfg.Limits.Requests),
		writes:   make([]write, cfg.Limits.Requests+cfg.Limits.Copies),
		jobs:     make([]job, cfg.Limits.Copies),
		nextPing: now + block.Instant(cfg.Timing.PingInterval),
		ticked:   now,
	}
	for i := len(c.requests) - 1; i >= 0; i-- {
		c.freeRequests = append(c.freeRequests, int32(i))
	}
	for i := len(c.writes) - 1; i >= 0; i-- {
		c.freeWrites = append(c.freeWrites, int32(i))
	}
	c.log.regions = make(map[block.Region]regionState)
	c.log.next = never
	c.throttle.gapMax = cfg.Timing.JobGap
	c.attach.since = now
	c.divide.source = -1
	c.grow.told = c.view.Size
	c.indexReplicas()
	c.kick = true
	c.drive()
	return c, nil
}

// indexReplicas brings peers and iss in line with the view. A peer keeps its
// position for the life of the core.
func (c *Core) indexReplicas() {
	c.iss = 0
	for i := range c.peers {
		gone := c.view.Member(c.peers[i].id) == nil
		if gone && !c.peers[i].gone {
			c.meta.dropOwed |= bit(i)
		}
		c.peers[i].gone = gone
	}
	for i := range c.view.Replicas {
		m := &c.view.Replicas[i]
		at := c.peerOf(m.ID)
		if at < 0 {
			at = len(c.peers)
			invariant.Assert(at < maxReplicas, "more than %d replicas in one epoch", maxReplicas)
			c.peers = append(c.peers, newPeer(m, at))
		}
		// Its disk may have moved.
		c.peers[at].node = m.Node
		if m.InSync {
			c.iss |= bit(at)
		}
	}
}

// peerOf finds the position of a replica, or -1.
func (c *Core) peerOf(id block.ReplicaID) int {
	for i := range c.peers {
		if c.peers[i].id == id {
			return i
		}
	}
	return -1
}

// member is what the view says of the peer at position i.
func (c *Core) member(i int) *block.Member {
	m := c.view.Member(c.peers[i].id)
	invariant.Assert(m != nil, "replica %s is not in the view", &c.peers[i].id)
	return m
}

// absent are the replicas of the view that are not in sync.
func (c *Core) absent() set {
	var s set
	for i := range c.peers {
		if !c.peers[i].gone && !c.iss.has(i) {
			s |= bit(i)
		}
	}
	return s
}

// Step takes one event in. The effects it causes are added to Effects.
func (c *Core) Step(ev Event) {
	if c.taken {
		clear(c.effects)
		c.effects = c.effects[:0]
		c.taken = false
	}
	if ev.Now > c.now {
		c.now = ev.Now
	}
	if c.phase == stopped {
		ev.Request.Buf.Release()
		ev.Reply.Buf.Release()
		return
	}
	switch ev.Kind {
	case EventRequest:
		c.arrive(&ev.Request)
	case EventReply:
		c.reply(&ev)
	case EventLost:
		c.lost(&ev)
	case EventOutcome:
		c.outcome(&ev)
	case EventView:
		c.seen(&ev.View)
	case EventDetach:
		c.beginDetach()
	case EventAbort:
		c.stop(block.ErrDetached)
	case EventCut:
		c.askCut(&ev.Snapshot)
	case EventGrow:
		c.askGrow(ev.Size)
	case EventScrub:
		c.beginScrub(ev.Scrub)
	case EventRetire:
		c.askRetire(ev.Replica, ev.Successor)
	}
	c.drive()
	if c.cfg.Timing.JobGap > 0 {
		c.throttle.atWork(c.now, c.jobsWork())
	}
}

// Effects takes the pending effects. The slice is reused at the next Step.
func (c *Core) Effects() []Effect {
	c.taken = true
	return c.effects
}

func (c *Core) emit(e Effect) { c.effects = append(c.effects, e) }

// drive carries on everything that has become possible, until nothing has.
func (c *Core) drive() {
	for round := 0; !c.mustStop && c.phase != ending; round++ {
		invariant.Assert(round < 10000, "the core does not come to rest")
		if len(c.grants) > 0 {
			c.runGrants()
			continue
		}
		if c.now >= c.timer() {
			c.tick()
			c.kick = true
		}
		if c.wake {
			c.wake = false
			c.wakeAll()
			continue
		}
		if !c.kick {
			break
		}
		c.kick = false
		c.driveLinks()
		c.driveMembers()
		c.driveProposals()
		c.driveMeta()
		c.driveCut()
		c.driveGrow()
		c.driveTargets()
		c.driveLog()
		c.driveFlush()
		c.driveJobs()
		c.driveDetach()
	}
	if c.phase == ending {
		c.driveEnding()
	}
	if c.mustStop {
		c.finish()
		return
	}
	c.noteFrozen()
}

// wakeAll looks again at everything that waits for a gate.
func (c *Core) wakeAll() {
	for i := range c.writes {
		if c.writes[i].used {
			c.pushWrite(i)
		}
	}
	c.checkFlush()
	for i := range c.requests {
		if c.requests[i].used {
			c.advance(i)
		}
	}
	for i := range c.jobs {
		if c.jobs[i].used {
			c.advanceJob(i)
		}
	}
}

func (c *Core) runGrants() {
	for len(c.grants) > 0 {
		owner := c.grants[0]
		c.grants = append(c.grants[:0], c.grants[1:]...)
		if owner >= 0 {
			c.requestGranted(int(owner))
		} else {
			c.jobGranted(int(-1 - owner))
		}
	}
}

// release gives a range lock back; those who wait for it run before Step ends. A
// chunk to be verified may have waited for it, too (startVerify).
func (c *Core) release(ticket uint64) {
	c.grants = c.locks.release(ticket, c.grants)
	c.kick = c.kick || c.unsure.count > 0 && c.iss.count() > 1
}

// settled reports that what acknowledgements rely on is stored on all members: the
// last view that says another thing of them than the one before, together with the
// dirty sets that belong to it. While it is not, no write is sent and nothing is
// answered (rule 3, rule 16).
func (c *Core) settled() bool {
	return (c.phase == serving || c.phase == draining) && !c.meta.gated && !c.mustStop
}

// enough reports whether the in-sync set is large enough to acknowledge writes
// (rule 9).
func (c *Core) enough() bool { return c.iss.count() >= c.cfg.MinInSync }

// need is the set whose every replica must take part in an acknowledgement, a
// flush or a lease.
//
// Rule 6 (joint membership): the members of the last known view, those that the
// proposal whose outcome is not known would remove (they are members until it is
// known), those that it would admit, and the target that counts. An outcome becomes
// known by a committed view alone (adopt), never by giving up.
func (c *Core) need() set {
	n := c.iss
	if c.proposal.open {
		n |= c.proposal.joining
	}
	if c.counting >= 0 {
		n |= bit(c.counting)
	}
	return n
}

// stop ends the core at the end of this step.
func (c *Core) stop(err error) {
	if c.mustStop {
		return
	}
	c.mustStop, c.stopping = true, err
}

// fenced ends the core because something newer has been here.
func (c *Core) fenced(format string, args ...any) {
	c.stop(fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), block.ErrStaleEpoch))
}

// finish completes every request, gives every buffer back and ends.
func (c *Core) finish() {
	c.phase = stopped
	err := c.stopping
	if err == nil {
		err = block.ErrDetached
	}
	for i := range c.requests {
		if c.requests[i].used {
			c.complete(i, err, nil)
		}
	}
	for i := range c.writes {
		if c.writes[i].used {
			c.writes[i].buf.Release()
			c.writes[i] = write{}
		}
	}
	for i := range c.jobs {
		c.jobs[i].buf.Release()
		c.jobs[i] = job{}
	}
	for i := range c.peers {
		p := &c.peers[i]
		p.calls.clear()
		c.disconnect(p)
		p.target = nil
	}
	c.locks = lockTable{}
	if c.cut.stage != noCut {
		c.emit(Effect{Kind: EffectCut, Snapshot: c.cut.snapshot.ID, Err: block.ErrDetached})
	}
	c.emit(Effect{Kind: EffectStopped, Err: c.stopping})
}
