package engine

import (
	"sync"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// findingsMax bounds the findings that wait to be recorded; the newest are kept.
const findingsMax = 16

// Finding is a place of a volume that was not as it should be.
type Finding struct {
	// Kind is core.NoticeRepaired for damage that is a peer's bytes now,
	// core.NoticeUnreadable for what nobody in sync has intact, and core.NoticeDiffer.
	Kind    core.NoticeKind
	Replica block.ReplicaID
	Disk    block.DiskID
	// Snapshot is the oldest that has these bytes, zero for the head.
	Snapshot block.SnapshotID
	Span     block.Span
}

// Found sums up findings, in bytes.
type Found struct{ Repaired, Lost, Differing int64 }

// watched is what an engine has verified and found, until somebody records it.
type watched struct {
	// wake holds a token while there is something new.
	wake chan struct{}

	mu       sync.Mutex
	scrubbed core.Scrubbed
	told     int64 // the offset at the last token
	found    Found
	findings []Finding
}

// tellStep is how far a walk comes between two tokens, in bytes.
const tellStep = 16 << 20

func (w *watched) init() { w.wake = make(chan struct{}, 1) }

// begin forgets what an earlier walk has come to.
func (w *watched) begin(offset int64, covered []block.ReplicaID, found Found) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.scrubbed = core.Scrubbed{Offset: offset, Covered: covered}
	w.told, w.found = offset, found
}

func (w *watched) progress(s core.Scrubbed) {
	w.mu.Lock()
	w.scrubbed = s
	far := s.Done || s.Offset-w.told >= tellStep
	if far {
		w.told = s.Offset
	}
	w.mu.Unlock()
	if far {
		w.tell()
	}
}

// look is how far the walk is, and what was found since it began.
func (w *watched) look() (core.Scrubbed, Found) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.scrubbed, w.found
}

func (w *watched) tell() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// findingOf is what a notice says of the bytes of a disk, if it does.
func findingOf(n core.Notice) (Finding, bool) {
	f := Finding{Kind: n.Kind, Replica: n.Replica, Disk: n.Disk, Snapshot: n.Snapshot, Span: block.Span{Offset: n.Offset, Length: n.Bytes}}
	switch n.Kind {
	case core.NoticeRepaired:
		return f, n.Err != nil
	case core.NoticeUnreadable:
		return f, true
	case core.NoticeDiffer:
		return f, n.Err == nil
	default:
		return f, false
	}
}

func (w *watched) notice(n core.Notice) {
	f, ok := findingOf(n)
	if !ok {
		return
	}
	w.mu.Lock()
	switch f.Kind {
	case core.NoticeRepaired:
		w.found.Repaired += f.Span.Length
	case core.NoticeUnreadable:
		w.found.Lost += f.Span.Length
	case core.NoticeDiffer:
		w.found.Differing += f.Span.Length
	}
	w.findings = append(w.findings, f)
	if extra := len(w.findings) - findingsMax; extra > 0 {
		w.findings = append(w.findings[:0], w.findings[extra:]...)
	}
	w.mu.Unlock()
	w.tell()
}

// take gives the findings that wait.
func (w *watched) take() []Finding {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.findings
	w.findings = nil
	return list
}

// putBack keeps findings that could not be recorded.
func (w *watched) putBack(list []Finding) {
	w.mu.Lock()
	defer w.mu.Unlock()
	list = append(list, w.findings...)
	w.findings = list[max(0, len(list)-findingsMax):]
}

// scrub begins a walk or, with nil, ends the one under way.
func (e *Engine) scrub(asked *core.Scrub) {
	e.post(job{event: core.Event{Kind: core.EventScrub, Scrub: asked}})
}
