package core

import (
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/invariant"
)

// driveMembers notices when the last healthy member goes and when one is back.
// While there is none, nothing is removed: whoever comes back first without a
// loss leads on, and the others get a moment to come back too (rule 19).
func (c *Core) driveMembers() {
	if c.phase == attaching {
		return
	}
	switch {
	case c.nobodyLeft() && !c.dark:
		c.guarded(GuardDark)
		c.dark, c.darkSince = true, c.now
	case c.healthy() == c.iss:
		c.dark = false
	}
}

// nobodyLeft reports that no member is well.
//
// Rule 19 (the last member): then nobody is removed. I/O waits for a member that
// comes back with its memory, and ends only with the attachment: by rule 17, or by
// force (EventAbort). Raft refuses to remove the last member, too.
func (c *Core) nobodyLeft() bool { return c.healthy() == 0 }

// failedMembers must leave the in-sync set.
func (c *Core) failedMembers() set {
	var s set
	for i := range c.iss.all() {
		p := &c.peers[i]
		poorer := p.partial && c.healthy()&^bit(i) != 0 && !c.healthy().has(i)
		if p.failed != nil || p.lostMemory || p.link == linkOpen && (p.rolledBack() || poorer) {
			s |= bit(i)
		}
	}
	return s
}

// proposeRemoval removes failed members, if anybody is left (rule 19).
func (c *Core) proposeRemoval() bool {
	failed := c.failedMembers()
	if failed == 0 {
		return false
	}
	// Until it is proposed, a joining member may stop counting (rule 6).
	c.stopCounting()
	if c.nobodyLeft() {
		return c.proposeEndAttachment()
	}
	if c.dark && failed&^c.reopened() != 0 && c.now < c.darkUntil() {
		return false
	}
	c.noteRolledBack(failed)
	invariant.Assert(failed&c.healthy() == 0, "a member is healthy and failed")
	c.propose(block.Proposal{Remove: c.ids(failed), Incarnations: c.changedIncarnations(c.iss &^ failed)})
	return true
}

// reopened are the members that are open again but cannot stay.
func (c *Core) reopened() set {
	return c.openMembers() &^ c.healthy()
}

// darkUntil is how long members are waited for after all were lost at once.
func (c *Core) darkUntil() block.Instant {
	return c.darkSince + block.Instant(c.cfg.Timing.AttachWait)
}

// proposeEndAttachment ends the attachment when all members that can be reached
// lost their memory (rule 17).
func (c *Core) proposeEndAttachment() bool {
	open := c.openMembers()
	var lost set
	for i := range open.all() {
		if c.peers[i].lostMemory || c.peers[i].rolledBack() {
			lost |= bit(i)
		}
	}
	if lost == 0 || open != lost || open != c.iss && c.now < c.darkUntil() {
		return false
	}
	c.endAttachment(open)
	return true
}

// memberRemoved: a commit took the replica out of the in-sync set. The survivors
// must hold its dirty set before anything is released (rule 16).
func (c *Core) memberRemoved(i int) {
	p := &c.peers[i]
	err := p.failed
	if err == nil {
		err = block.ErrUnavailable
		if p.id == c.retire.old {
			err = errRetired
		}
	}
	p.failed, p.lostMemory, p.readOnly = nil, false, false
	p.leased = false
	p.dirtyHeld = false
	p.want = nil
	c.beginChanges(i)
	if !p.gone {
		// Its new set must not go with the one that its admission left to drop.
		c.meta.dirtyOwed |= bit(i)
		c.meta.dropOwed &^= bit(i)
	}
	c.disconnect(p)
	c.cancelCalls(i)
	p.retryAt = c.now + block.Instant(c.cfg.Timing.ConnectRetry)
	c.forgetLog(i)
	c.judgeSuspects()
	c.emit(Effect{Kind: EffectNotice, Notice: Notice{Kind: NoticeMemberLost, Replica: p.id, Err: err}})
}

// memberAdmitted: a commit made the target a member.
func (c *Core) memberAdmitted(i int) {
	p := &c.peers[i]
	t := p.target
	invariant.Assert(t != nil && t.took && t.missing.Empty(), "replica %s is in sync without having everything", p.id)
	p.target = nil
	p.dirty, p.dirtyHeld, p.want, p.needAll, p.heldDirty = nil, false, nil, false, nil
	p.changed = changes{}
	invariant.Assert(!c.lacksCut(p), "replica %s is in sync without every snapshot", p.id)
	c.meta.strays = true
	c.meta.dropOwed |= bit(i)
	c.meta.dirtyOwed &^= bit(i)
	for r := range p.log.All() {
		if _, ok := c.log.regions[r]; !ok {
			c.log.regions[r] = regionState{ended: c.serial, endedAt: c.now}
		}
	}
	c.scheduleLog()
	c.judgeSuspects()
	c.pump(i)
	c.emit(Effect{Kind: EffectNotice, Notice: Notice{Kind: NoticeAdmitted, Replica: p.id, Copied: t.copied}})
}
