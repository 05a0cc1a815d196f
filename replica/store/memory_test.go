package store

import (
	"bytes"
	"errors"
	"runtime"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/holdfast-io/holdfast/internal/block"
)

// usedRig is a store with default limits of which so many extents are in use, from
// the first on: by no replica, for memory does not depend on whose they are.
func usedRig(t *testing.T, extents uint32) *rig {
	t.Helper()
	g := newRig(t)
	end := firstExtent + extents
	g.device.SetCapacity(16 << 40)
	if err := g.device.Grow(int64(end+64<<10) * block.ExtentSize); err != nil {
		t.Fatal(err)
	}
	ones := bytes.Repeat([]byte{0xff}, 8*allocationPageWords)
	for page := uint32(0); page <= allocationPage(end-1); page++ {
		b := bytes.Clone(ones)
		if page == 0 {
			clear(b[:firstExtent/8])
		}
		if page == allocationPage(end-1) {
			clear(b[end%4096/8:])
		}
		if err := g.store.db.Set(allocationKey(nil, page), b, pebble.NoSync); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.store.Close(); err != nil {
		t.Fatal(err)
	}
	g.options.Reserve, g.options.GrowStep, g.options.MemTableSize, g.options.Simulated = 0, 0, 0, false
	g.device = g.device.Fork()
	return g
}

const extentsPerTiB = (1 << 40) / block.ExtentSize

// TestMemoryPerTiB reads far more of a volume of 64 TiB than the maps may hold, and
// writes to new places everywhere, on a disk with 1 TiB in use: all that the store
// holds stays within the bound, and the maps have what the rest leaves.
func TestMemoryPerTiB(t *testing.T) {
	g := usedRig(t, extentsPerTiB)
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	g.open()
	defer func() {
		if err := g.store.Abandon(); err != nil {
			t.Error(err)
		}
	}()
	if used := g.store.Space().Used; used != 1<<40 {
		t.Fatalf("%d bytes in use", used)
	}
	r := g.create(1, block.MaxVolumeSize)
	step := r.Size() / 8192
	for at := int64(0); at < r.Size(); at += step / 4 {
		g.must(r, &Op{Kind: Hash, Offset: at, Length: block.ChunkSize})
	}
	m := g.store.Memory()
	t.Logf("1 TiB in use, in KiB: maps %d, allocation %d, replicas %d, changes %d, database %d: %d of %d; the heap has grown by %d",
		m.Maps>>10, m.Allocation>>10, m.Replicas>>10, m.Changes>>10, m.Database>>10, m.Total()>>10, m.Limit>>10, (heap()-before)>>10)
	if m.Limit != MemoryPerTiB || m.Total() > m.Limit {
		t.Errorf("%d bytes are held, at most %d: %+v", m.Total(), m.Limit, m)
	}
	if m.Maps < MemoryPerTiB/2 {
		t.Errorf("the maps have %d bytes only", m.Maps)
	}
	if grown := heap() - before; grown > MemoryPerTiB {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
	// Four pages of a region each time.
	place := func(n int64) int64 { return n/4*step + n%4*pageExtents*block.ExtentSize }
	for n := range int64(3000) {
		g.write(r, place(n), fill(block.BlockSize, byte(n)))
	}
	m = g.store.Memory()
	t.Logf("after writes, in KiB: maps %d, replicas %d, changes %d, database %d: %d", m.Maps>>10, m.Replicas>>10, m.Changes>>10, m.Database>>10, m.Total()>>10)
	if m.Total() > m.Limit {
		t.Errorf("after writes %d bytes are held, at most %d: %+v", m.Total(), m.Limit, m)
	}
	g.expect(r, place(255), fill(block.BlockSize, 0xff))
}

// TestMemoryMakesRoom: the maps shrink as the rest grows, with every extent split in
// the end, and grow with what is in use, within their bounds.
func TestMemoryMakesRoom(t *testing.T) {
	store := func(tib, memory int64, split bool) *Store {
		s := &Store{options: Options{Memory: memory}.withDefaults()}
		end := uint32(tib * extentsPerTiB)
		s.space.grow(end)
		s.space.used, s.space.durable = make(bitset, end/64), make(bitset, end/64)
		s.space.free = 0
		if split {
			s.space.partial = make(bitset, end/64)
			s.space.split = make([]*splitPage, end/splitPageExtents)
			s.space.splitPages = int64(len(s.space.split))
		}
		return s
	}
	for _, test := range []struct {
		tib, memory int64
		split       bool
		limit, maps int64 // in MiB, of maps at least
	}{
		{tib: 0, limit: 64, maps: 42},
		{tib: 1, limit: 64, maps: 37},
		{tib: 1, split: true, limit: 64, maps: 4},
		{tib: 4, limit: 256, maps: 210},
		{tib: 4, split: true, limit: 256, maps: 80},
		{tib: 16, limit: 1024, maps: 256},
		{tib: 16, split: true, limit: 1024, maps: 256},
		{tib: 1, memory: 512 << 20, limit: 512, maps: 480},
		{tib: 16, memory: 64 << 20, limit: 64, maps: 4},
	} {
		s := store(test.tib, test.memory, test.split)
		limit, maps := s.memoryLimit(), s.mapLimit()
		t.Logf("%d TiB, split %v: limit %d MiB, allocation %d MiB, maps %d MiB", test.tib, test.split, limit>>20, s.space.memory()>>20, maps>>20)
		if (limit+1<<19)>>20 != test.limit || maps < test.maps<<20 || maps > max(2*test.maps, 8)<<20 {
			t.Errorf("%+v: limit %d, maps %d", test, limit, maps)
		}
		rest := s.space.memory() + (memTableStop+1)*int64(s.options.MemTableSize) + changesReserve
		if test.memory == 0 && rest+maps > limit+64<<10 {
			t.Errorf("%+v: %d bytes in all, at most %d", test, rest+maps, limit)
		}
	}
	o := newRig(t).options
	for memory, ok := range map[int64]bool{-1: false, 1: false, LeastMemory - 1: false, LeastMemory: true, 0: true} {
		o.Memory = memory
		if err := o.Validate(); (err == nil) != ok || err != nil && !errors.Is(err, block.ErrInvalid) {
			t.Errorf("Memory of %d: %v", memory, err)
		}
	}
}
