package core

import "github.com/holdfast-io/holdfast/internal/block"

// detachState is how far a clean detach is.
type detachState struct {
	// clearing: the last flush and the clearing of the logs were asked for;
	// cleared: they are done.
	clearing, cleared bool
}

// beginDetach stops the admission of requests and drains.
func (c *Core) beginDetach() {
	switch c.phase {
	case attaching:
		c.stop(nil)
	case serving:
		c.phase = draining
		c.kick = true
	}
}

// driveDetach takes the next step of a clean detach: drain, flush, clear the
// logs, clear the mark of rule 7, end. Divergent regions stay in the logs.
func (c *Core) driveDetach() {
	if c.phase != draining || c.proposal.open {
		return
	}
	c.dropTargets()
	if !c.idle() || !c.settled() || c.meta.viewOwed || c.failedMembers() != 0 {
		return
	}
	if !c.detach.clearing {
		c.detach.clearing, c.detach.cleared = true, false
		c.clearLogAfterFlush(true)
		return
	}
	if !c.detach.cleared || c.meta.active || c.flush.active || !c.mayPropose() {
		return
	}
	if c.view.NotWaitedOut {
		c.propose(block.Proposal{WaitedOut: true})
		return
	}
	c.stop(nil)
}

// dropTargets ends the resyncs; they go on at the next attach.
func (c *Core) dropTargets() {
	c.stopCounting()
	for i := range c.absent().all() {
		p := &c.peers[i]
		if p.link == linkDown {
			continue
		}
		c.endTarget(i)
		c.disconnect(p)
		c.cancelCalls(i)
	}
}

// idle reports whether nothing of a client or of a job is left.
func (c *Core) idle() bool {
	return len(c.freeRequests) == len(c.requests) && len(c.freeWrites) == len(c.writes) && c.jobCount() == 0
}
