package vfs

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/holdfast-io/holdfast/internal/block"
)

// page is one block of a MemDevice. Pages are never changed once they are in an
// image, so images share them.
type page [block.BlockSize]byte

type image map[int64]*page

// MemDevice is a device in memory that forgets what was not synced. Each
// operation is carried out as one job of its executor; a StepExecutor therefore
// chooses the order. A write takes effect at once when its job runs, but becomes
// durable only by a Sync submitted after that.
type MemDevice struct {
	executor Executor

	mu       sync.Mutex
	capacity int64
	size     int64
	dead     bool
	closed   bool
	current  image
	durable  image
	// inFlight are the writes and discards submitted and not carried out yet,
	// unsynced those carried out since the last sync, both in order.
	inFlight []*unsyncedWrite
	unsynced []*unsyncedWrite
	inject   func(io *IO) error
	syncs    int
}

type unsyncedWrite struct {
	io     *IO
	offset int64
	pages  []*page
}

// UnsyncedWrite describes, for a crash, a write that may be lost.
type UnsyncedWrite struct {
	Offset int64
	Length int64
	// InFlight: the write was submitted and had not completed.
	InFlight bool
}

// NewMemDevice makes an empty device that can grow up to capacity bytes.
func NewMemDevice(executor Executor, capacity int64) *MemDevice {
	return &MemDevice{executor: executor, capacity: capacity, current: image{}, durable: image{}}
}

// Inject makes f decide the fate of each operation before it is carried out: a
// non-nil error becomes its result and it changes nothing. f runs with the
// device locked.
func (d *MemDevice) Inject(f func(io *IO) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inject = f
}

// SetCapacity changes the size of the virtual disk.
func (d *MemDevice) SetCapacity(capacity int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.capacity = capacity
}

// Flip inverts one bit, durably: bit 0..7 of the byte at offset.
func (d *MemDevice) Flip(offset int64, bit uint) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, img := range []image{d.current, d.durable} {
		p := new(page)
		if old := img[offset/block.BlockSize]; old != nil {
			*p = *old
		}
		p[offset%block.BlockSize] ^= 1 << (bit % 8)
		img[offset/block.BlockSize] = p
	}
}

// Syncs counts the syncs carried out.
func (d *MemDevice) Syncs() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.syncs
}

// Unsynced lists the writes that a crash may lose: first those that completed,
// in the order of completion, then those in flight.
func (d *MemDevice) Unsynced() []UnsyncedWrite {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []UnsyncedWrite
	for _, w := range d.unsynced {
		list = append(list, w.describe(false))
	}
	for _, w := range d.inFlight {
		list = append(list, w.describe(true))
	}
	return list
}

func (w *unsyncedWrite) describe(inFlight bool) UnsyncedWrite {
	return UnsyncedWrite{Offset: w.offset, Length: int64(len(w.pages)) * block.BlockSize, InFlight: inFlight}
}

// Fork is an independent copy of the device at this moment, with the writes in
// flight as such; they will not end in the copy. It is for crashing more than
// once from one moment.
func (d *MemDevice) Fork() *MemDevice {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &MemDevice{
		executor: d.executor, capacity: d.capacity, size: d.size,
		current: maps.Clone(d.current), durable: maps.Clone(d.durable),
		unsynced: slices.Clone(d.unsynced), inFlight: slices.Clone(d.inFlight),
	}
}

// Crash ends this device, as a power loss does, and returns the one that is
// found afterwards, with the given executor: everything synced, and of each
// unsynced write those 512-byte sectors for which keep says so. i indexes
// Unsynced, sector counts from the start of the write.
func (d *MemDevice) Crash(executor Executor, keep func(i int, w UnsyncedWrite, sector int) bool) *MemDevice {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = true
	after := &MemDevice{executor: executor, capacity: d.capacity, size: d.size, durable: maps.Clone(d.durable)}
	for i, w := range d.unsynced {
		w.applySectors(after.durable, i, w.describe(false), keep)
	}
	for i, w := range d.inFlight {
		w.applySectors(after.durable, len(d.unsynced)+i, w.describe(true), keep)
	}
	after.current = maps.Clone(after.durable)
	return after
}

// Kill ends this device, as the death of the process does: writes that
// completed stay (a later power loss may still lose them); of those in flight
// keep decides by sector, as for Crash.
func (d *MemDevice) Kill(executor Executor, keep func(i int, w UnsyncedWrite, sector int) bool) *MemDevice {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = true
	after := &MemDevice{
		executor: executor, capacity: d.capacity, size: d.size,
		durable: maps.Clone(d.durable), current: maps.Clone(d.current),
		unsynced: slices.Clone(d.unsynced),
	}
	for i, w := range d.inFlight {
		w.applySectors(after.current, len(d.unsynced)+i, w.describe(true), keep)
		landed := &unsyncedWrite{offset: w.offset}
		for n := range w.pages {
			landed.pages = append(landed.pages, after.current[w.offset/block.BlockSize+int64(n)])
		}
		after.unsynced = append(after.unsynced, landed)
	}
	return after
}

func (w *unsyncedWrite) applySectors(img image, i int, d UnsyncedWrite, keep func(int, UnsyncedWrite, int) bool) {
	const sectors = block.BlockSize / block.SectorSize
	for n, data := range w.pages {
		number := w.offset/block.BlockSize + int64(n)
		merged := new(page)
		if old := img[number]; old != nil {
			*merged = *old
		}
		for s := range sectors {
			if !keep(i, d, n*sectors+s) {
				continue
			}
			sector := merged[s*block.SectorSize : (s+1)*block.SectorSize]
			if data == nil {
				clear(sector)
			} else {
				copy(sector, data[s*block.SectorSize:])
			}
		}
		img[number] = merged
	}
}

// Submit implements Device.
func (d *MemDevice) Submit(io *IO) {
	d.mu.Lock()
	mark := 0
	switch io.Kind {
	case Write, Discard:
		d.inFlight = append(d.inFlight, copyWrite(io))
	case Sync:
		mark = len(d.unsynced)
	}
	var last *unsyncedWrite
	if mark > 0 {
		last = d.unsynced[mark-1]
	}
	d.mu.Unlock()
	d.executor.Go(func() {
		if d.carryOut(io, last) {
			io.Done(io)
		}
	})
}

// Do implements Doer.
func (d *MemDevice) Do(io *IO) error {
	d.mu.Lock()
	var last *unsyncedWrite
	switch {
	case io.Kind == Write || io.Kind == Discard:
		d.inFlight = append(d.inFlight, copyWrite(io))
	case len(d.unsynced) > 0:
		last = d.unsynced[len(d.unsynced)-1]
	}
	d.mu.Unlock()
	d.carryOut(io, last)
	return io.Err
}

func copyWrite(io *IO) *unsyncedWrite {
	w := &unsyncedWrite{io: io, offset: io.Offset}
	if io.Kind == Discard {
		w.pages = make([]*page, io.Length/block.BlockSize)
		return w
	}
	for n := 0; n < len(io.Data); n += block.BlockSize {
		p := new(page)
		copy(p[:], io.Data[n:])
		w.pages = append(w.pages, p)
	}
	return w
}

// carryOut performs io; last is the newest write that a Sync covers. It reports
// false if the device died before.
func (d *MemDevice) carryOut(io *IO, last *unsyncedWrite) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		io.Err = block.ErrClosed
		return false
	}
	write := d.takeInFlight(io)
	io.Err = nil
	if d.inject != nil {
		if io.Err = d.inject(io); io.Err != nil {
			return true
		}
	}
	switch io.Kind {
	case Read:
		io.Err = d.read(io)
	case Write, Discard:
		if write.offset+int64(len(write.pages))*block.BlockSize > d.size {
			io.Err = fmt.Errorf("write past the end of the device: %w", block.ErrNoSpace)
			return true
		}
		write.apply(d.current)
		d.unsynced = append(d.unsynced, write)
	case Sync:
		d.syncs++
		d.syncUpTo(last)
	}
	return true
}

func (d *MemDevice) takeInFlight(io *IO) *unsyncedWrite {
	for i, w := range d.inFlight {
		if w.io == io {
			d.inFlight = append(d.inFlight[:i], d.inFlight[i+1:]...)
			w.io = nil
			return w
		}
	}
	return nil
}

func (w *unsyncedWrite) apply(img image) {
	for n, p := range w.pages {
		number := w.offset/block.BlockSize + int64(n)
		if p == nil {
			delete(img, number)
		} else {
			img[number] = p
		}
	}
}

func (d *MemDevice) syncUpTo(last *unsyncedWrite) {
	if last == nil {
		return
	}
	covered := 0
	for i, w := range d.unsynced {
		if w == last {
			covered = i + 1
		}
	}
	for _, w := range d.unsynced[:covered] {
		w.apply(d.durable)
	}
	d.unsynced = slices.Clone(d.unsynced[covered:])
}

func (d *MemDevice) read(io *IO) error {
	if io.Offset+int64(len(io.Data)) > d.size {
		return fmt.Errorf("read past the end of the device: %w", block.ErrDiskFailed)
	}
	for n := 0; n < len(io.Data); n += block.BlockSize {
		dst := io.Data[n : n+block.BlockSize]
		if p := d.current[(io.Offset+int64(n))/block.BlockSize]; p != nil {
			copy(dst, p[:])
		} else {
			clear(dst)
		}
	}
	return nil
}

// Size implements Device.
func (d *MemDevice) Size() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.size
}

// Grow implements Device. The new size is durable at once.
func (d *MemDevice) Grow(size int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if size > d.capacity {
		return fmt.Errorf("grow device to %d bytes: %w", size, block.ErrNoSpace)
	}
	d.size = max(d.size, size)
	return nil
}

// Free implements Device.
func (d *MemDevice) Free() (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return max(d.capacity-d.size, 0), nil
}

// Close implements Device. Operations in flight are not waited for: they end
// when their jobs run.
func (d *MemDevice) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	return nil
}
