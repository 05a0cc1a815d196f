package sim

import (
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
)

// opName is a message's name in the trace.
func opName(op block.Op) string {
	names := [...]string{block.OpOpen: "open", block.OpRead: "read", block.OpWrite: "write", block.OpZero: "zero",
		block.OpFlush: "flush", block.OpPing: "ping", block.OpUpdate: "update", block.OpHash: "hash",
		block.OpChanged: "changed"}
	if int(op) < len(names) {
		return names[op]
	}
	return fmt.Sprintf("op %d", op)
}

func (w *World) describeRequest(req *block.Request) string {
	text := opName(req.Op)
	switch req.Op {
	case block.OpRead, block.OpWrite, block.OpZero, block.OpHash, block.OpChanged:
		text += fmt.Sprintf(" [%d,+%d)", req.Offset, req.Length)
		if req.Buf != nil && len(req.Buf.Data) >= block.SectorSize {
			text += " " + describeBytes(req.Buf.Data)
		}
		if !req.Snapshot.IsZero() {
			text += " of " + req.Snapshot.Short()
		}
		if !req.Since.IsZero() {
			text += " since " + req.Since.Short()
		}
	case block.OpFlush:
		text += fmt.Sprintf(" (%d,%d)", req.Flush.Epoch, req.Flush.N)
	case block.OpUpdate:
		text += w.describeUpdate(req.Update)
	}
	if req.Flags&block.FlagResync != 0 {
		text += " resync"
	}
	if req.Flags&block.FlagDurable != 0 {
		text += " durably"
	}
	if req.Flags&block.FlagRepair != 0 {
		text += " repair"
	}
	if req.Flags&block.FlagAcceptSuspect != 0 {
		text += " accept-suspect"
	}
	return text
}

// describeBytes names the first and the last write of some bytes.
func describeBytes(data []byte) string {
	first, last := headerValue(data), headerValue(data[len(data)-block.SectorSize:])
	if first == last {
		return fmt.Sprintf("value %d", first)
	}
	return fmt.Sprintf("values %d..%d", first, last)
}

func (w *World) describeUpdate(u *block.Update) string {
	text := ""
	if u.View != nil {
		text += " view (" + w.describeView(u.View) + ")"
	}
	for _, list := range []struct {
		name string
		sets []block.DirtySet
	}{{"set", u.SetDirty}, {"add", u.AddDirty}, {"clear", u.ClearDirty}} {
		for _, d := range list.sets {
			text += fmt.Sprintf(" %s-dirty %s@%d %v", list.name, w.replicaName(d.Replica), d.Removal, d.Regions)
		}
	}
	for _, id := range u.DropDirty {
		text += " drop-dirty " + w.replicaName(id)
	}
	if !u.ClearLog.Empty() {
		text += fmt.Sprintf(" clear-log %v", u.ClearLog)
	}
	return text + describeCuts(u)
}

// describeCuts is what an update does to cuts and to the size.
func describeCuts(u *block.Update) string {
	text := ""
	if u.KeepHead {
		text += " keep-head"
	}
	for _, c := range u.Cuts {
		text += " cut " + c.Snapshot.Short()
		if c.Target {
			text += " as target"
		}
	}
	for _, id := range u.ValidCuts {
		text += " valid " + id.Short()
	}
	for _, id := range u.DropCuts {
		text += " drop " + id.Short()
	}
	if u.Grow != 0 {
		text += fmt.Sprintf(" grow %d", u.Grow)
	}
	return text
}

// replicaName is a replica for the trace: its volume and its letter.
func (w *World) replicaName(id block.ReplicaID) string {
	for _, v := range w.volumes {
		for i, r := range v.replicas {
			if r == id {
				return fmt.Sprintf("%s/%c", v.name, 'A'+i)
			}
		}
	}
	return id.Short()
}

func (w *World) describeView(v *block.View) string {
	text := fmt.Sprintf("epoch %d revision %d in sync", v.Epoch, v.Revision)
	for _, m := range v.Replicas {
		if m.InSync {
			text += " " + w.replicaName(m.ID)
		}
	}
	if v.NotWaitedOut {
		text += " not-waited-out"
	}
	if v.Attachment.IsZero() {
		text += " no-attachment"
	}
	return text
}

func (w *World) describeProposal(p *block.Proposal) string {
	text := fmt.Sprintf("epoch %d revision %d", p.Epoch, p.Revision)
	for _, r := range p.Remove {
		text += " remove " + w.replicaName(r)
	}
	for _, r := range p.Admit {
		text += " admit " + w.replicaName(r)
	}
	if len(p.Incarnations) > 0 {
		text += fmt.Sprintf(" incarnations %d", len(p.Incarnations))
	}
	if p.WaitedOut {
		text += " waited-out"
	}
	if p.EndAttachment {
		text += " end-attachment"
	}
	if p.Snapshot != nil {
		text += " snapshot " + p.Snapshot.ID.Short()
	}
	if p.Size != 0 {
		text += fmt.Sprintf(" size %d", p.Size)
	}
	return text
}
