// Package nbdtest has exports for tests of what speaks NBD: a disk in memory, a
// disk in a file that outlives its process, and a gate that holds requests back
// until a test lets them go. Nothing in it runs a goroutine.
package nbdtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
)

// Info describes a writable export of size bytes with every feature but meta
// contexts.
func Info(name string, size int64, minBlock uint32) nbd.ExportInfo {
	return nbd.ExportInfo{
		Name: name, Size: size, MinBlock: minBlock,
		Flush: true, FUA: true, Trim: true, Zeroes: true,
	}
}

// Storage is what a Disk keeps its bytes in.
type Storage interface {
	ReadAt(p []byte, offset int64) (int, error)
	WriteAt(p []byte, offset int64) (int, error)
	Sync() error
}

// Disk is an export that completes every request inside Submit. It may be
// served on many connections.
type Disk struct {
	info    nbd.ExportInfo
	storage Storage
	zeros   []byte

	// Flushes and Durable count flush requests and requests with FUA.
	Flushes, Durable atomic.Int64
	// Submitted counts all requests.
	Submitted atomic.Int64
	// Opened and Closed count the uses of the export.
	Opened, Closed atomic.Int64
}

// NewMemory returns a disk in memory, all zeros.
func NewMemory(info nbd.ExportInfo) *Disk {
	return &Disk{info: info, storage: &memory{data: make([]byte, info.Size)}, zeros: make([]byte, block.MaxTransfer)}
}

// OpenFile returns a disk in a file, which is made as long as the export.
func OpenFile(info nbd.ExportInfo, path string) (*Disk, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := file.Truncate(info.Size); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &Disk{info: info, storage: file, zeros: make([]byte, block.MaxTransfer)}, nil
}

// Info implements nbd.Export.
func (d *Disk) Info() nbd.ExportInfo { return d.info }

// Close implements nbd.Export; the disk itself stays open for others.
func (d *Disk) Close() error {
	d.Closed.Add(1)
	return nil
}

// Storage gives a test the bytes themselves.
func (d *Disk) Storage() Storage { return d.storage }

// Submit implements nbd.Backend.
func (d *Disk) Submit(r *nbd.Request) {
	d.Submitted.Add(1)
	if r.FUA {
		d.Durable.Add(1)
	}
	switch r.Kind {
	case nbd.KindRead:
		buf := block.NewBuffer(int(r.Length))
		_, err := d.storage.ReadAt(buf.Data, r.Offset)
		r.Complete(ioError(err), buf)
	case nbd.KindWrite:
		_, err := d.storage.WriteAt(r.Buf.Data, r.Offset)
		r.Complete(ioError(err), nil)
	case nbd.KindZero, nbd.KindTrim:
		r.Complete(ioError(d.zero(r.Span())), nil)
	case nbd.KindFlush:
		d.Flushes.Add(1)
		r.Complete(ioError(d.storage.Sync()), nil)
	case nbd.KindStatus:
		d.status(r)
	}
}

func ioError(err error) error {
	if err != nil {
		return fmt.Errorf("test disk: %w: %w", block.ErrIO, err)
	}
	return nil
}

func (d *Disk) zero(span block.Span) error {
	for span.Length > 0 {
		n, err := d.storage.WriteAt(d.zeros[:min(span.Length, int64(len(d.zeros)))], span.Offset)
		if err != nil {
			return err
		}
		span.Offset += int64(n)
		span.Length -= int64(n)
	}
	return nil
}

// status reports the blocks of a memory disk that are zeros as holes, for every
// context.
func (d *Disk) status(r *nbd.Request) {
	buf := make([]byte, block.BlockSize)
	var extents []nbd.Extent
	for offset := r.Offset; offset < r.Offset+r.Length; {
		n := min(block.BlockSize-offset%block.BlockSize, r.Offset+r.Length-offset)
		if _, err := d.storage.ReadAt(buf[:n], offset); err != nil {
			r.CompleteStatus(ioError(err), nil)
			return
		}
		flags := nbd.StateHole | nbd.StateZero
		for _, b := range buf[:n] {
			if b != 0 {
				flags = 0
				break
			}
		}
		if last := len(extents) - 1; last >= 0 && extents[last].Flags == flags {
			extents[last].Length += uint32(n)
		} else {
			extents = append(extents, nbd.Extent{Length: uint32(n), Flags: flags})
		}
		offset += n
	}
	status := make([][]nbd.Extent, len(r.Contexts))
	for i := range status {
		status[i] = extents
	}
	r.CompleteStatus(nil, status)
}

// memory is a Storage in RAM.
type memory struct {
	mu   sync.RWMutex
	data []byte
}

func (m *memory) ReadAt(p []byte, offset int64) (int, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return copy(p, m.data[offset:]), nil
}

func (m *memory) WriteAt(p []byte, offset int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return copy(m.data[offset:], p), nil
}

func (m *memory) Sync() error { return nil }

// Gate holds the requests of a backend back.
type Gate struct {
	nbd.Export

	mu     sync.Mutex
	arrive sync.Cond
	open   bool
	held   []*nbd.Request
}

// NewGate returns a closed gate in front of an export.
func NewGate(export nbd.Export) *Gate {
	g := &Gate{Export: export}
	g.arrive.L = &g.mu
	return g
}

// Submit implements nbd.Backend.
func (g *Gate) Submit(r *nbd.Request) {
	g.mu.Lock()
	if !g.open {
		g.held = append(g.held, r)
		g.arrive.Broadcast()
		g.mu.Unlock()
		return
	}
	g.mu.Unlock()
	g.Export.Submit(r)
}

// Held waits until n requests are held and returns them; they are the caller's
// to complete or to pass on.
func (g *Gate) Held(n int) []*nbd.Request {
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.held) < n {
		g.arrive.Wait()
	}
	held := g.held
	g.held = nil
	return held
}

// Waiting is the number of requests that are held now.
func (g *Gate) Waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.held)
}

// Open lets everything through from now on, first what is held, in its order.
func (g *Gate) Open() {
	g.mu.Lock()
	held := g.held
	g.held = nil
	g.open = true
	g.mu.Unlock()
	for _, r := range held {
		g.Export.Submit(r)
	}
}

// Exports serves a fixed set of exports by name.
type Exports map[string]nbd.Export

// List implements nbd.Exports.
func (e Exports) List(context.Context) []string {
	names := make([]string, 0, len(e))
	for name := range e {
		names = append(names, name)
	}
	return names
}

// Open implements nbd.Exports.
func (e Exports) Open(_ context.Context, name string) (nbd.Export, error) {
	export, ok := e[name]
	if !ok {
		return nil, fmt.Errorf("export %q: %w", name, block.ErrNotFound)
	}
	if d, ok := export.(*Disk); ok {
		d.Opened.Add(1)
	}
	return export, nil
}
