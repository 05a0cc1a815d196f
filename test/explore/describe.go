package explore

import (
	"fmt"
	"strings"

	"github.com/holdfast-io/holdfast/internal/block"
)

// describe tells what an action does in a state.
func (w *world) describe(a *action) string {
	i, r := int(a.engine), int(a.replica)
	var b strings.Builder
	switch a.kind {
	case actExchange:
		fmt.Fprintf(&b, "%s-%s: %s", name(i), letter(r), w.describeRequest(&w.engines[i].links[r].queue[a.at]))
	case actLate:
		rep := &w.engines[i].links[r].late[a.at]
		fmt.Fprintf(&b, "%s hears of %s, late: %s, %v", name(i), letter(r), opName(rep.Op), rep.Err)
	case actOrphan:
		fmt.Fprintf(&b, "%s is opened by a session that %s has given up", letter(r), name(i))
	case actCut:
		fmt.Fprintf(&b, "%s loses its connection to %s", name(i), letter(r))
	case actLearn:
		fmt.Fprintf(&b, "%s learns that its connection to %s has ended", name(i), letter(r))
	case actKill:
		fmt.Fprintf(&b, "%s is killed", letter(r))
	case actPutBack:
		fmt.Fprintf(&b, "%s has the disk that it had at the beginning", letter(r))
	case actPower:
		fmt.Fprintf(&b, "%s loses power, the drive holds %v", letter(r), a.left[:w.setting.config.Blocks])
	case actLand, actOutcome, actUnknown:
		p := &w.engines[i].proposals[a.at]
		fmt.Fprintf(&b, "%s", map[actionKind]string{
			actLand: "Raft decides: " + name(i) + describeProposal(&p.asked), actOutcome: name(i) + " learns the outcome of:" + describeProposal(&p.asked),
			actUnknown: name(i) + " is told that nobody knows the outcome of:" + describeProposal(&p.asked),
		}[a.kind])
		if p.landed && a.kind == actOutcome {
			fmt.Fprintf(&b, " (verdict %d, revision %d)", p.verdict, p.view.Revision)
		}
	case actHint:
		fmt.Fprintf(&b, "Raft shows %s epoch %d revision %d", name(i), w.view().Epoch, w.view().Revision)
	case actStart:
		fmt.Fprintf(&b, "%s starts", name(w.count))
	case actWrite:
		fmt.Fprintf(&b, "write of %d to block %d at %s", w.history.valueOf(int(w.history.written)), a.at, name(i))
	case actRead:
		fmt.Fprintf(&b, "read of block %d at %s", a.at, name(i))
	case actFlush:
		fmt.Fprintf(&b, "flush at %s", name(i))
	case actTimer:
		fmt.Fprintf(&b, "%s %v", name(i), timer(a.at))
	case actUnit:
		b.WriteString("half a lease passes")
	case actPause:
		b.WriteString("a lease and its margin pass")
	case actTick:
		fmt.Fprintf(&b, "%s sees that time has passed", name(i))
	case actDetach:
		fmt.Fprintf(&b, "%s shall detach", name(i))
	case actSnapshot:
		fmt.Fprintf(&b, "%s shall take a snapshot", name(i))
	}
	if a.forget {
		b.WriteString(", checksums are lost")
	}
	w.describeDone(&b, a)
	return b.String()
}

func (w *world) describeDone(b *strings.Builder, a *action) {
	for i, set := range a.done[:w.count] {
		queue, _ := w.engines[i].links[a.replica].holder(&w.replicas[a.replica])
		for k := range queue {
			if set>>k&1 == 1 {
				fmt.Fprintf(b, ", having carried out %s of %s", w.describeRequest(&queue[k]), name(i))
			}
		}
	}
}

func opName(op block.Op) string {
	return [...]string{"none", "open", "read", "write", "zero", "flush", "ping", "update", "hash"}[op]
}

func (w *world) describeRequest(r *block.Request) string {
	return describeRequest(w.setting.config.spacing(), r)
}

func describeRequest(s spacing, r *block.Request) string {
	var b strings.Builder
	b.WriteString(opName(r.Op))
	first, end := s.blocks(r)
	for k := first; k < end; k++ {
		fmt.Fprintf(&b, " block %d", k)
		if r.Buf != nil {
			fmt.Fprintf(&b, " = %d", r.Buf.Data[(k-first)*block.BlockSize])
		}
	}
	if r.Op == block.OpFlush {
		fmt.Fprintf(&b, " (%d, %d)", r.Flush.Epoch, r.Flush.N)
	}
	if r.Flags&block.FlagResync != 0 {
		b.WriteString(" to repair or copy")
	}
	if !r.Snapshot.IsZero() {
		fmt.Fprintf(&b, " of cut %d", cutOf(r.Snapshot))
	}
	if u := r.Update; u != nil {
		describeUpdate(&b, u)
	}
	return b.String()
}

func describeUpdate(b *strings.Builder, u *block.Update) {
	if u.View != nil {
		fmt.Fprintf(b, " view %d", u.View.Revision)
	}
	sets := func(what string, list []block.DirtySet) {
		for i := range list {
			fmt.Fprintf(b, " %s %s@%d %b", what, letter(indexOf(list[i].Replica)), list[i].Removal, regionBits(list[i].Regions))
		}
	}
	sets("set", u.SetDirty)
	sets("add", u.AddDirty)
	sets("clear", u.ClearDirty)
	for _, id := range u.DropDirty {
		b.WriteString(" drop " + letter(indexOf(id)))
	}
	if len(u.ClearLog) > 0 {
		fmt.Fprintf(b, " clear log %b", regionBits(u.ClearLog))
	}
	for _, c := range u.Cuts {
		fmt.Fprintf(b, " cut %d, target %v", cutOf(c.Snapshot), c.Target)
	}
	for _, id := range u.ValidCuts {
		fmt.Fprintf(b, " valid %d", cutOf(id))
	}
	for _, id := range u.DropCuts {
		fmt.Fprintf(b, " forget %d", cutOf(id))
	}
}

func describeProposal(p *block.Proposal) string {
	var b strings.Builder
	for _, id := range p.Remove {
		b.WriteString(" remove " + letter(indexOf(id)))
	}
	for _, id := range p.Admit {
		b.WriteString(" admit " + letter(indexOf(id)))
	}
	if len(p.Incarnations) > 0 {
		b.WriteString(" incarnations")
	}
	if p.WaitedOut {
		b.WriteString(" waited out")
	}
	if p.Snapshot != nil {
		fmt.Fprintf(&b, " snapshot %d", cutOf(p.Snapshot.ID))
	}
	if p.EndAttachment {
		b.WriteString(" end attachment")
	}
	if b.Len() == 0 {
		b.WriteString(" nothing")
	}
	return fmt.Sprintf("%s on (%d, %d)", b.String(), p.Epoch, p.Revision)
}

// describeView names the members, the revision and the epoch.
func describeView(v *block.View) string {
	var b strings.Builder
	for i := range v.Replicas {
		if v.Replicas[i].InSync {
			b.WriteString(letter(indexOf(v.Replicas[i].ID)))
		}
	}
	mark := ""
	if v.NotWaitedOut {
		mark = ", not waited out"
	}
	return fmt.Sprintf("{%s} at (%d, %d)%s", b.String(), v.Epoch, v.Revision, mark)
}

func (w *world) describeEnd() string {
	e := w.engines[w.count-1]
	s := e.core.Status()
	return fmt.Sprintf("%s, serving %v, frozen by %v, %d requests in flight, %d bytes divergent, targets %+v",
		describeView(w.view()), s.Serving, s.Frozen, s.InFlight, s.Divergent, s.Targets)
}

// describeReplicas is what they hold.
func (w *world) describeReplicas() string {
	var b strings.Builder
	for r := range w.setting.config.Replicas {
		x := &w.replicas[r]
		fmt.Fprintf(&b, " %s=%v", letter(r), x.cur[:w.setting.config.Blocks])
		for k, c := range x.cuts {
			if c.held {
				fmt.Fprintf(&b, " cut %d %+v", k, c)
			}
		}
		if x.log != 0 {
			b.WriteString(" logged")
		}
		for k, d := range x.dirty {
			if d.held {
				fmt.Fprintf(&b, " dirty(%s@%d)=%b", letter(k), d.removal, d.regions)
			}
		}
	}
	return b.String()
}
