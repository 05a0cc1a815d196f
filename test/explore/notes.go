package explore

import (
	"slices"
	"unsafe"

	"github.com/holdfast-io/holdfast/internal/block"
)

// notes say, field by field, where the canonical form of a core leaves something
// out or renames it. Everything without a note is written as it is, which is
// always right and at worst keeps states apart that could be one. The reasons
// are in doc.go.
func (l *layout) notes() map[string]note {
	skip := func(*canon, unsafe.Pointer) {}
	serial := func(c *canon, p unsafe.Pointer) { c.serial(*(*uint64)(p)) }
	revision := func(c *canon, p unsafe.Pointer) { c.revision(*(*block.Revision)(p)) }
	ownFlush := func(c *canon, p unsafe.Pointer) { c.number(classFlush+int(c.epoch), *(*uint64)(p)) }
	due := func(c *canon, p unsafe.Pointer) { c.bool(*(*block.Instant)(p) <= get[block.Instant](c.core, l.now)) }
	ticket := func(c *canon, p unsafe.Pointer) { l.ticket(c, *(*uint64)(p)) }

	return map[string]note{
		// Types, wherever they stand.
		"Revision":    revision,
		"FlushNumber": func(c *canon, p unsafe.Pointer) { c.flush(*(*block.FlushNumber)(p)) },
		"Regions":     func(c *canon, p unsafe.Pointer) { c.regions(*(*block.Regions)(p)) },
		"Buffer":      skip,
		"error":       func(c *canon, p unsafe.Pointer) { c.bool(*(*error)(p) != nil) },
		"ReplicaID":   func(c *canon, p unsafe.Pointer) { c.byte((*block.ReplicaID)(p).ID[0]) },
		"Incarnation": func(c *canon, p unsafe.Pointer) { c.byte((*block.Incarnation)(p).Boot[0]) },
		"View":        func(c *canon, p unsafe.Pointer) { c.view((*block.View)(p)) },
		"callTable":   l.calls,
		"metaState":   l.meta,
		"flushState":  l.flush,

		// The core. Its configuration and epoch follow from which engine it is.
		"Core.cfg":          skip,
		"Core.now":          skip,
		"Core.stamp":        skip,
		"Core.serial":       serial,
		"Core.jobs":         l.jobSlots,
		"Core.darkSince":    l.darkDue,
		"Core.beatAt":       skip,
		"Core.askedAt":      skip,
		"Core.nextPing":     skip,
		"Core.ticked":       skip,
		"Core.spaceRetry":   skip,
		"Core.stopping":     skip,
		"Core.frozen":       skip,
		"Core.effects":      skip,
		"Core.taken":        skip,
		"Core.guards":       skip,
		"Core.unsureUntil":  due,
		"endingState.until": due,
		"endingState.err":   skip,
		"Core.throttle":     skip, // JobGap is 0

		"cutState.until": due,
		"cutState.stamp": l.taking,
		"cutState.after": serial,
		"target.cutting": func(c *canon, p unsafe.Pointer) { c.bool(*(*uint64)(p) != 0) },

		"lockTable.next":   skip,
		"lockEntry.ticket": skip,

		"request.stamp":   skip,
		"request.arrived": skip,
		"request.buf":     bufferNote,
		"request.result":  bufferNote,
		"request.ticket":  ticket,
		"request.flush":   ownFlush,
		"write.stamp":     skip,
		"write.buf":       bufferNote,
		"write.retryAt":   skip,
		"write.enters":    skip, // NumberGap is 0

		"attachState.since":       l.yearOver,
		"proposalState.retryAt":   due,
		"proposalState.notBefore": due,
		"metaState.stamp":         skip,

		"flushState.began": serial,
		"flushState.clean": serial,

		"flushState.waiters":     func(c *canon, p unsafe.Pointer) { c.bool(*(*int)(p) > 0) },
		"flushState.answers":     skip, // FlushGather is 0
		"flushState.crowd":       skip,
		"flushState.begunAt":     skip,
		"flushState.gatherUntil": skip,

		"logState.regions": l.logged,
		"logState.next":    func(c *canon, p unsafe.Pointer) { c.bool(*(*block.Instant)(p) == never) },
		"logState.after":   serial,

		"peer.id":           skip,
		"peer.node":         skip,
		"peer.index":        skip,
		"peer.session":      skip, // written with the links
		"peer.openSeq":      skip,
		"peer.openAt":       func(c *canon, p unsafe.Pointer) { c.age(*(*block.Instant)(p)) },
		"peer.retryAt":      due,
		"peer.refusedUntil": due,
		"peer.pingAt":       skip,
		"peer.leaseFrom":    func(c *canon, p unsafe.Pointer) { c.age(*(*block.Instant)(p)) },
		"peer.epochAt":      l.attachAge,
		"peer.free":         skip,
		"peer.told":         skip, // NumberGap is 0
		"peer.want":         func(c *canon, p unsafe.Pointer) { c.bool(*(*block.Regions)(p) == nil); c.regions(*(*block.Regions)(p)) },

		"target.flushN":       ownFlush,
		"target.flushBegan":   serial,
		"target.clean":        serial,
		"target.flushFrom":    serial,
		"target.taking":       l.taking,
		"target.copied":       skip,
		"target.reported":     skip,
		"target.blockedUntil": due,

		"job.stamp":  skip,
		"job.ticket": ticket,
		"job.view":   func(c *canon, p unsafe.Pointer) { c.bool(*(*uint64)(p) == get[uint64](c.core, l.stamp)) },
		"job.hashes": skip, // written by jobSlots
		"job.buf":    bufferNote,
		"job.bytes":  skip,
		"job.resume": skip, // JobGap is 0

		"Request.Epoch":   skip,
		"Request.Session": skip,
		"Request.Seq":     skip,
		"Request.Buf":     bufferNote,
		"Request.Open":    skip,
	}
}

// meta is, while no update is under way, only what is owed.
func (l *layout) meta(c *canon, p unsafe.Pointer) {
	if get[bool](c.core, l.metaActive) {
		l.metaPlan.appendFields(c, p)
		return
	}
	for _, f := range l.metaPlan.fields {
		switch f.name {
		case "viewOwed", "gated", "stored", "dirtyOwed", "dropOwed", "strays":
			f.plan.append(c, unsafe.Add(p, f.offset))
		}
	}
}

// flush is, while none is under way, the last number and what it covered.
func (l *layout) flush(c *canon, p unsafe.Pointer) {
	active := get[bool](c.core, l.flushActive)
	for _, f := range l.flushPlan.fields {
		switch {
		case f.name == "number" || f.name == "numberedAt" || f.name == "entering" || f.name == "entered":
			// NumberGap is 0: each flush has its own.
		case f.name == "count":
			c.number(classFlush+int(c.epoch), get[uint64](c.core, l.flushCount))
		case !active && (f.name == "began" || f.name == "sent" || f.name == "has"):
		case f.note != nil:
			f.note(c, unsafe.Add(p, f.offset))
		default:
			f.plan.append(c, unsafe.Add(p, f.offset))
		}
	}
}

func bufferNote(c *canon, p unsafe.Pointer) { c.buffer(*(**block.Buffer)(p)) }

// ticket is the place of a range lock in its table. A ticket that is not in it
// will never be looked up.
func (l *layout) ticket(c *canon, ticket uint64) {
	data, n := elements(c.core, l.lockEntries)
	for i := range n {
		if get[uint64](unsafe.Add(data, uintptr(i)*l.lockSize), l.lockTicket) == ticket {
			c.byte(byte(i + 2))
			return
		}
	}
	c.bool(ticket != 0)
}

// calls are written in the order of their creation; their slots and sequence
// numbers are names only.
func (l *layout) calls(c *canon, p unsafe.Pointer) {
	peer := unsafe.Add(p, -int(l.peerCalls))
	l.eachCall(peer, func(_ int, call unsafe.Pointer) {
		purpose := get[uint8](call, l.callPurpose)
		index := get[int32](call, l.callIndex)
		sent := get[bool](call, l.callSent)
		c.byte(purpose)
		c.bool(sent)
		c.byte(byte(index))
		switch purpose {
		case forPing:
			if sent {
				c.age(get[block.Instant](call, l.callAt))
			}
		case forFlush:
			c.number(classFlush+int(c.epoch), get[uint64](call, l.callStamp))
		default:
			c.bool(l.current(c.core, purpose, index, get[uint64](call, l.callStamp)))
		}
		l.request.append(c, unsafe.Add(call, l.callReq))
	})
	c.byte(250)
}

// current reports whether the owner of a call still is the one that made it.
func (l *layout) current(core unsafe.Pointer, purpose uint8, index int32, stamp uint64) bool {
	slot := func(list, size, field uintptr) bool {
		data, n := elements(core, list)
		return int(index) < n && get[uint64](unsafe.Add(data, uintptr(index)*size), field) == stamp
	}
	switch purpose {
	case forRead:
		return slot(l.requests, l.requestSize, l.requestStamp)
	case forWrite:
		return slot(l.writes, l.writeSize, l.writeStamp)
	case forJob:
		return slot(l.jobs, l.jobSize, l.jobStamp)
	case forMeta:
		return get[bool](core, l.metaActive) && get[uint64](core, l.metaStamp) == stamp
	}
	return true
}

// jobSlots writes of a free slot nothing, and of the hashes those that are known.
func (l *layout) jobSlots(c *canon, p unsafe.Pointer) {
	data, n := elements(p, 0)
	for i := range n {
		job := unsafe.Add(data, uintptr(i)*l.jobSize)
		used := get[bool](job, l.jobUsed)
		c.bool(used)
		if !used {
			continue
		}
		l.jobPlan.append(c, job)
		hashed := get[uint64](job, l.jobHashed)
		hashes, count := elements(job, l.jobHashes)
		for k := range count {
			if hashed>>k&1 == 0 {
				continue
			}
			of := unsafe.Slice((*block.ExtentHash)(unsafe.Add(hashes, uintptr(k)*l.hash.size)), l.hash.typ.Len())
			for e := range of {
				c.hash(&of[e])
			}
		}
	}
}

// hash is the state of an extent. The sums of the explorer's replicas are the
// contents.
func (c *canon) hash(h *block.ExtentHash) {
	c.buf = append(c.buf, h.Sum[0], h.Sum[1], byte(h.Bad), byte(h.Suspect))
}

// logged are the regions in the log, in order.
func (l *layout) logged(c *canon, p unsafe.Pointer) {
	m := l.regionStates(p)
	var list []block.Region
	for r := range m {
		list = append(list, r)
	}
	slices.Sort(list)
	for _, r := range list {
		s := m[r]
		c.byte(byte(r))
		c.byte(byte(s.busy))
		c.serial(s.ended)
		c.bool(s.endedAt < 0)
	}
	c.byte(251)
}

// yearOver is whether the wait that began then is over.
func (l *layout) yearOver(c *canon, p unsafe.Pointer) {
	c.bool(*(*block.Instant)(p)+year <= get[block.Instant](c.core, l.now))
}

func (l *layout) darkDue(c *canon, p unsafe.Pointer) {
	if get[bool](c.core, l.dark) {
		l.yearOver(c, p)
	}
}

// attachAge matters until older leases are waited out.
func (l *layout) attachAge(c *canon, p unsafe.Pointer) {
	if get[uint8](c.core, l.phase) == phaseAttaching {
		c.age(*(*block.Instant)(p))
	}
}

// taking is the stamp of an update, or none.
func (l *layout) taking(c *canon, p unsafe.Pointer) {
	t := *(*uint64)(p)
	c.bool(t != 0)
	c.bool(t == get[uint64](c.core, l.metaStamp) && get[bool](c.core, l.metaActive))
}

func (c *canon) view(v *block.View) {
	c.byte(byte(v.Epoch))
	c.bool(v.Start.IsZero())
	c.revision(v.Revision)
	c.bool(v.NotWaitedOut)
	for i := range v.Replicas {
		m := &v.Replicas[i]
		c.bool(m.InSync)
		c.revision(m.Removed)
		c.byte(m.Incarnation.Boot[0])
	}
	for i := range v.Snapshots {
		c.byte(v.Snapshots[i].ID.ID[7])
	}
	c.byte(245)
}
