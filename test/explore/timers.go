package explore

import (
	"unsafe"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// timer is something that a core waits for and that may be over whenever the
// explorer likes: safety must not depend on how long it takes. Leases are none:
// they are measured with time that really passes.
type timer uint8

const (
	// The first ones are for each replica: to open it again.
	_ timer = iota
	// timerCopy and those after it are for a copy to each replica that found no
	// intact source.
	timerCopy timer = maxReplicas
	// timerAttach ends the wait for members at the attach, timerDark that for
	// members that were lost all at once.
	timerAttach timer = 2*maxReplicas + iota - 2
	timerDark
	// timerSettle is for an unknown outcome, timerPropose for a proposal after a
	// refused one.
	timerSettle
	timerPropose
	// timerCut ends the hold of a cut.
	timerCut
	// timerLog makes regions idle and lets the core look at the logs.
	timerLog
	timers
)

func (t timer) String() string {
	switch t {
	case timerAttach:
		return "waits no longer for members"
	case timerDark:
		return "waits no longer for lost members"
	case timerSettle:
		return "settles the unknown outcome"
	case timerPropose:
		return "may propose again"
	case timerCut:
		return "holds writes no longer for a cut"
	case timerLog:
		return "looks at idle regions"
	}
	if t >= timerCopy {
		return "tries again to copy to " + letter(int(t-timerCopy))
	}
	return "opens " + letter(int(t)) + " again"
}

func unsafePointer(c *core.Core) unsafe.Pointer { return unsafe.Pointer(c) }

// armed reports whether a core may be waiting for a timer.
func (l *layout) armed(c *core.Core, t timer) bool {
	p := unsafe.Pointer(c)
	now := get[block.Instant](p, l.now)
	switch t {
	case timerAttach:
		return get[uint8](p, l.phase) == phaseAttaching && get[block.Instant](p, l.attachSince)+year > now
	case timerDark:
		return get[bool](p, l.dark) && get[block.Instant](p, l.darkSince)+year > now
	case timerSettle:
		return get[bool](p, l.waiting) && get[block.Instant](p, l.retryAt) > now
	case timerPropose:
		return !get[bool](p, l.proposalOpen) && get[block.Instant](p, l.notBefore) > now
	case timerCut:
		stage := get[uint8](p, l.cutStage)
		return (stage == cutDraining || stage == cutTaking) && get[block.Instant](p, l.cutUntil) > now
	case timerLog:
		return get[uint8](p, l.phase) == phaseServing && get[block.Instant](p, l.logNext) != never
	}
	if t >= timerCopy {
		at := l.blocked(c, int(t-timerCopy))
		return at != nil && *at > now
	}
	peer := l.peer(c, int(t))
	return peer != nil && get[uint8](peer, l.peerLink) == linkDown && get[block.Instant](peer, l.peerRetryAt) > now
}

// blocked is until when copies to a replica wait, nil if it is no sync target.
func (l *layout) blocked(c *core.Core, i int) *block.Instant {
	peer := l.peer(c, i)
	if peer == nil {
		return nil
	}
	target := get[unsafe.Pointer](peer, l.peerTarget)
	if target == nil {
		return nil
	}
	return (*block.Instant)(unsafe.Add(target, l.targetBlocked))
}

// fire lets a timer of an engine run out now.
func (w *world) fire(i int, t timer) {
	l := w.setting.layout
	p := unsafe.Pointer(w.core(i))
	// A moment passes, so that what becomes due was not due before.
	w.now++
	switch t {
	case timerAttach:
		set(p, l.attachSince, w.now-year)
	case timerDark:
		set(p, l.darkSince, w.now-year)
	case timerSettle:
		set(p, l.retryAt, w.now)
	case timerPropose:
		set(p, l.notBefore, w.now)
	case timerCut:
		set(p, l.cutUntil, w.now)
	case timerLog:
		regions := l.regionStates(unsafe.Add(p, l.logRegions))
		for r, s := range regions {
			s.endedAt = -2 * year
			regions[r] = s
		}
		set(p, l.logNext, w.now)
	case timerCopy, timerCopy + 1, timerCopy + 2:
		*l.blocked(w.engines[i].core, int(t-timerCopy)) = w.now
	default:
		set(l.peer(w.engines[i].core, int(t)), l.peerRetryAt, w.now)
	}
	w.step(i, core.Event{Kind: core.EventTick})
}
