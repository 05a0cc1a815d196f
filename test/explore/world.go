package explore

import (
	"errors"
	"fmt"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/invariant"
)

// Time. Leases are measured in units; what else a core waits for takes a year,
// or no time at all, as the explorer likes (timers.go).
const (
	unit        block.Instant = 1e9
	leaseUnits                = 2
	marginUnits               = 1
	year        block.Instant = 1e15
	never       block.Instant = 1<<63 - 1
)

// world is one state: everything that decides what can happen next. A step makes
// a copy and changes that; what it does not touch is shared.
type world struct {
	setting  *setting
	raft     *state.State
	index    uint64
	engines  [maxEngines]*engine
	count    int
	replicas [maxReplicas]replica
	history  history
	shots    [maxCuts]shot
	left     Bounds
	now      block.Instant
	units    block.Instant
	// owned are the engines, cores those among them whose core, that are of this
	// world alone.
	owned, cores uint8
	violation    error
	// progress: the last event had an effect that others see.
	progress bool
}

// setting is what all states of an exploration share.
type setting struct {
	config Config
	layout *layout
	stock  *stock
	volume block.VolumeID
	size   int64
	// images are the replicas as they were in the first state.
	images [maxReplicas]replica
}

// engine is one start of an engine: its core, its links, and what it has handed
// to Raft. It is never killed: one that takes no step any more is dead.
type engine struct {
	core             *core.Core
	epoch            block.Epoch
	serving, stopped bool
	links            [maxReplicas]link
	proposals        []proposal
	// seen is the revision and epoch of the last view that Raft showed it.
	seenRevision block.Revision
	seenEpoch    block.Epoch
}

// link is one connection to a replica, and what is left of the one before.
type link struct {
	state   linkState
	session block.Session
	// queue are requests sent and not yet carried out.
	queue []block.Request
	// late are replies of requests that were carried out, on their way.
	late []block.Reply
	// orphans are the requests of an older session that nobody waits for.
	orphans []block.Request
	old     block.Session
}

type linkState uint8

const (
	linkNone linkState = iota
	linkLive
	// linkBroken: the far end is gone, and the engine has yet to learn it.
	linkBroken
)

// proposal is a command on its way to Raft and back.
type proposal struct {
	asked block.Proposal
	// landed: Raft has decided. unknown: its proposer was told so and hears no
	// more of it.
	landed, unknown bool
	verdict         block.Verdict
	view            block.View
}

// fail records the first violation.
func (w *world) fail(format string, args ...any) {
	if w.violation == nil {
		w.violation = fmt.Errorf(format, args...)
	}
}

// copy is a world that may be changed.
func (w *world) copy() *world {
	n := *w
	n.owned, n.cores = 0, 0
	n.progress = false
	return &n
}

// engine is the i-th engine, to be changed but for its core.
func (w *world) engine(i int) *engine {
	if w.owned>>i&1 == 0 {
		e := *w.engines[i]
		e.proposals = append([]proposal(nil), e.proposals...)
		for k := range e.links {
			l := &e.links[k]
			l.queue = append([]block.Request(nil), l.queue...)
			l.late = append([]block.Reply(nil), l.late...)
			l.orphans = append([]block.Request(nil), l.orphans...)
		}
		w.engines[i] = &e
		w.owned |= 1 << i
	}
	return w.engines[i]
}

// core is the core of an engine, to be stepped.
func (w *world) core(i int) *core.Core {
	e := w.engine(i)
	if w.cores>>i&1 == 0 {
		e.core = w.setting.layout.clone(e.core)
		w.cores |= 1 << i
	}
	return e.core
}

// step gives a core an event and carries its effects out.
func (w *world) step(i int, ev core.Event) {
	c := w.core(i)
	if w.engines[i].stopped || w.violation != nil {
		return
	}
	defer func() {
		if v := recover(); v != nil {
			if broken, ok := v.(invariant.Violation); ok {
				w.fail("assertion of %s: %s", name(i), broken.Message)
				return
			}
			panic(v)
		}
	}()
	ev.Now = w.now
	c.Step(ev)
	w.settle(i)
}

// settle carries out the effects of a core.
func (w *world) settle(i int) {
	e := w.engine(i)
	set(unsafePointer(e.core), w.setting.layout.nextPing, never)
	var empty []core.Effect
	for _, ef := range e.core.Effects() {
		if ef.Kind != core.EffectNotice {
			w.progress = true
		}
		if w.ofNothing(&ef) {
			empty = append(empty, ef)
			continue
		}
		w.effect(i, e, &ef)
	}
	for k := range empty {
		w.answerAtOnce(i, &empty[k])
	}
}

// ofNothing reports whether an effect asks for the hashes of a chunk in which no
// block of the model lies.
func (w *world) ofNothing(ef *core.Effect) bool {
	if ef.Kind != core.EffectSend || ef.Request.Op != block.OpHash {
		return false
	}
	first, end := w.setting.config.spacing().blocks(&ef.Request)
	return first == end
}

// answerAtOnce lets such a request be carried out, and its answer arrive, before
// anything else happens: nobody can change what it says.
func (w *world) answerAtOnce(i int, ef *core.Effect) {
	r := indexOf(ef.Replica)
	if l := &w.engines[i].links[r]; w.engines[i].stopped || l.state != linkLive || l.session != ef.Request.Session {
		return
	}
	w.reply(i, r, w.replicas[r].handle(w.setting.stock, w.engines[i].epoch, ef.Request.Session, &ef.Request))
}

func (w *world) effect(i int, e *engine, ef *core.Effect) {
	switch ef.Kind {
	case core.EffectConnect:
		l := &e.links[indexOf(ef.Replica)]
		l.cut()
		l.state, l.session = linkLive, ef.Request.Session
		l.queue = append(l.queue, ef.Request)
	case core.EffectDisconnect:
		if l := &e.links[indexOf(ef.Replica)]; l.session == ef.Request.Session {
			l.cut()
		}
	case core.EffectSend:
		l := &e.links[indexOf(ef.Replica)]
		if l.state == linkLive && l.session == ef.Request.Session {
			l.queue = append(l.queue, ef.Request)
		}
	case core.EffectPropose:
		e.proposals = append(e.proposals, proposal{asked: ef.Proposal})
	case core.EffectComplete:
		w.completed(i, ef)
	case core.EffectServing:
		e.serving = true
		w.history.serves(e.epoch, func(k int) block.Epoch { return w.engines[k].epoch })
	case core.EffectStopped:
		e.stopped = true
		for k := range e.links {
			e.links[k].cut()
		}
	case core.EffectCut:
		w.taken(i, ef)
	case core.EffectNotice:
		if ef.Notice.Kind == core.NoticeDiffer && ef.Notice.Err == nil {
			w.fail("replicas differ outside of what may be divergent: %s reports replica %s", name(i),
				letter(indexOf(ef.Notice.Replica)))
		}
	}
}

// cut ends a connection on the engine's side. What it sent may still arrive.
func (l *link) cut() {
	if l.state == linkLive && len(l.queue) > 0 {
		l.orphans, l.old = l.queue, l.session
	}
	l.state, l.queue, l.late = linkNone, nil, nil
}

func (w *world) completed(i int, ef *core.Effect) {
	if ef.Err != nil && !errors.Is(ef.Err, block.ErrDetached) && !errors.Is(ef.Err, block.ErrStaleEpoch) {
		w.fail("%s failed a request with an error that no fault here allows: %v", name(i), ef.Err)
		return
	}
	if err := w.history.completed(ef.Tag, ef.Err, ef.Buf); err != nil {
		w.fail("%w (%s)", err, name(i))
	}
}

func name(i int) string { return fmt.Sprintf("E%d", i+1) }

func letter(i int) string { return string(rune('A' + i)) }

// view is the committed one.
func (w *world) view() *block.View {
	v, _ := w.raft.Volume(w.setting.volume)
	return &v.View
}

// commit hands a command to the state machine.
func (w *world) commit(c state.Command) state.Result {
	w.index++
	next, result := w.raft.Apply(w.index, c)
	w.raft = next
	return result
}

// launch starts one more engine, on the node of a replica, as a node does that
// the volume was moved to. Older ones are left running.
func (w *world) launch() {
	i := w.count
	v, _ := w.raft.Volume(w.setting.volume)
	on := nodeID(i % w.setting.config.Replicas)
	if v.Published != on {
		if !v.Published.IsZero() {
			w.must(state.Unpublish{Volume: v.ID, Node: v.Published, EndAttachment: true})
		}
		w.must(state.Publish{Volume: v.ID, Node: on})
	}
	cmd := state.StartEngine{Volume: v.ID, Node: on, Start: block.StartID{ID: block.ID{5: byte(i + 1)}},
		Epoch: w.view().Epoch, Attachment: w.view().Attachment}
	if cmd.Attachment.IsZero() {
		cmd.NewAttachment = block.AttachmentID{ID: block.ID{4: byte(i + 1)}}
	}
	view := w.must(cmd).View()
	w.count++
	w.owned |= 1 << i
	w.cores |= 1 << i
	w.engines[i] = &engine{epoch: view.Epoch, seenRevision: view.Revision, seenEpoch: view.Epoch}
	made, err := core.New(w.coreConfig(on, view), w.now)
	if err != nil {
		w.fail("%s cannot begin: %w", name(i), err)
		return
	}
	w.engines[i].core = made
	w.settle(i)
}

func (w *world) must(c state.Command) *state.Result {
	r := w.commit(c)
	if r.Err != nil {
		w.fail("command %s: %w", c.Kind(), r.Err)
	}
	return &r
}

func (w *world) coreConfig(on block.NodeID, view block.View) core.Config {
	crowded := 16
	if w.setting.config.Apart {
		crowded = 1
	}
	return core.Config{
		Node: on, Cluster: clusterID, View: view, MinInSync: w.setting.config.MinInSync,
		Timing: core.Timing{
			PingInterval: int64(unit), Lease: int64(leaseUnits * unit), LeaseMargin: int64(marginUnits * unit),
			PingDeadline: int64(year) * 1000, ReplicaDeadline: int64(year) * 1000,
			AttachGrace: int64(year), AttachWait: int64(year), ConnectRetry: int64(year),
			ProposeRetry: int64(year), NoSpaceRetry: int64(year), LogIdle: int64(year), CutHold: int64(year),
		},
		Limits: core.Limits{Requests: w.setting.config.requests(), TargetWindow: w.setting.config.Window, Copies: 1,
			LogRegions: crowded},
	}
}
