package store

import (
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// ramDevice is a device of plain memory with one worker, so that a benchmark
// shows what the store itself costs.
type ramDevice struct {
	mu     sync.Mutex
	wake   sync.Cond
	queue  []*vfs.IO
	spare  []*vfs.IO
	memory []byte
	closed bool
	worker sync.WaitGroup
}

func newRAMDevice(size int64) *ramDevice {
	d := &ramDevice{memory: make([]byte, size)}
	d.wake.L = &d.mu
	d.worker.Go(d.work)
	return d
}

func (d *ramDevice) Submit(io *vfs.IO) {
	d.mu.Lock()
	d.queue = append(d.queue, io)
	d.mu.Unlock()
	d.wake.Signal()
}

func (d *ramDevice) work() {
	d.mu.Lock()
	for {
		for len(d.queue) == 0 {
			if d.closed {
				d.mu.Unlock()
				return
			}
			d.wake.Wait()
		}
		batch := d.queue
		d.queue = d.spare[:0]
		d.mu.Unlock()
		for i, io := range batch {
			switch io.Kind {
			case vfs.Read:
				copy(io.Data, d.memory[io.Offset:])
			case vfs.Write:
				copy(d.memory[io.Offset:], io.Data)
			}
			batch[i] = nil
			io.Done(io)
		}
		d.mu.Lock()
		d.spare = batch
	}
}

func (d *ramDevice) Size() int64          { return int64(len(d.memory)) }
func (d *ramDevice) Grow(int64) error     { return block.ErrNoSpace }
func (d *ramDevice) Free() (int64, error) { return 1 << 30, nil }

func (d *ramDevice) Close() error {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.wake.Signal()
	d.worker.Wait()
	return nil
}

const benchSize = 256 << 20

// benchStore is a replica with every block written, on a RAM device or in a
// directory of the real disk (HOLDFAST_BENCH_DIR, else the temporary one).
func benchStore(b *testing.B, onDisk bool, fillIt bool) *Replica {
	b.Helper()
	return benchStoreOf(b, onDisk, fillIt, diskOptions(b))
}

func benchStoreOf(b *testing.B, onDisk, fillIt bool, o DiskOptions) *Replica {
	b.Helper()
	var s *Store
	if onDisk {
		path := b.TempDir()
		if dir := os.Getenv("HOLDFAST_BENCH_DIR"); dir != "" {
			var err error
			if path, err = os.MkdirTemp(dir, "bench"); err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = os.RemoveAll(path) })
		}
		o.GrowStep = 2 * benchSize
		formatDisk(b, path, o)
		s = openDisk(b, path, o)
	} else {
		s = openRAM(b, o.Options)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	if err := s.Create(ReplicaSpec{Replica: replicaID(1), Volume: block.VolumeID{ID: testID(2)}, Size: benchSize}); err != nil {
		b.Fatal(err)
	}
	r, err := s.Replica(replicaID(1))
	if err != nil {
		b.Fatal(err)
	}
	if fillIt {
		for at := int64(0); at < benchSize; at += 1 << 20 {
			if err := wait(r, writeOp(at, fill(1<<20, 1))); err != nil {
				b.Fatal(err)
			}
		}
		if err := wait(r, &Op{Kind: Flush}); err != nil {
			b.Fatal(err)
		}
	}
	return r
}

func openRAM(b *testing.B, o Options) *Store {
	b.Helper()
	dev := newRAMDevice(benchSize + 64<<20)
	o.Device, o.Dir, o.Path = dev, pebblevfs.NewMem(), "disk"
	return formatRAM(b, o, dev)
}

// formatRAM makes the superblock by hand, for a RAM device has its size from the
// start.
func formatRAM(b testing.TB, o Options, dev *ramDevice) *Store {
	b.Helper()
	if err := o.Dir.MkdirAll("disk", 0o700); err != nil {
		b.Fatal(err)
	}
	f := newStore(o)
	f.identity = sampleIdentity()
	if err := f.formatDatabase(); err != nil {
		b.Fatal(err)
	}
	copy(dev.memory, encodeSuperblock(f.identity))
	s, err := Open(o)
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// load keeps depth requests in flight, each made anew by next when it ends.
func load(b *testing.B, r *Replica, depth int, next func(op *Op)) {
	b.Helper()
	free := make(chan *Op, depth)
	for range depth {
		free <- &Op{Buf: block.NewBuffer(block.MaxTransfer), Done: func(op *Op) { free <- op }}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		op := <-free
		if op.Err != nil {
			b.Fatal(op.Err)
		}
		next(op)
		r.Submit(op)
	}
	for range depth {
		if op := <-free; op.Err != nil {
			b.Fatal(op.Err)
		}
	}
	b.StopTimer()
}

func each(b *testing.B, run func(b *testing.B, onDisk bool)) {
	b.Run("ram", func(b *testing.B) { run(b, false) })
	b.Run("disk", func(b *testing.B) { run(b, true) })
}

func random4K(kind Kind) func(op *Op) {
	random := rand.New(rand.NewPCG(1, 2))
	return func(op *Op) {
		op.Kind, op.Length = kind, block.BlockSize
		op.Offset = random.Int64N(benchSize/block.BlockSize) * block.BlockSize
		op.Buf.Data = op.Buf.Data[:block.BlockSize]
	}
}

func BenchmarkOverwrite4K(b *testing.B) {
	each(b, func(b *testing.B, onDisk bool) { load(b, benchStore(b, onDisk, true), 16, random4K(Write)) })
}

func BenchmarkRead4K(b *testing.B) {
	each(b, func(b *testing.B, onDisk bool) { load(b, benchStore(b, onDisk, true), 16, random4K(Read)) })
}

// BenchmarkReadCold4K reads blocks whose map is ten times what there is memory for.
func BenchmarkReadCold4K(b *testing.B) {
	each(b, func(b *testing.B, onDisk bool) {
		o := diskOptions(b)
		o.CacheSize = MapBytes(benchSize) / 10
		load(b, benchStoreOf(b, onDisk, true, o), 16, random4K(Read))
	})
}

// BenchmarkWriteFlush alternates an overwrite and a flush, one at a time.
func BenchmarkWriteFlush(b *testing.B) {
	each(b, func(b *testing.B, onDisk bool) {
		write, n := random4K(Write), uint64(0)
		load(b, benchStore(b, onDisk, true), 1, func(op *Op) {
			if n++; n%2 == 1 {
				write(op)
				return
			}
			op.Kind, op.FlushNumber = Flush, block.FlushNumber{Epoch: 1, N: n}
		})
	})
}

// BenchmarkFirstWrite writes blocks that were never written, in order; each
// time the volume is full it is zeroed.
func BenchmarkFirstWrite4K(b *testing.B) {
	each(b, func(b *testing.B, onDisk bool) {
		at := int64(0)
		load(b, benchStore(b, onDisk, false), 16, func(op *Op) {
			if at == benchSize {
				*op = Op{Kind: Zero, Length: benchSize, Buf: op.Buf, Done: op.Done}
				at = 0
				return
			}
			op.Kind, op.Offset, op.Length = Write, at, block.BlockSize
			op.Buf.Data = op.Buf.Data[:block.BlockSize]
			at += block.BlockSize
		})
	})
}

func sequential(kind Kind) func(op *Op) {
	at := int64(0)
	return func(op *Op) {
		op.Kind, op.Offset, op.Length = kind, at%benchSize, 1<<20
		op.Buf.Data = op.Buf.Data[:1<<20]
		at += 1 << 20
	}
}

func BenchmarkWrite1M(b *testing.B) {
	each(b, func(b *testing.B, onDisk bool) {
		b.SetBytes(1 << 20)
		load(b, benchStore(b, onDisk, true), 4, sequential(Write))
	})
}

func BenchmarkRead1M(b *testing.B) {
	each(b, func(b *testing.B, onDisk bool) {
		b.SetBytes(1 << 20)
		load(b, benchStore(b, onDisk, true), 4, sequential(Read))
	})
}

// BenchmarkRawWrite4K is the device without a store, to compare with.
func BenchmarkRawWrite4K(b *testing.B) {
	d, err := vfs.OpenOSDevice(b.TempDir()+"/data", vfs.OSDeviceOptions{Create: true})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	if err := d.Grow(benchSize); err != nil {
		b.Fatal(err)
	}
	buf := block.NewBuffer(1 << 20)
	for at := int64(0); at < benchSize; at += 1 << 20 {
		if err := vfs.Do(d, &vfs.IO{Kind: vfs.Write, Offset: at, Length: 1 << 20, Data: buf.Data}); err != nil {
			b.Fatal(err)
		}
	}
	const depth = 16
	free := make(chan *vfs.IO, depth)
	for range depth {
		free <- &vfs.IO{Kind: vfs.Write, Length: block.BlockSize, Data: buf.Data[:block.BlockSize], Done: func(io *vfs.IO) { free <- io }}
	}
	random := rand.New(rand.NewPCG(1, 2))
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		io := <-free
		io.Offset = random.Int64N(benchSize/block.BlockSize) * block.BlockSize
		d.Submit(io)
	}
	for range depth {
		<-free
	}
	b.StopTimer()
}
