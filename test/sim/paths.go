package sim

import (
	"errors"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// paths counts how often each fault and each path of the protocol was taken, so
// that a run that never took one is seen to prove nothing about it.
type paths struct {
	counts map[string]int
}

// faultPrefix begins the names of faults.
const faultPrefix = "fault: "

func newPaths() *paths { return &paths{counts: make(map[string]int)} }

func (p *paths) count(name string) { p.counts[name]++ }

// add takes over the counts of another run.
func (p *paths) add(q *paths) {
	for name, n := range q.counts {
		p.counts[name] += n
	}
}

// expectedPaths are what a set of runs must have taken: every fault, every guard of
// a rule, and other steps of the protocol.
func expectedPaths() []string {
	expected := []string{
		"attach: begins", "attach: serves", "attach: start lands late",
		"attach: device of an ended attachment removed", "detach: asked", "detach: clean", "detach: forced", "engine: ended by force",
		"raft: command late", "raft: answer lost", "raft: command lost",
		"raft: leader unreachable", "raft: lost without quorum",
		"view: removal", "view: admission",
		"update: dirty set begins", "update: dirty shrinks", "update: dirty sets dropped",
		"resync: started", "resync: hash", "resync: hash of one extent", "resync: admitted",
		"link lost", "answer: no space", "answer: checksum mismatch", "answer: disk failed",
		"hash: suspect blocks", "member lost", "frozen", "thawed",
		"request: read", "request: write", "request: zero", "request: flush", "request: forced write",
		"completed: detached", "completed: stale epoch", "completed: input/output error",
		"replacement: begun", "replacement: done", "replacement: given up",
		"scrub: asked for", "scrub: done", "repair: damage that nobody read", "repair: damage of a snapshot",
	}
	for _, r := range rules() {
		expected = append(expected, r.paths...)
	}
	for _, f := range DestructiveFaults() {
		expected = append(expected, faultPrefix+f.name)
	}
	return expected
}

// event counts what reaches a core.
func (p *paths) event(_ *host, ev *core.Event) {
	switch ev.Kind {
	case core.EventRequest:
		p.count("request: " + requestName(&ev.Request))
		if r := &ev.Request; r.Kind == core.ZeroRequest && (r.Offset|r.Length)%block.BlockSize != 0 {
			p.count("request: zero of a part of a block")
		}
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
	case r.Kind == core.ChangedRequest:
		return "changed"
	case r.ForceUnitAccess:
		return "forced write"
	}
	return "write"
}

// effect counts what a core does.
func (p *paths) effect(h *host, ef *core.Effect) {
	if ef.Kind != core.EffectNotice {
		return
	}
	switch ef.Notice.Kind {
	case core.NoticeMemberLost:
		p.count("member lost")
	case core.NoticeResyncStarted:
		p.count("resync: started")
	case core.NoticeResyncProgress:
		p.count("resync: progress")
	case core.NoticeAdmitted:
		p.count("resync: admitted")
	case core.NoticeRepaired:
		switch {
		case !ef.Notice.Snapshot.IsZero():
			p.count("repair: damage of a snapshot")
		case h.corrupt:
			p.count("repair: after a read")
		case ef.Notice.Err != nil:
			p.count("repair: damage that nobody read")
		default:
			p.count("repair: divergent")
		}
		h.corrupt = false
	case core.NoticeFrozen:
		p.count("frozen")
	case core.NoticeThawed:
		p.count("thawed")
	case core.NoticeDiffer:
		p.count("replicas differ, or nobody has it intact")
	}
}

// stopped counts how engines end.
func (p *paths) stopped(h *host) {
	switch {
	case h.why == nil:
		p.count("detach: clean")
	case errors.Is(h.why, block.ErrStaleEpoch):
		p.count("engine: fenced")
	default:
		p.count("engine: ended by force")
	}
}

// request counts what reaches a replica.
func (p *paths) request(req *block.Request) {
	if req.Flags&block.FlagResync != 0 && req.Flags&block.FlagRepair == 0 {
		switch req.Op {
		case block.OpWrite, block.OpZero:
			p.count("resync: copy")
		case block.OpHash:
			p.count("resync: hash")
			if req.Length == block.ExtentSize {
				p.count("resync: hash of one extent")
			}
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
	empty := len(u.SetDirty)+len(u.AddDirty)+len(u.ClearDirty)+len(u.DropDirty) == 0 && u.ClearLog.Empty() && describeCuts(u) == ""
	p.cutChanges(u)
	switch {
	case u.View != nil:
		p.count("update: view")
	case empty || len(u.SetDirty)+len(u.ValidCuts) > 0:
		p.count("update: takeover")
	}
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

// cutChanges counts what an update does to cuts and to the size.
func (p *paths) cutChanges(u *block.Update) {
	for _, c := range u.Cuts {
		if c.Target {
			p.count("update: cut of a target")
		} else {
			p.count("update: cut")
		}
	}
	if u.KeepHead {
		p.count("update: head is kept")
	}
	if len(u.ValidCuts) > 0 {
		p.count("update: cuts of a target are valid")
	}
	if len(u.DropCuts) > 0 {
		p.count("update: cuts are dropped")
	}
	if u.Grow != 0 {
		p.count("update: replica grows")
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
		{block.ErrNoSpace, "answer: no space"},
		{block.ErrChecksum, "answer: checksum mismatch"},
		{block.ErrDiskFailed, "answer: disk failed"},
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
		p.count("view: attachment ended, all lost")
	}
	if len(prop.Remove)+len(prop.Admit)+len(prop.Incarnations) == 0 && !prop.WaitedOut && !prop.EndAttachment &&
		prop.Snapshot == nil && prop.Size == 0 {
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
