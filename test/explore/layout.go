package explore

import (
	"fmt"
	"reflect"
	"unsafe"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// layout knows how to copy a core and where the fields lie that the explorer
// looks at or, for timers, changes. A field that is renamed ends the program at
// its start; one that is added is copied and hashed as it is.
type layout struct {
	core *plan

	now, ticked, nextPing, effects, phase, peers uintptr
	view, stamp, metaActive, metaStamp           uintptr
	flushActive, flushCount                      uintptr
	requests, writes, jobs, lockEntries          uintptr
	attachSince, retryAt, notBefore, waiting     uintptr
	proposalOpen, logNext, logRegions            uintptr
	dark, darkSince, iss                         uintptr
	cutStage, cutUntil                           uintptr
	requestSize, requestStamp                    uintptr
	writeSize, writeUsed, writeStamp             uintptr
	jobSize, jobUsed, jobStamp, jobView          uintptr
	jobHashed, jobHashes                         uintptr
	lockSize, lockTicket                         uintptr
	peerSize, peerLink, peerRetryAt, peerCalls   uintptr
	peerTarget, targetBlocked                    uintptr
	slots, head                                  uintptr
	callSize, callNext, callReq, callSent        uintptr
	callPurpose, callIndex, callStamp, callAt    uintptr
	callActive                                   uintptr

	request   *plan
	jobPlan   *plan
	metaPlan  *plan
	flushPlan *plan
	hash      *plan
}

// regionState is what the core keeps of a logged region, field by field.
type regionState struct {
	busy    int32
	ended   uint64
	endedAt block.Instant
}

// regionStates is the map of logged regions, of which p is the address. The
// types were compared when the layout was made.
func (l *layout) regionStates(p unsafe.Pointer) map[block.Region]regionState {
	return *(*map[block.Region]regionState)(p)
}

// sameFields panics unless two structs have the same fields at the same places.
func sameFields(a, b reflect.Type) {
	same := a.Size() == b.Size() && a.NumField() == b.NumField()
	for i := 0; same && i < a.NumField(); i++ {
		f, g := a.Field(i), b.Field(i)
		same = f.Name == g.Name && f.Type == g.Type && f.Offset == g.Offset
	}
	if !same {
		panic(fmt.Sprintf("explore: %v is not laid out as %v any more", a, b))
	}
}

// Phases and link states of a core, by their order there.
const (
	phaseAttaching = 0
	phaseServing   = 1
	linkDown       = 0
	// Stages of a cut that hold clients.
	cutDraining = 2
	cutTaking   = 3
)

// Purposes of a call, by their order in the core.
const (
	forPing = iota
	forRead
	forWrite
	forFlush
	forMeta
	forJob
)

func newLayout() *layout {
	l := &layout{}
	root := reflect.TypeFor[core.Core]()
	at := func(to *uintptr, t reflect.Type, names ...string) reflect.Type {
		offset, found := path(t, names...)
		*to = offset
		return found
	}
	at(&l.now, root, "now")
	at(&l.ticked, root, "ticked")
	at(&l.nextPing, root, "nextPing")
	at(&l.effects, root, "effects")
	at(&l.phase, root, "phase")
	at(&l.view, root, "view")
	at(&l.stamp, root, "stamp")
	at(&l.iss, root, "iss")
	at(&l.metaActive, root, "meta", "active")
	at(&l.metaStamp, root, "meta", "stamp")
	at(&l.flushActive, root, "flush", "active")
	at(&l.flushCount, root, "flush", "count")
	at(&l.attachSince, root, "attach", "since")
	at(&l.retryAt, root, "proposal", "retryAt")
	at(&l.notBefore, root, "proposal", "notBefore")
	at(&l.waiting, root, "proposal", "waiting")
	at(&l.proposalOpen, root, "proposal", "open")
	at(&l.logNext, root, "log", "next")
	sameFields(at(&l.logRegions, root, "log", "regions").Elem(), reflect.TypeFor[regionState]())
	at(&l.dark, root, "dark")
	at(&l.darkSince, root, "darkSince")
	at(&l.cutStage, root, "cut", "stage")
	at(&l.cutUntil, root, "cut", "until")

	request := at(&l.requests, root, "requests").Elem()
	l.requestSize = request.Size()
	at(&l.requestStamp, request, "stamp")
	write := at(&l.writes, root, "writes").Elem()
	l.writeSize = write.Size()
	at(&l.writeUsed, write, "used")
	at(&l.writeStamp, write, "stamp")
	job := at(&l.jobs, root, "jobs").Elem()
	l.jobSize = job.Size()
	at(&l.jobUsed, job, "used")
	at(&l.jobStamp, job, "stamp")
	at(&l.jobView, job, "view")
	at(&l.jobHashed, job, "hashed")
	hashes := at(&l.jobHashes, job, "hashes")
	lock := at(&l.lockEntries, root, "locks", "entries").Elem()
	l.lockSize = lock.Size()
	at(&l.lockTicket, lock, "ticket")

	peer := at(&l.peers, root, "peers").Elem()
	l.peerSize = peer.Size()
	at(&l.peerLink, peer, "link")
	at(&l.peerRetryAt, peer, "retryAt")
	target := at(&l.peerTarget, peer, "target").Elem()
	at(&l.targetBlocked, target, "blockedUntil")
	calls := at(&l.peerCalls, peer, "calls")
	call := at(&l.slots, calls, "slots").Elem()
	at(&l.head, calls, "head")
	l.callSize = call.Size()
	at(&l.callActive, call, "active")
	at(&l.callNext, call, "next")
	at(&l.callReq, call, "req")
	at(&l.callSent, call, "sent")
	at(&l.callPurpose, call, "purpose")
	at(&l.callIndex, call, "index")
	at(&l.callStamp, call, "stamp")
	at(&l.callAt, call, "sentAt")

	planner := newPlanner(l.notes())
	l.core = planner.of(root)
	_, meta := path(root, "meta")
	l.metaPlan = planner.of(meta)
	_, flush := path(root, "flush")
	l.flushPlan = planner.of(flush)
	l.request = planner.of(reflect.TypeFor[block.Request]())
	l.jobPlan = planner.of(job)
	l.hash = planner.of(hashes.Elem())
	return l
}

// get reads a field at an offset from the base of a struct.
func get[T any](base unsafe.Pointer, offset uintptr) T { return *(*T)(unsafe.Add(base, offset)) }

// set writes one.
func set[T any](base unsafe.Pointer, offset uintptr, v T) { *(*T)(unsafe.Add(base, offset)) = v }

// elements are the base and the number of the elements of the slice at offset.
func elements(base unsafe.Pointer, offset uintptr) (unsafe.Pointer, int) {
	h := (*header)(unsafe.Add(base, offset))
	return h.data, h.len
}

// clone is an independent copy of a core whose effects have been taken.
func (l *layout) clone(from *core.Core) *core.Core {
	to := new(core.Core)
	*to = *from
	at := unsafe.Pointer(to)
	*(*header)(unsafe.Add(at, l.effects)) = header{}
	l.core.detach(at)
	return to
}

// peer is the i-th peer of a core.
func (l *layout) peer(c *core.Core, i int) unsafe.Pointer {
	data, n := elements(unsafe.Pointer(c), l.peers)
	if i >= n {
		return nil
	}
	return unsafe.Add(data, uintptr(i)*l.peerSize)
}

// eachCall visits the calls of a peer in the order of their creation.
func (l *layout) eachCall(peer unsafe.Pointer, visit func(n int, call unsafe.Pointer)) {
	calls := unsafe.Add(peer, l.peerCalls)
	data, _ := elements(calls, l.slots)
	n := 0
	for at := get[int32](calls, l.head); at != 0; n++ {
		call := unsafe.Add(data, uintptr(at-1)*l.callSize)
		visit(n, call)
		at = get[int32](call, l.callNext)
	}
}

// callOf is the ordinal of the call that a sequence number belongs to, or -1.
func (l *layout) callOf(peer unsafe.Pointer, seq uint64) int {
	found := -1
	l.eachCall(peer, func(n int, call unsafe.Pointer) {
		req := (*block.Request)(unsafe.Add(call, l.callReq))
		if req.Seq == seq && get[bool](call, l.callSent) {
			found = n
		}
	})
	return found
}
