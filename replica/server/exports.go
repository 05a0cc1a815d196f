package server

import (
	"context"
	"fmt"
	"strings"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
	"github.com/holdfast-io/holdfast/replica/store"
)

// Names of exports: a prefix and an ID.
const (
	replicaPrefix  = "replica/"
	snapshotPrefix = "snapshot/"
	// alonePrefix is that of a snapshot as one replica has it, for other hosts: what is
	// damaged there is not looked for elsewhere, or two could ask each other for ever.
	alonePrefix = "copy/"
)

// AloneExport is the name under which other hosts read a snapshot of this one's disks.
func AloneExport(id block.SnapshotID) string { return alonePrefix + id.String() }

// ContextChanged comes before the ID of a snapshot in the name of the meta context
// that tells what differs from it.
const ContextChanged = "holdfast:changed/"

// StateChanged is the flag of ContextChanged: these bytes may differ.
const StateChanged = 1

// Mapper is what a Replica may be besides: one that knows without reading them where
// it holds data, and what differs between its cuts. Without it an export calls
// everything data, and offers no ContextChanged. Spans are of at most statusSpan
// bytes; both may wait for the disk.
type Mapper interface {
	// ExtentsOf tells where a cut, or the head for zero, holds data and where not.
	ExtentsOf(snapshot block.SnapshotID, span block.Span) ([]store.Extent, error)
	// Changed lists, in order, what may differ between an older cut and a younger.
	Changed(from, to block.SnapshotID, span block.Span) ([]store.Extent, error)
}

// statusSpan bounds what one answer about the state of an export looks at, in
// bytes; a client asks again for the rest.
const statusSpan = 1 << 30

// Exports are the read-only exports of the host: every committed snapshot that a
// replica here holds valid, and every raw replica.
func (h *Host) Exports() nbd.Exports { return exports{host: h} }

type exports struct{ host *Host }

// List implements nbd.Exports.
func (e exports) List(context.Context) []string {
	var names []string
	seen := map[block.SnapshotID]bool{}
	doors := e.host.allDoors()
	for _, d := range doors {
		for _, s := range e.host.snapshotsOf(d) {
			if !seen[s.Snapshot] {
				seen[s.Snapshot] = true
				names = append(names, snapshotPrefix+s.Snapshot.String())
			}
		}
	}
	for _, d := range doors {
		names = append(names, replicaPrefix+d.replica.ID().String())
	}
	return names
}

// Open implements nbd.Exports.
func (e exports) Open(_ context.Context, name string) (nbd.Export, error) {
	if text, is := strings.CutPrefix(name, snapshotPrefix); is {
		if id, err := block.ParseID(text); err == nil {
			e.host.mu.Lock()
			elsewhere := e.host.elsewhere
			e.host.mu.Unlock()
			return e.openSnapshot(name, block.SnapshotID{ID: id}, elsewhere)
		}
	}
	if text, is := strings.CutPrefix(name, alonePrefix); is {
		if id, err := block.ParseID(text); err == nil {
			return e.openSnapshot(name, block.SnapshotID{ID: id}, nil)
		}
	}
	text, ours := strings.CutPrefix(name, replicaPrefix)
	id, err := block.ParseID(text)
	if !ours || err != nil {
		return nil, fmt.Errorf("export %q: %w", name, block.ErrNotFound)
	}
	e.host.mu.Lock()
	d := e.host.doors[block.ReplicaID{ID: id}]
	e.host.mu.Unlock()
	if d == nil {
		return nil, fmt.Errorf("export %q: %w", name, block.ErrNotFound)
	}
	return &export{name: name, door: d, size: d.replica.Size()}, nil
}

func (e exports) openSnapshot(name string, id block.SnapshotID, elsewhere Elsewhere) (nbd.Export, error) {
	for _, d := range e.host.allDoors() {
		list := e.host.snapshotsOf(d)
		for i, s := range list {
			if s.Snapshot == id {
				return &export{name: name, door: d, snapshot: id, size: s.Size, older: list[:i], mending: newMending(elsewhere)}, nil
			}
		}
	}
	return nil, fmt.Errorf("export %q: no replica here holds it whole: %w", name, block.ErrNotFound)
}

// snapshotsOf are the cuts of a door's replica that may be shown, oldest first.
//
// Rules 24 and 25: only what is committed, as far as the replica was told, and holds
// every byte. A replica that Raft does not know shows none.
func (h *Host) snapshotsOf(d *door) []block.Cut {
	h.mu.Lock()
	quarantined := h.quarantined[d.replica.ID()]
	h.mu.Unlock()
	if quarantined {
		return nil
	}
	view := d.replica.View()
	var list []block.Cut
	for _, c := range d.replica.Cuts() {
		if c.Valid && !c.Kept && view.Snapshot(c.Snapshot) != nil {
			list = append(list, c)
		}
	}
	return list
}

// export shows one replica as it lies on its disk: a snapshot, or the head as it is
// just now.
type export struct {
	name string
	door *door
	// snapshot is zero for the head; older are the ones that it can be compared with.
	snapshot block.SnapshotID
	older    []block.Cut
	size     int64
	// mending repairs what reads find damaged; nil does not.
	mending *mending
}

// Info implements nbd.Export.
func (e *export) Info() nbd.ExportInfo {
	r := e.door.replica
	info := nbd.ExportInfo{
		Name: e.name, Size: e.size, MinBlock: block.SectorSize, ReadOnly: true,
		Description: fmt.Sprintf("snapshot %s of volume %s", e.snapshot, r.Volume()),
		Contexts:    []string{nbd.ContextAllocation},
	}
	if e.snapshot.IsZero() {
		info.Description = fmt.Sprintf("FORENSIC: raw replica %s of volume %s, this copy alone; it may be out of date, divergent, or being written",
			r.ID(), r.Volume())
	}
	if _, ok := r.(Mapper); ok {
		for _, c := range e.older {
			info.Contexts = append(info.Contexts, ContextChanged+c.Snapshot.String())
		}
	}
	return info
}

// Close implements nbd.Export.
func (e *export) Close() error {
	e.mending.close()
	return nil
}

// Submit implements nbd.Backend.
func (e *export) Submit(r *nbd.Request) {
	switch r.Kind {
	case nbd.KindRead:
		e.read(r)
	case nbd.KindStatus:
		status, err := e.status(r)
		r.CompleteStatus(err, status)
	default:
		r.Complete(fmt.Errorf("%s of a read-only export: %w", r.Kind, block.ErrInvalid), nil)
	}
}

// read reads from the replica's own disk, verified: the bytes of a bad block are not
// shown. Of a snapshot they are brought from elsewhere and repaired; else it is an error.
func (e *export) read(r *nbd.Request) {
	e.submitRead(r, func(err error) bool {
		return e.damaged(err) && e.mending.begin(func() { e.mend(r) })
	})
}

// submitRead reads, and leaves the request to failed if that takes the error over.
func (e *export) submitRead(r *nbd.Request, failed func(err error) bool) {
	buf := block.NewBuffer(int(r.Length))
	op := &store.Op{Kind: store.Read, Offset: r.Offset, Length: r.Length, Buf: buf, Snapshot: e.snapshot}
	err := e.door.inspect(op, func(op *store.Op) {
		switch {
		case op.Err == nil:
			r.Complete(nil, buf)
			return
		case !failed(op.Err):
			r.Complete(fmt.Errorf("read export %s: %w", e.name, op.Err), nil)
		}
		buf.Release()
	})
	if err != nil {
		buf.Release()
		r.Complete(fmt.Errorf("read export %s: %w", e.name, err), nil)
	}
}

// status answers for the first part of the range.
func (e *export) status(r *nbd.Request) ([][]nbd.Extent, error) {
	span := block.Span{Offset: r.Offset, Length: min(r.Length, statusSpan)}
	status := make([][]nbd.Extent, len(r.Contexts))
	for i, name := range r.Contexts {
		var err error
		if status[i], err = e.stateOf(name, span); err != nil {
			return nil, fmt.Errorf("%s of export %s: %w", name, e.name, err)
		}
	}
	return status, nil
}

// stateOf is what one context says of a span.
func (e *export) stateOf(name string, span block.Span) ([]nbd.Extent, error) {
	mapper, ok := e.door.replica.(Mapper)
	if !ok {
		return []nbd.Extent{{Length: uint32(span.Length)}}, nil
	}
	text, is := strings.CutPrefix(name, ContextChanged)
	if !is {
		extents, err := mapper.ExtentsOf(e.snapshot, span)
		return allocation(extents), err
	}
	id, err := block.ParseID(text)
	if err != nil {
		return nil, err
	}
	extents, err := mapper.Changed(block.SnapshotID{ID: id}, e.snapshot, span)
	return changes(extents, span), err
}

// allocation says what is data, and that the rest is a hole of zeros.
func allocation(extents []store.Extent) []nbd.Extent {
	list := make([]nbd.Extent, 0, len(extents))
	for _, x := range extents {
		state := nbd.Extent{Length: uint32(x.Length)}
		if !x.Data {
			state.Flags = nbd.StateHole | nbd.StateZero
		}
		list = append(list, state)
	}
	return list
}

// changes says that what is listed may differ, and that the rest of the span does
// not.
func changes(extents []store.Extent, span block.Span) []nbd.Extent {
	var list []nbd.Extent
	at := span.Offset
	for _, x := range extents {
		if x.Offset > at {
			list = append(list, nbd.Extent{Length: uint32(x.Offset - at)})
		}
		if n := len(list); n > 0 && list[n-1].Flags == StateChanged {
			list[n-1].Length += uint32(x.Length)
		} else {
			list = append(list, nbd.Extent{Length: uint32(x.Length), Flags: StateChanged})
		}
		at = x.End()
	}
	if at < span.End() {
		list = append(list, nbd.Extent{Length: uint32(span.End() - at)})
	}
	return list
}

// inspect runs a read, or the forgetting of cuts, past the door: it belongs to no
// session, and a session
// that opens does not wait for it. Only closing the door does.
func (d *door) inspect(op *store.Op, done func(*store.Op)) error {
	d.mu.Lock()
	err := d.shut
	if err == nil {
		d.inspecting++
	}
	d.mu.Unlock()
	if err != nil {
		return err
	}
	op.Done = func(op *store.Op) {
		d.mu.Lock()
		d.inspecting--
		d.mu.Unlock()
		done(op)
	}
	d.replica.Submit(op)
	return nil
}
