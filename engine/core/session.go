package core

import (
	"errors"
	"fmt"
	"slices"

	"github.com/holdfast-io/holdfast/internal/block"
)

type linkState uint8

const (
	linkDown linkState = iota
	// linkOpening: OpOpen is under way.
	linkOpening
	linkOpen
)

// peer is what the core knows of one replica.
type peer struct {
	id    block.ReplicaID
	node  block.NodeID
	index int
	// gone: no longer in the view.
	gone bool

	link    linkState
	session block.Session
	openSeq uint64
	openAt  block.Instant
	retryAt block.Instant
	calls   callTable

	// failed is why a member must leave the in-sync set, or be opened again if
	// it is the last.
	failed error
	// readOnly: the disk takes no more writes, and this is the last member
	// (rule 31).
	readOnly bool
	// refusedUntil is when it is asked again: a disk that is dead for good says so
	// again, and one that failed a single read for a write does not.
	refusedUntil block.Instant

	// Pings: leaseFrom is the sending time of the last one answered.
	pinging   bool
	pingAt    block.Instant
	leased    bool
	leaseFrom block.Instant
	// acknowledged is when it first acknowledged this epoch.
	acknowledged bool
	epochAt      block.Instant

	// What OpOpen told. stored is the flush number in its data file, confirmed
	// the highest that anybody knows it to have finished (rule 10), told the one that a
	// flush has told all who count of.
	known       bool
	incarnation block.Incarnation
	lostMemory  bool
	stored      block.FlushNumber
	confirmed   block.FlushNumber
	told        block.FlushNumber
	heldDirty   []block.DirtySet
	free        int64
	// acceptSuspect: it is the only member, and what was not flushed before it was
	// opened again is taken as found (rule 18).
	acceptSuspect bool

	// log is a superset of its intent log.
	log block.Regions
	// dirty is what every member durably holds as its dirty set; want is what
	// must be added to it.
	dirty     block.Regions
	dirtyHeld bool
	want      block.Regions
	// needAll: everything is dirty (new, or rolled back).
	needAll bool
	// whole: the view that it holds has it in the in-sync set, so that the head with which
	// it left, kept or not, is a whole one.
	whole bool
	// changed is what was written since it left the in-sync set.
	changed changes
	// cuts are those that it holds, or may hold, in the order in which it took them;
	// size is that of the replica in bytes.
	cuts []block.Cut
	size int64
	// partial: a member lacks a snapshot of the view, or the size of it.
	partial bool

	target *target
}

func newPeer(m *block.Member, index int) peer {
	return peer{id: m.ID, node: m.Node, index: index, incarnation: m.Incarnation}
}

// rolledBack reports that the replica's disk went back behind a flush that it
// had confirmed (rule 10).
func (p *peer) rolledBack() bool { return p.known && p.stored.Less(p.confirmed) }

// forgot reports that a member may have lost acknowledged writes.
//
// Rule 17 (lost memory): its store was opened in another incarnation than the view
// says, and its intent log was not empty. Such a member leaves; if there is no other,
// the attachment ends in the same commit (endAttachment).
func (p *peer) forgot(o *block.Opened) bool {
	return o.Incarnation != p.incarnation && !o.Log.Empty()
}

// lacks reports that a member has lost what it had acknowledged.
func (p *peer) lacks() bool { return p.lostMemory || p.rolledBack() }

// healthy are the members that are open and lost nothing. One that lacks a snapshot is
// among them only while nobody here has all: it leaves like one that was put back.
func (c *Core) healthy() set {
	var s, whole set
	for i := range c.iss.all() {
		p := &c.peers[i]
		if p.link != linkOpen || p.failed != nil || p.lacks() {
			continue
		}
		s |= bit(i)
		if !p.partial {
			whole |= bit(i)
		}
	}
	if whole != 0 {
		return whole
	}
	return s
}

// connect opens a new session to a replica (rule 4).
func (c *Core) connect(i int) {
	p := &c.peers[i]
	p.session++
	p.calls.count++
	p.openSeq = p.calls.count<<slotBits | (1<<slotBits - 1)
	p.link = linkOpening
	p.openAt = c.now
	c.hastenPing()
	p.pinging = false
	open := &block.Open{
		Cluster: c.cfg.Cluster,
		Volume:  c.view.Volume,
		Replica: p.id,
		Size:    c.view.Size,
		Fence: block.Fence{
			Incarnation: c.view.Cluster,
			Generation:  c.view.Generation,
			Epoch:       c.view.Epoch,
			Session:     p.session,
		},
	}
	c.emit(Effect{Kind: EffectConnect, Replica: p.id, Request: block.Request{
		Op: block.OpOpen, Epoch: c.view.Epoch, Session: p.session, Seq: p.openSeq, Open: open,
	}})
}

func (c *Core) disconnect(p *peer) {
	if p.link == linkDown {
		return
	}
	p.link = linkDown
	c.emit(Effect{Kind: EffectDisconnect, Replica: p.id, Request: block.Request{
		Epoch: c.view.Epoch, Session: p.session,
	}})
}

// driveLinks opens the links that are wanted and due.
func (c *Core) driveLinks() {
	for i := range c.peers {
		p := &c.peers[i]
		if p.link == linkDown && c.now >= p.retryAt && c.wanted(i) {
			c.connect(i)
		}
	}
}

// wanted reports whether the core wants a link to a replica.
func (c *Core) wanted(i int) bool {
	p := &c.peers[i]
	switch {
	case p.gone:
		return false
	case c.proposal.open && c.proposal.leaving.has(i):
		return false
	case c.iss.has(i):
		// A failed member is removed; it is opened again only if nobody else was
		// left.
		return c.phase == attaching || p.failed == nil || c.nobodyLeft() || c.dark && c.now < c.darkUntil()
	default:
		return c.phase == serving && c.settled() && !(c.proposal.open && c.proposal.joining.has(i))
	}
}

// lost is the end of a link.
func (c *Core) lost(ev *Event) {
	i := c.peerOf(ev.Replica)
	if i < 0 || c.peers[i].link == linkDown || c.peers[i].session != ev.Session {
		return
	}
	err := ev.Err
	if err == nil {
		err = block.ErrUnavailable
	}
	c.linkFailed(i, err)
}

// fail gives a link up because of what came, or did not come, over it.
func (c *Core) fail(i int, err error) {
	p := &c.peers[i]
	if p.link != linkDown {
		c.emit(Effect{Kind: EffectDisconnect, Replica: p.id, Request: block.Request{
			Epoch: c.view.Epoch, Session: p.session,
		}})
	}
	c.linkFailed(i, err)
}

// linkFailed draws the consequences of a link that has ended.
func (c *Core) linkFailed(i int, err error) {
	p := &c.peers[i]
	if p.link == linkOpen {
		if c.phase == attaching && c.now >= min(c.attachUntil(), c.graceUntil()) {
			// It was here a moment ago: it gets the time to come back.
			c.attach.since = c.now
		}
	}
	p.link = linkDown
	p.leased = false
	p.retryAt = c.now + block.Instant(c.cfg.Timing.ConnectRetry)
	c.kick, c.wake = true, true
	if c.need().has(i) && c.counting != i || c.proposal.open && c.proposal.joining.has(i) {
		c.memberFailed(i, err)
		return
	}
	if p.target != nil {
		c.endTarget(i)
	}
	c.cancelCalls(i)
}

// memberFailed keeps what the replica owes for the case that it must be opened
// again: while it is the last one, or while an outcome is open.
func (c *Core) memberFailed(i int, err error) {
	p := &c.peers[i]
	if p.failed == nil {
		p.failed = fmt.Errorf("replica %s: %w", p.id, err)
	}
	if c.phase == attaching {
		p.failed = nil
	}
	for at := p.calls.head; at != 0; {
		e := &p.calls.slots[at-1]
		next := e.next
		// A region must not leave the log of a store that may have been reopened: the
		// checksums of its latest overwrites may be gone (see trust).
		clearing := e.purpose == forMeta && c.meta.kind == metaClearLog
		if e.purpose == forPing || e.purpose == forRead || e.purpose == forJob || e.purpose == forMend || clearing {
			c.cancelled(i, p.calls.remove(at-1))
		}
		at = next
	}
	p.calls.unsend()
}

// late reports that a reply is not of the present session with peer i.
//
// Rule 29 (late replies): what comes from an older session or epoch, or for an older
// use of a call's slot (find), is dropped and never matched to what is asked now.
func (c *Core) late(i int, rep *block.Reply) bool {
	return i < 0 || c.peers[i].link == linkDown || c.peers[i].session != rep.Session || rep.Epoch != c.view.Epoch
}

// reply takes one reply in.
func (c *Core) reply(ev *Event) {
	rep := &ev.Reply
	i := c.peerOf(ev.Replica)
	if c.late(i, rep) {
		c.guarded(GuardLate)
		rep.Buf.Release()
		return
	}
	p := &c.peers[i]
	if errors.Is(rep.Err, block.ErrStaleEpoch) {
		rep.Buf.Release()
		c.fenced("replica %s", p.id)
		return
	}
	if p.link == linkOpening {
		rep.Buf.Release()
		if rep.Op == block.OpOpen && rep.Seq == p.openSeq {
			c.opened(i, rep)
		}
		return
	}
	at := p.calls.find(rep.Seq)
	if at < 0 || !p.calls.slots[at].sent {
		c.guarded(GuardLate)
		rep.Buf.Release()
		return
	}
	if rep.Op != p.calls.slots[at].req.Op {
		rep.Buf.Release()
		c.fail(i, block.ErrProtocol)
		return
	}
	switch rep.Op {
	case block.OpWrite, block.OpZero, block.OpPing:
		p.free = rep.Free
	}
	if c.unmerged(i, at, rep) || c.refused(i, at, rep) {
		rep.Buf.Release()
		return
	}
	if p.readOnly && changesDisk(rep.Op) {
		p.readOnly = false
		c.pump(i)
	}
	e := p.calls.remove(at)
	c.answered(i, &e, rep)
	if p.target != nil && p.calls.unsent > 0 {
		c.pump(i)
	}
}

// refused deals with the errors that speak of the replica rather than of the
// request, and reports whether it did.
func (c *Core) refused(i int, at int32, rep *block.Reply) bool {
	e := &c.peers[i].calls.slots[at]
	switch {
	case rep.Err == nil:
		return false
	case errors.Is(rep.Err, block.ErrNoSpace) && e.purpose == forWrite && c.waitsForSpace(i):
		return false
	case errors.Is(rep.Err, block.ErrChecksum) && rep.Op == block.OpRead:
		return false
	case errors.Is(rep.Err, block.ErrNotFound) && !(e.req.Snapshot.IsZero() && e.req.Since.IsZero()):
		// A layer that was deleted: the copy or the scrub decides.
		return false
	case e.req.Flags&block.FlagRepair != 0 && !errors.Is(rep.Err, block.ErrDiskFailed):
		// Its layer stays as it is.
		return false
	case errors.Is(rep.Err, block.ErrDiskFailed) && c.iss == bit(i) && readsOnly(e):
		// Nobody else has it: whoever wants the bytes decides.
		return false
	case errors.Is(rep.Err, block.ErrDiskFailed) && c.iss == bit(i) && rep.Op != block.OpRead:
		// The last member serves reads only; what it refused waits (rule 31).
		p := &c.peers[i]
		c.guarded(GuardReadOnly)
		p.readOnly, p.refusedUntil = true, c.now+block.Instant(c.cfg.Timing.NoSpaceRetry)
		e.sent = false
		p.calls.unsent++
		c.kick = true
		return true
	}
	if errors.Is(rep.Err, block.ErrNoSpace) && c.missesForSpace(i, at) {
		return true
	}
	if errors.Is(rep.Err, block.ErrNoSpace) {
		c.fail(i, rep.Err)
		c.peers[i].retryAt = c.now + block.Instant(c.cfg.Timing.NoSpaceRetry)
		return true
	}
	c.fail(i, rep.Err)
	return true
}

// changesDisk reports whether a disk that takes no writes refuses such a request.
func changesDisk(op block.Op) bool {
	return op == block.OpWrite || op == block.OpZero || op == block.OpFlush
}

// readsOnly reports whether a call only looks at bytes.
func readsOnly(e *call) bool {
	return e.req.Op == block.OpRead || e.req.Op == block.OpChanged || e.purpose == forJob && e.req.Op == block.OpHash
}

// waitsForSpace reports whether a full replica is asked again (rule 31). One
// that only counts may still refuse a write that has ended long ago, which
// nobody would send again.
func (c *Core) waitsForSpace(i int) bool {
	return c.iss.has(i) || c.proposal.open && c.proposal.joining.has(i)
}

// answered hands a reply to the one who waits for it.
func (c *Core) answered(i int, e *call, rep *block.Reply) {
	if e.purpose != forRead && e.purpose != forJob && e.purpose != forMend {
		rep.Buf.Release()
		rep.Buf = nil
	}
	switch e.purpose {
	case forPing:
		c.pong(i, e)
	case forRead:
		c.readReplied(i, e, rep)
	case forWrite:
		c.writeReplied(i, e, rep)
	case forFlush:
		c.flushReplied(i, e)
	case forMeta:
		c.metaReplied(i, e)
	case forJob:
		c.jobReplied(i, e, rep)
	case forMend:
		c.mendReplied(i, e, rep)
	}
}

// opened is the reply to OpOpen.
func (c *Core) opened(i int, rep *block.Reply) {
	p := &c.peers[i]
	if rep.Err != nil || rep.Opened == nil {
		err := rep.Err
		if err == nil {
			err = block.ErrProtocol
		}
		c.fail(i, err)
		return
	}
	o := rep.Opened
	if !c.wellFormed(o) {
		c.fail(i, block.ErrProtocol)
		return
	}
	if o.View.Epoch > c.view.Epoch || o.View.Epoch == c.view.Epoch && o.View.Revision > c.view.Revision {
		c.fenced("replica %s holds view (%d, %d) above (%d, %d)", p.id,
			o.View.Epoch, o.View.Revision, c.view.Epoch, c.view.Revision)
		return
	}
	p.link = linkOpen
	if !p.acknowledged {
		p.acknowledged, p.epochAt = true, c.now
	}
	p.leased, p.leaseFrom = true, p.openAt
	p.free = o.Free
	p.readOnly = false
	p.stored = o.Flush
	p.confirmed = laterFlush(p.confirmed, o.Flush)
	for _, f := range o.Confirmed {
		if k := c.peerOf(f.Replica); k >= 0 {
			c.peers[k].confirmed = laterFlush(c.peers[k].confirmed, f.Flush)
		}
	}
	if !c.iss.has(i) {
		p.log = o.Log.Clone()
	} else {
		if p.forgot(o) {
			c.guarded(GuardLostMemory)
			p.lostMemory = true
		}
		p.log.Union(o.Log)
	}
	p.known = true
	m := o.View.Member(p.id)
	p.whole = m != nil && m.InSync
	p.incarnation = o.Incarnation
	p.heldDirty = o.Dirty
	p.cuts, p.size = slices.Clone(o.Cuts), o.Size
	p.partial = c.iss.has(i) && c.lacksCut(p)
	c.meta.strays = true
	c.kick, c.wake = true, true
	switch {
	case c.iss.has(i):
		c.memberOpened(i)
	case c.phase == serving:
		c.startTarget(i)
	}
}

// wellFormed reports whether a replica speaks of regions that the volume has:
// others would end up in updates that every replica refuses.
func (c *Core) wellFormed(o *block.Opened) bool {
	regions := block.RegionCount(c.view.Size)
	for i := range o.Dirty {
		if !o.Dirty[i].Regions.Within(regions) {
			return false
		}
	}
	return o.Log.Within(regions)
}

// memberOpened goes on where the last session of a member ended.
func (c *Core) memberOpened(i int) {
	p := &c.peers[i]
	if p.lostMemory || c.phase != attaching && p.rolledBack() {
		return
	}
	p.failed = nil
	if c.phase != attaching {
		c.trust(i)
		c.memberBack()
	}
	c.pump(i)
}

func laterFlush(a, b block.FlushNumber) block.FlushNumber {
	if a.Less(b) {
		return b
	}
	return a
}
