package core

import (
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/invariant"
)

// growState is how far a growth is, in sizes of the volume in bytes.
type growState struct {
	// wanted is the intent; 0 if there is none.
	wanted int64
	// begun is what replicas were asked to grow to.
	begun int64
	// told is the committed size that EffectResized has told of last.
	told int64
}

// askGrow is EventGrow.
func (c *Core) askGrow(size int64) {
	switch {
	case size <= c.grow.told:
		c.emit(Effect{Kind: EffectResized, Size: c.grow.told})
	case size > block.MaxVolumeSize || size%block.SectorSize != 0:
		// Raft has no such intent.
	default:
		c.grow.wanted = max(c.grow.wanted, size)
		c.kick = true
	}
}

// sizeToHave is what a replica must have to be sent writes or to be admitted.
func (c *Core) sizeToHave() int64 { return max(c.view.Size, c.grow.begun) }

// driveGrow has everybody grow who may be sent a write past the present end.
//
// Rule 27 (size): Raft has the intent (EventGrow); every member, and every target
// that gets writes, has the new size durably before it is proposed (proposeGrow), and
// reads zeros there; only the committed size is told (EffectResized). Targets that
// come later are grown before they get a write (prepare). An intent is never undone:
// the next engine is given it again.
func (c *Core) driveGrow() {
	g := &c.grow
	if g.wanted <= c.view.Size {
		g.wanted = 0
		return
	}
	if !c.mayGrow() || c.meta.active {
		return
	}
	c.kick = c.kick || g.begun < g.wanted
	g.begun = g.wanted
	if small := c.smaller(); small != 0 {
		c.sendMeta(metaState{kind: metaGrow, to: small, size: g.wanted}, &block.Update{Grow: g.wanted})
	}
}

// growing reports that the volume is about to have another size, or that some replica
// has it already, for an engine that has ended: a cut of that would have another size
// than elsewhere. Raft has the intent, and whoever finishes it asks for it again.
func (c *Core) growing() bool {
	if c.grow.wanted > c.view.Size {
		return true
	}
	for i := range c.peers {
		if p := &c.peers[i]; p.size > c.view.Size && (c.iss.has(i) || p.target != nil && p.target.active) {
			return true
		}
	}
	return false
}

// mayGrow: not while a cut is under way, whose size would be in doubt.
func (c *Core) mayGrow() bool {
	return c.phase == serving && c.settled() && !c.proposal.open && c.healthy() == c.iss && c.cut.stage <= cutWanted
}

// smaller are those who must grow first.
func (c *Core) smaller() set {
	var s set
	for i := range c.peers {
		p := &c.peers[i]
		t := p.target
		if p.size < c.grow.wanted && (c.iss.has(i) || t != nil && t.active) {
			s |= bit(i)
		}
	}
	return s
}

// sizes are the least and the greatest one of a member. They differ from that of the
// view after an engine that did not see a growth through, or when nobody has it.
func (c *Core) sizes() (least, most int64) {
	least = block.MaxVolumeSize
	for i := range c.iss.all() {
		least, most = min(least, c.peers[i].size), max(most, c.peers[i].size)
	}
	return least, most
}

// proposeGrow proposes the size that everybody has.
func (c *Core) proposeGrow() bool {
	g := &c.grow
	if g.wanted <= c.view.Size || g.begun != g.wanted || !c.mayGrow() || c.meta.active || c.smaller() != 0 {
		return false
	}
	for i := range c.iss.all() {
		invariant.Assert(c.peers[i].size >= g.wanted, "size is proposed before member %s has it", c.peers[i].id)
	}
	c.propose(block.Proposal{Size: g.wanted})
	return true
}

// tellSize tells of a committed size that all members have stored.
func (c *Core) tellSize() {
	if c.view.Size > c.grow.told {
		c.grow.told = c.view.Size
		c.emit(Effect{Kind: EffectResized, Size: c.view.Size})
	}
}
