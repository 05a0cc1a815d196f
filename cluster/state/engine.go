package state

import (
	"fmt"
	"slices"

	"github.com/holdfast-io/holdfast/internal/block"
)

func (s *State) startEngine(c StartEngine) (*State, Result) {
	v, ok := s.Volume(c.Volume)
	if !ok || v.Deleting {
		return s.refuse(fmt.Errorf("start engine of volume %s: %w", c.Volume, block.ErrNotFound))
	}
	if c.Start.IsZero() || c.Node.IsZero() || c.Attachment.IsZero() == c.NewAttachment.IsZero() {
		return s.refuse(fmt.Errorf("start engine of volume %s: a start, a node and one attachment must be set: %w", c.Volume, block.ErrInvalid))
	}
	if v.View.Start == c.Start && v.View.Owner == c.Node {
		return s, volumeResult(v)
	}
	if err := mayStart(&v, c); err != nil {
		result := volumeResult(v)
		result.Err = fmt.Errorf("start engine of volume %s on node %s: %w", c.Volume, c.Node, err)
		return s, result
	}
	v = v.clone()
	if !v.Reverting() {
		v.Revert = nil
	}
	v.View.Epoch++
	v.View.Owner = c.Node
	v.View.Start = c.Start
	if c.Attachment.IsZero() {
		v.View.Attachment = c.NewAttachment
		v.Yields = c.Borrow && c.Yield
	}
	return s.commit(&v), volumeResult(v)
}

// mayStart says why an engine may not start, nil if it may.
//
// Rule 2 (attachments and epochs): a fresh device makes an attachment only while
// there is none; another start of an engine names the attachment that is alive and
// the last epoch it has seen, and goes above it. A repeated start is recognised by
// its random ID before, so that two starts never share an epoch. Devices of another
// attachment are disconnected by the engine's host.
func mayStart(v *Volume, c StartEngine) error {
	fresh := c.Attachment.IsZero()
	switch {
	case !v.Ready():
		return fmt.Errorf("%d replicas are still being made: %w", len(v.Pending), block.ErrUnavailable)
	case c.Borrow && !v.Published.IsZero():
		return fmt.Errorf("it is published to node %s: %w", v.Published, block.ErrInUse)
	case c.Borrow && !fresh:
		return fmt.Errorf("attachment %s cannot be borrowed again: %w", c.Attachment, block.ErrDetached)
	case fresh && v.Published.IsZero() && v.Borrowed():
		return fmt.Errorf("node %s has borrowed it: %w", v.View.Owner, block.ErrInUse)
	case fresh && v.Published != c.Node && !v.Published.IsZero():
		return fmt.Errorf("it is published to node %s: %w", v.Published, block.ErrInUse)
	case v.Published != c.Node && !c.Borrow:
		return fmt.Errorf("it is not published there: %w", block.ErrDetached)
	case fresh && !v.View.Attachment.IsZero():
		return fmt.Errorf("attachment %s is alive: %w", v.View.Attachment, block.ErrInUse)
	case !fresh && v.View.Attachment != c.Attachment:
		return fmt.Errorf("attachment %s: %w", c.Attachment, block.ErrDetached)
	case v.View.Epoch != c.Epoch:
		return fmt.Errorf("epoch %d was seen, it is %d: %w", c.Epoch, v.View.Epoch, block.ErrConflict)
	}
	return nil
}

func (s *State) propose(p block.Proposal) (*State, Result) {
	v, ok := s.Volume(p.Volume)
	if !ok || v.Deleting {
		return s.refuse(fmt.Errorf("propose view of volume %s: %w", p.Volume, block.ErrNotFound))
	}
	conflict := volumeResult(v)
	conflict.Verdict = block.Conflict
	if !current(&v.View, p) {
		return s, conflict
	}
	err := checkProposal(&v, p)
	if err == nil {
		err = s.checkTaken(&v, p.Snapshot)
	}
	if err != nil {
		conflict.Err = fmt.Errorf("propose view of volume %s: %w", p.Volume, err)
		return s, conflict
	}
	v = v.clone()
	amend(&v.View, p)
	v.retire()
	if v.View.Size >= v.GrowTo {
		v.GrowTo = 0
	}
	next := s.taken(&v, p.Snapshot).commit(&v)
	result := volumeResult(v)
	result.Verdict = block.Committed
	return next, result
}

// current reports whether a proposal was made on the committed view.
//
// Rule 3 (one truth): a view changes by compare-and-set on epoch and revision, and
// only for the engine of the current epoch. That engine relies on the new view after
// every member holds it (settled), and stops at a member that holds a higher one.
func current(view *block.View, p block.Proposal) bool {
	return !view.Owner.IsZero() && view.Epoch == p.Epoch && view.Revision == p.Revision
}

// amend carries out a proposal on a view whose revision is about to rise.
func amend(view *block.View, p block.Proposal) {
	for _, i := range p.Incarnations {
		view.Member(i.Replica).Incarnation = i.Incarnation
	}
	for _, id := range p.Remove {
		m := view.Member(id)
		m.InSync = false
		m.Removed = p.Revision + 1
		view.NotWaitedOut = true
	}
	for _, id := range p.Admit {
		m := view.Member(id)
		m.InSync = true
		m.Removed = 0
	}
	if p.WaitedOut {
		view.NotWaitedOut = false
	}
	if p.Snapshot != nil {
		view.Snapshots = append(view.Snapshots, *p.Snapshot)
	}
	if p.Size != 0 {
		view.Size = p.Size
	}
	if p.EndAttachment {
		detach(view)
	}
}

func checkProposal(v *Volume, p block.Proposal) error {
	for i, id := range p.Remove {
		if m := v.View.Member(id); m == nil || !m.InSync || slices.Contains(p.Remove[:i], id) {
			return fmt.Errorf("remove replica %s, which is not in sync: %w", id, block.ErrInvalid)
		}
	}
	if len(p.Remove) >= v.View.InSync() {
		return fmt.Errorf("remove all %d in-sync replicas: %w", len(p.Remove), block.ErrInvalid)
	}
	for i, id := range p.Admit {
		if m := v.View.Member(id); m == nil || m.InSync || v.IsPending(id) || slices.Contains(p.Admit[:i], id) {
			return fmt.Errorf("admit replica %s, which cannot be: %w", id, block.ErrInvalid)
		}
	}
	for _, i := range p.Incarnations {
		if v.View.Member(i.Replica) == nil {
			return fmt.Errorf("record incarnation of replica %s, which is unknown: %w", i.Replica, block.ErrInvalid)
		}
	}
	// The intent comes first (rule 27), so that an engine that dies after some members
	// have grown leaves behind what the next one has to finish.
	if p.Size != 0 && (p.Size <= v.View.Size || p.Size > v.GrowTo || p.Size%block.BlockSize != 0) {
		return fmt.Errorf("grow from %d to %d bytes, asked for are %d: %w", v.View.Size, p.Size, v.GrowTo, block.ErrInvalid)
	}
	return nil
}

func (s *State) endAttachment(c EndAttachment) (*State, Result) {
	v, ok := s.Volume(c.Volume)
	if !ok {
		return s.refuse(fmt.Errorf("end attachment %s of volume %s: %w", c.Attachment, c.Volume, block.ErrNotFound))
	}
	if c.Attachment.IsZero() || v.View.Attachment != c.Attachment {
		return s, volumeResult(v)
	}
	v = v.clone()
	detach(&v.View)
	return s.commit(&v), volumeResult(v)
}

// detach leaves the view without an engine. The epoch stays: it is the fence
// that the next one goes above.
func detach(view *block.View) {
	view.Attachment = block.AttachmentID{}
	view.Owner = block.NodeID{}
	view.Start = block.StartID{}
}
