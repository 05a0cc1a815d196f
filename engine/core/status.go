package core

import (
	"errors"
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
)

// The reasons for which I/O waits.
var (
	errNoMember  = fmt.Errorf("no in-sync replica can be reached: %w", block.ErrUnavailable)
	errTooFew    = fmt.Errorf("too few replicas are in sync: %w", block.ErrUnavailable)
	errRemoval   = fmt.Errorf("a failed replica is being removed: %w", block.ErrUnavailable)
	errReadOnly  = fmt.Errorf("the last in-sync replica takes no writes: %w", block.ErrDiskFailed)
	errNoRoom    = fmt.Errorf("its disk has no room for what it lacks: %w", block.ErrNoSpace)
	errFullDisks = fmt.Errorf("writes wait for space: %w", block.ErrNoSpace)
)

// frozenBy is what I/O waits for, or nil while it flows.
func (c *Core) frozenBy() error {
	switch {
	case c.phase == attaching && c.openMembers() == 0 && c.now >= c.attachUntil():
		return errNoMember
	case c.phase != serving && c.phase != draining:
		return nil
	case c.healthy() == 0:
		return errNoMember
	case c.iss.count() == 1 && c.peers[c.iss.first()].readOnly:
		return errReadOnly
	case c.failedMembers() != 0 || c.proposal.leaving&^c.healthy() != 0:
		return errRemoval
	case !c.enough():
		return errTooFew
	case c.starved > 0:
		return errFullDisks
	default:
		return nil
	}
}

// noteFrozen reports when I/O stops and when it goes on.
func (c *Core) noteFrozen() {
	reason := c.frozenBy()
	if errors.Is(reason, c.frozen) && errors.Is(c.frozen, reason) {
		return
	}
	c.frozen = reason
	kind := NoticeFrozen
	if reason == nil {
		kind = NoticeThawed
	}
	c.emit(Effect{Kind: EffectNotice, Notice: Notice{Kind: kind, Err: reason}})
}

// Status is a snapshot for people.
func (c *Core) Status() Status {
	s := Status{
		View:       c.view.Clone(),
		Serving:    c.phase == serving || c.phase == draining,
		Frozen:     c.frozen,
		InFlight:   len(c.requests) - len(c.freeRequests),
		Divergent:  int64(c.divide.count) * block.ChunkSize,
		LogRegions: len(c.log.regions),
		Scrub:      c.scrubStatus(),
		Guards:     c.guards,
		Usage:      c.usage(),
	}
	for i := range c.peers {
		t := c.peers[i].target
		if t == nil {
			continue
		}
		s.Targets = append(s.Targets, TargetStatus{
			Replica: c.peers[i].id, Remaining: t.remaining(), Copied: t.copied, Counts: t.counts, Waits: c.waitsOf(t),
		})
	}
	return s
}

// usage counts what the core holds.
func (c *Core) usage() Usage {
	u := Usage{
		Requests: len(c.requests) - len(c.freeRequests),
		Writes:   len(c.writes) - len(c.freeWrites),
		Jobs:     c.jobCount(),
		Locks:    len(c.locks.entries),
		Suspects: len(c.suspects),
	}
	for i := range c.peers {
		p := &c.peers[i]
		u.Calls = max(u.Calls, p.calls.active)
		u.CallSlots = max(u.CallSlots, len(p.calls.slots))
		if p.target != nil {
			u.Queued = max(u.Queued, p.calls.writes)
		}
	}
	return u
}

// waitsOf is what holds up a target that has something left to be done. A full disk is
// asked again every NoSpaceRetry.
func (c *Core) waitsOf(t *target) error {
	const turns = 5
	if t.starvedAt == 0 || t.todo.count == 0 && t.full.count == 0 || c.now-t.starvedAt > block.Instant(turns*c.cfg.Timing.NoSpaceRetry) {
		return nil
	}
	return errNoRoom
}

// remaining is what is still to be compared, in bytes.
func (t *target) remaining() int64 { return int64(t.todo.count) * block.ChunkSize }
