package server

import (
	"context"
	"fmt"
	"math"
	"strings"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
	"github.com/holdfast-io/holdfast/replica/store"
)

// exportPrefix comes before the replica's ID in the name of an export.
const exportPrefix = "replica/"

// Mapper is what a Replica may be besides: one that knows where it holds data
// without reading them. Without it an export calls everything data.
type Mapper interface {
	// Mapped reports whether the bytes at offset may be other than zeros, and
	// the offset up to which the same is known. It may wait for the disk.
	Mapped(offset int64) (mapped bool, end int64, err error)
}

// Exports are the read-only exports of the host's raw replicas.
func (h *Host) Exports() nbd.Exports { return rawExports{host: h} }

type rawExports struct{ host *Host }

// List implements nbd.Exports.
func (e rawExports) List(context.Context) []string {
	var names []string
	for _, d := range e.host.allDoors() {
		names = append(names, exportPrefix+d.replica.ID().String())
	}
	return names
}

// Open implements nbd.Exports.
func (e rawExports) Open(_ context.Context, name string) (nbd.Export, error) {
	text, ours := strings.CutPrefix(name, exportPrefix)
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
	return rawExport{name: name, door: d}, nil
}

// rawExport shows one replica as it lies on its disk.
type rawExport struct {
	name string
	door *door
}

// Info implements nbd.Export.
func (e rawExport) Info() nbd.ExportInfo {
	r := e.door.replica
	return nbd.ExportInfo{
		Name: e.name,
		Description: fmt.Sprintf("FORENSIC: raw replica %s of volume %s, this copy alone; it may be out of date, divergent, or being written",
			r.ID(), r.Volume()),
		Size:     r.Size(),
		MinBlock: block.SectorSize,
		ReadOnly: true,
		Contexts: []string{nbd.ContextAllocation},
	}
}

// Close implements nbd.Export.
func (e rawExport) Close() error { return nil }

// Submit implements nbd.Backend.
func (e rawExport) Submit(r *nbd.Request) {
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

// read reads from the replica's own disk, verified: a bad block is an error, its
// bytes are not shown.
func (e rawExport) read(r *nbd.Request) {
	buf := block.NewBuffer(int(r.Length))
	err := e.door.inspect(&store.Op{Kind: store.Read, Offset: r.Offset, Length: r.Length, Buf: buf}, func(op *store.Op) {
		if op.Err != nil {
			buf.Release()
			r.Complete(fmt.Errorf("read export %s: %w", e.name, op.Err), nil)
			return
		}
		r.Complete(nil, buf)
	})
	if err != nil {
		buf.Release()
		r.Complete(fmt.Errorf("read export %s: %w", e.name, err), nil)
	}
}

// status answers base:allocation, the only context offered, for the first piece
// of the range that is of one kind.
func (e rawExport) status(r *nbd.Request) ([][]nbd.Extent, error) {
	whole := nbd.Extent{Length: uint32(min(r.Length, math.MaxUint32))}
	if mapper, ok := e.door.replica.(Mapper); ok {
		mapped, end, err := mapper.Mapped(r.Offset)
		if err != nil {
			return nil, fmt.Errorf("status of export %s: %w", e.name, err)
		}
		whole.Length = uint32(min(max(end-r.Offset, block.SectorSize), int64(whole.Length)))
		if !mapped {
			whole.Flags = nbd.StateHole | nbd.StateZero
		}
	}
	status := make([][]nbd.Extent, len(r.Contexts))
	for i := range status {
		status[i] = []nbd.Extent{whole}
	}
	return status, nil
}

// inspect runs a read past the door: it belongs to no session, and a session
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
