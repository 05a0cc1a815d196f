package core

import (
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
)

// endingState is the way from the end of the attachment to that of the core.
type endingState struct {
	until block.Instant
	err   error
}

// attachmentOver: Raft shows that the attachment has ended. If the one member that
// stays had its disk put back (rule 10), it finishes a flush of this epoch before the
// core ends. Others may know it to have confirmed flushes that its disk has lost; the
// end of the attachment was the answer to that, and without a later flush each engine
// to come would give it again.
func (c *Core) attachmentOver(v *block.View) {
	if c.phase == ending {
		return
	}
	err := fmt.Errorf("volume %s: attachment %s: %w", v.Volume, c.cfg.View.Attachment, block.ErrDetached)
	kept := c.iss
	for i := range c.iss.all() {
		if m := v.Member(c.peers[i].id); m == nil || !m.InSync {
			kept &^= bit(i)
		}
	}
	if kept.count() != 1 {
		c.stop(err)
		return
	}
	i := kept.first()
	if p := &c.peers[i]; p.link != linkOpen || !p.rolledBack() {
		c.stop(err)
		return
	}
	c.guarded(GuardRolledBack)
	c.phase, c.iss = ending, kept
	c.ending = endingState{until: c.now + block.Instant(c.cfg.Timing.ReplicaDeadline), err: err}
	c.cancelCalls(i)
	number := block.FlushNumber{Epoch: c.view.Epoch, N: c.flush.number.N + 1}
	c.call(i, forFlush, 0, c.flush.count+1, block.Request{Op: block.OpFlush, Flush: number, Confirmed: c.confirmations()})
}

// driveEnding ends the core when the disk is past what it has lost, or does not
// answer: then the next engine does this again.
func (c *Core) driveEnding() {
	p := &c.peers[c.iss.first()]
	if p.link != linkOpen || !p.rolledBack() || c.now >= c.ending.until {
		c.stop(c.ending.err)
	}
}
