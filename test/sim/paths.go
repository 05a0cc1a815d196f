package sim

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// paths counts how often each fault and each path of the protocol was taken, so
// that a run that never took one is seen to prove nothing about it.
type paths struct {
	counts map[string]int
}

func newPaths() *paths { return &paths{counts: make(map[string]int)} }

func (p *paths) count(name string) { p.counts[name]++ }

// add takes over the counts of another run.
func (p *paths) add(q *paths) {
	for name, n := range q.counts {
		p.counts[name] += n
	}
}

// print writes a table, sorted by name.
func (p *paths) print(out io.Writer) {
	names := make([]string, 0, len(p.counts))
	for name := range p.counts {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(out, "%8d  %s\n", p.counts[name], name)
	}
}

// missing lists the expected paths that were never taken.
func (p *paths) missing(expected []string) []string {
	var out []string
	for _, name := range expected {
		if p.counts[name] == 0 {
			out = append(out, name)
		}
	}
	return out
}

// expectedPaths are what a set of runs must have taken.
func expectedPaths() []string {
	return []string{
		"view: removal", "view: admission", "view: waited out", "view: attachment ended", "view: conflict",
		"raft: outcome unknown", "raft: command late", "raft: answer lost", "raft: command lost",
		"update: dirty set begins", "update: dirty grows", "update: dirty shrinks", "update: log cleared",
		"update: dirty sets dropped",
		"resync: copy", "resync: hash", "door: stale epoch", "door: stale session",
		"notice: member lost", "notice: resync started", "notice: admitted", "notice: frozen", "notice: thawed",
		"engine start", "engine serves", "attachment: moved", "detach",
		"request: read", "request: write", "request: zero", "request: flush", "request: forced write",
		"completed: detached",
	}
}

// event counts what reaches a core.
func (p *paths) event(_ *host, ev *core.Event) {
	switch ev.Kind {
	case core.EventRequest:
		p.count("request: " + requestName(&ev.Request))
	case core.EventLost:
		p.count("link lost")
	case core.EventOutcome:
		if ev.Verdict == block.Conflict {
			p.count("view: conflict")
		}
	}
}

func requestName(r *core.Request) string {
	switch {
	case r.Kind == core.ReadRequest:
		return "read"
	case r.Kind == core.ZeroRequest:
		return "zero"
	case r.Kind == core.FlushRequest:
		return "flush"
	case r.ForceUnitAccess:
		return "forced write"
	}
	return "write"
}

// effect counts what a core does.
func (p *paths) effect(_ *host, ef *core.Effect) {
	if ef.Kind != core.EffectNotice {
		return
	}
	names := map[core.NoticeKind]string{
		core.NoticeMemberLost: "member lost", core.NoticeResyncStarted: "resync started",
		core.NoticeResyncProgress: "resync progress", core.NoticeAdmitted: "admitted",
		core.NoticeRepaired: "repaired", core.NoticeFrozen: "frozen", core.NoticeThawed: "thawed",
		core.NoticeDiffer: "differ",
	}
	p.count("notice: " + names[ef.Notice.Kind])
}

// request counts what reaches a replica.
func (p *paths) request(req *block.Request) {
	if req.Flags&block.FlagResync != 0 {
		switch req.Op {
		case block.OpWrite, block.OpZero:
			p.count("resync: copy")
		case block.OpHash:
			p.count("resync: hash")
		}
	}
	if req.Flags&block.FlagAcceptSuspect != 0 {
		p.count("suspect bytes accepted")
	}
	if req.Op == block.OpUpdate {
		p.update(req.Update)
	}
}

func (p *paths) update(u *block.Update) {
	if len(u.SetDirty) > 0 {
		p.count("update: dirty set begins")
	}
	if len(u.AddDirty) > 0 {
		p.count("update: dirty grows")
	}
	if len(u.ClearDirty) > 0 {
		p.count("update: dirty shrinks")
	}
	if len(u.DropDirty) > 0 {
		p.count("update: dirty sets dropped")
	}
	if !u.ClearLog.Empty() {
		p.count("update: log cleared")
	}
}

// reply counts what a replica answers.
func (p *paths) reply(rep *block.Reply) {
	for _, e := range []struct {
		err  error
		name string
	}{
		{block.ErrStaleEpoch, "door: stale epoch"},
		{block.ErrStaleSession, "door: stale session"},
		{block.ErrNoSpace, "no space"},
		{block.ErrChecksum, "checksum mismatch"},
		{block.ErrDiskFailed, "disk failed"},
	} {
		if errors.Is(rep.Err, e.err) {
			p.count(e.name)
		}
	}
	for _, h := range rep.Hashes {
		if h.Bad != 0 {
			p.count("hash: bad blocks")
		}
		if h.Suspect != 0 {
			p.count("hash: suspect blocks")
		}
	}
}

// committed counts the changes of a view.
func (p *paths) committed(prop *block.Proposal, before, after *block.View) {
	if len(prop.Remove) > 0 {
		p.count("view: removal")
	}
	if len(prop.Admit) > 0 {
		p.count("view: admission")
	}
	if prop.WaitedOut && before.NotWaitedOut {
		p.count("view: waited out")
	}
	if prop.EndAttachment {
		p.count("view: attachment ended")
	}
	if len(prop.Remove)+len(prop.Admit)+len(prop.Incarnations) == 0 && !prop.WaitedOut && !prop.EndAttachment {
		p.count("view: no-op")
	}
	if after.InSync() == 1 {
		p.count("view: last member")
	}
}

// completed counts the answers to clients.
func (p *paths) completed(_ *operation, err error) {
	for _, e := range []struct {
		err  error
		name string
	}{
		{block.ErrDetached, "completed: detached"},
		{block.ErrStaleEpoch, "completed: stale epoch"},
		{block.ErrIO, "completed: input/output error"},
	} {
		if errors.Is(err, e.err) {
			p.count(e.name)
		}
	}
}
