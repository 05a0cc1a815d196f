package core

import (
	"errors"
	"fmt"
	"strings"

	"github.com/holdfast-io/holdfast/internal/block"
)

// describe is the line for an effect, or nothing.
func describe(e *Effect) string {
	who := "?"
	if e.Replica != (block.ReplicaID{}) {
		who = name(int(e.Replica.ID[0]) - 1)
	}
	switch e.Kind {
	case EffectConnect:
		return fmt.Sprintf("%s: open session %d", who, e.Request.Session)
	case EffectDisconnect:
		return who + ": close"
	case EffectSend:
		return who + ": " + describeRequest(&e.Request)
	case EffectPropose:
		return "propose" + describeProposal(&e.Proposal)
	case EffectComplete:
		line := fmt.Sprintf("done %d%s", e.Tag, describeError(e.Err))
		if e.Buf != nil {
			line += " " + letters(e.Buf.Data)
		}
		return line
	case EffectServing:
		return "serving"
	case EffectStopped:
		return "stopped" + describeError(e.Err)
	case EffectNotice:
		return describeNotice(&e.Notice)
	case EffectCut:
		return "cut " + snapshotName(e.Snapshot) + describeError(e.Err)
	case EffectResized:
		return "resized " + size(e.Size)
	case EffectScrubbed:
		return describeScrubbed(&e.Scrubbed)
	default:
		return fmt.Sprintf("effect %d", e.Kind)
	}
}

func describeScrubbed(s *Scrubbed) string {
	line := "scrubbed to "
	if s.Done {
		line = "scrub done at "
	}
	line += size(s.Offset)
	for _, id := range s.Covered {
		line += " " + nameOf(id)
	}
	return line
}

func describeRequest(r *block.Request) string {
	var b strings.Builder
	switch r.Op {
	case block.OpRead:
		b.WriteString("read ")
	case block.OpWrite:
		b.WriteString("write " + letters(r.Buf.Data) + " ")
	case block.OpZero:
		b.WriteString("zero ")
	case block.OpFlush:
		fmt.Fprintf(&b, "flush %d", r.Flush.N)
	case block.OpPing:
		b.WriteString("ping")
	case block.OpUpdate:
		b.WriteString("store" + describeUpdate(r.Update))
	case block.OpHash:
		b.WriteString("hash ")
	case block.OpChanged:
		b.WriteString("changed ")
	}
	if r.Length > 0 {
		b.WriteString(size(r.Offset) + "+" + size(r.Length))
	}
	if !r.Snapshot.IsZero() {
		b.WriteString(" of " + snapshotName(r.Snapshot))
	}
	if !r.Since.IsZero() {
		b.WriteString(" since " + snapshotName(r.Since))
	}
	if r.Flags&block.FlagDurable != 0 {
		b.WriteString(" durably")
	}
	if r.Flags&block.FlagRepair != 0 {
		b.WriteString(" repair")
	}
	if r.Flags&block.FlagAcceptSuspect != 0 {
		b.WriteString(" accepting")
	}
	if r.Flags&block.FlagResync != 0 && r.Op != block.OpHash {
		b.WriteString(" resync")
	}
	return b.String()
}

func describeUpdate(u *block.Update) string {
	var b strings.Builder
	if u.View != nil {
		fmt.Fprintf(&b, " view %d", u.View.Revision)
	}
	sets := func(what string, list []block.DirtySet) {
		for _, d := range list {
			fmt.Fprintf(&b, " %s %s%s", what, nameOf(d.Replica), regions(d.Regions))
		}
	}
	sets("dirty", u.SetDirty)
	sets("add dirty", u.AddDirty)
	sets("clean", u.ClearDirty)
	for _, id := range u.DropDirty {
		b.WriteString(" drop " + nameOf(id))
	}
	if u.ClearLog != nil {
		b.WriteString(" clear log" + regions(u.ClearLog))
	}
	if u.KeepHead {
		b.WriteString(" keep head")
	}
	for _, cut := range u.Cuts {
		b.WriteString(" cut " + snapshotName(cut.Snapshot))
		if cut.Target {
			b.WriteString(" as target")
		}
	}
	for _, id := range u.ValidCuts {
		b.WriteString(" valid " + snapshotName(id))
	}
	for _, id := range u.DropCuts {
		b.WriteString(" forget " + snapshotName(id))
	}
	if u.Grow != 0 {
		b.WriteString(" grow " + size(u.Grow))
	}
	return b.String()
}

func snapshotName(id block.SnapshotID) string {
	if id == block.KeptHead {
		return "head"
	}
	return fmt.Sprintf("S%d", id.ID[6])
}

func describeProposal(p *block.Proposal) string {
	var b strings.Builder
	for _, id := range p.Remove {
		b.WriteString(" remove " + nameOf(id))
	}
	for _, id := range p.Admit {
		b.WriteString(" admit " + nameOf(id))
	}
	for _, in := range p.Incarnations {
		if len(p.Admit) == 0 {
			b.WriteString(" incarnation " + nameOf(in.Replica))
		}
	}
	if p.WaitedOut {
		b.WriteString(" waited out")
	}
	if p.EndAttachment {
		b.WriteString(" end attachment")
	}
	if p.Snapshot != nil {
		b.WriteString(" snapshot " + snapshotName(p.Snapshot.ID))
	}
	if p.Size != 0 {
		b.WriteString(" size " + size(p.Size))
	}
	if b.Len() == 0 {
		return " nothing"
	}
	return b.String()
}

// describeNotice leaves progress out: its steps are a matter of taste.
func describeNotice(n *Notice) string {
	switch n.Kind {
	case NoticeMemberLost:
		return "lost " + nameOf(n.Replica) + describeError(n.Err)
	case NoticeResyncStarted:
		return fmt.Sprintf("resync %s %s", nameOf(n.Replica), size(n.Bytes))
	case NoticeNoRoom:
		return fmt.Sprintf("no room %s %s", nameOf(n.Replica), size(n.Bytes))
	case NoticeAdmitted:
		return fmt.Sprintf("admitted %s, %s copied", nameOf(n.Replica), size(n.Copied))
	case NoticeRepaired:
		return fmt.Sprintf("repaired %s of %s at %s%s", size(n.Bytes), nameOf(n.Replica), place(n), describeError(n.Err))
	case NoticeUnreadable:
		return fmt.Sprintf("unreadable %s at %s", nameOf(n.Replica), place(n))
	case NoticeFrozen:
		return "frozen" + describeError(n.Err)
	case NoticeThawed:
		return "thawed"
	case NoticeDiffer:
		return fmt.Sprintf("differ %s at %s%s", nameOf(n.Replica), place(n), describeError(n.Err))
	default:
		return ""
	}
}

func place(n *Notice) string {
	if n.Snapshot.IsZero() {
		return size(n.Offset)
	}
	return size(n.Offset) + " of " + snapshotName(n.Snapshot)
}

func describeError(err error) string {
	if err == nil {
		return ""
	}
	for _, sentinel := range block.Sentinels() {
		if errors.Is(err, sentinel) {
			return ": " + sentinel.Error()
		}
	}
	return ": " + err.Error()
}

func nameOf(id block.ReplicaID) string { return name(int(id.ID[0]) - 1) }

// size prints a number of bytes in the largest unit that divides it.
func size(n int64) string {
	switch {
	case n != 0 && n%mib == 0:
		return fmt.Sprintf("%dM", n/mib)
	case n != 0 && n%kib == 0:
		return fmt.Sprintf("%dK", n/kib)
	default:
		return fmt.Sprint(n)
	}
}

func regions(s block.Regions) string {
	var list []string
	for r := range s.All() {
		list = append(list, fmt.Sprint(r))
	}
	return "{" + strings.Join(list, " ") + "}"
}

// letters prints content with each run of equal bytes as one letter; zeros are
// a dot.
func letters(data []byte) string {
	var b strings.Builder
	for i, c := range data {
		if i > 0 && c == data[i-1] {
			continue
		}
		if c == 0 {
			c = '.'
		}
		b.WriteByte(c)
	}
	return "'" + b.String() + "'"
}
