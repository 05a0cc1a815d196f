package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// TestColdReads reads a volume from many sides with memory for a few of its pages, by
// the device's thread and by the executor: everybody gets what was written.
func TestColdReads(t *testing.T) {
	const readers, each = 16, 400
	path := t.TempDir()
	formatDisk(t, path, diskOptions(t))
	for n, engine := range []vfs.Engine{vfs.EngineAuto, vfs.EngineThreads} {
		t.Run(string(engine), func(t *testing.T) {
			options := diskOptions(t)
			options.Engine, options.CacheSize = engine, 4*pageBytes
			s := openDisk(t, path, options)
			id := replicaID(byte(n + 1))
			if err := s.Create(ReplicaSpec{Replica: id, Volume: block.VolumeID{ID: testID(100)}, Size: testSize}); err != nil {
				t.Fatal(err)
			}
			r, err := s.Replica(id)
			if err != nil {
				t.Fatal(err)
			}
			for at := int64(0); at < testSize; at += block.ExtentSize {
				if err := wait(r, writeOp(at, fill(block.BlockSize, byte(at>>16)))); err != nil {
					t.Fatal(err)
				}
			}
			if err := wait(r, &Op{Kind: Flush, FlushNumber: block.FlushNumber{Epoch: 1, N: 1}}); err != nil {
				t.Fatal(err)
			}
			var all errgroup.Group
			for seed := range uint64(readers) {
				all.Go(func() error {
					random := rand.New(rand.NewPCG(1, seed))
					op := &Op{Kind: Read, Length: block.BlockSize, Buf: block.NewBuffer(block.BlockSize)}
					defer op.Buf.Release()
					for range each {
						op.Offset = random.Int64N(testSize/block.ExtentSize) * block.ExtentSize
						if err := wait(r, op); err != nil {
							return err
						}
						if got, want := op.Buf.Data[random.IntN(block.BlockSize)], byte(op.Offset>>16); got != want {
							return fmt.Errorf("at %d: %d, want %d", op.Offset, got, want)
						}
					}
					return nil
				})
			}
			if err := errors.Join(all.Wait(), s.Close()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestUsedPagesStay reads one page between many others, with room for four: it stays in
// memory, and the others go.
func TestUsedPagesStay(t *testing.T) {
	const perPage = pageExtents << 16
	g := newRig(t)
	r := g.create(1, testSize)
	for at := int64(0); at < testSize; at += perPage {
		g.write(r, at, fill(4096, byte(at/perPage)))
	}
	g.flush(r)
	g.options.CacheSize = 4 * pageBytes
	g.powerLoss()
	r = g.replica(1)
	for at := int64(0); at < testSize; at += perPage {
		g.expect(r, at, fill(4096, byte(at/perPage)))
		kept := r.pages[0]
		g.expect(r, 0, fill(4096, 0))
		if at > perPage && r.pages[0] != kept {
			t.Fatalf("at %d: a page that is read all the time was read again", at)
		}
		if n := r.store.cache.count; n > 4+1 || int(n) != len(r.pages) {
			t.Fatalf("at %d: %d pages in the list, %d in the map", at, n, len(r.pages))
		}
	}
}

// helpfulDevice has its jobs run by the rig's executor, as a thread of its own would.
type helpfulDevice struct {
	vfs.Device
	executor vfs.Executor
	helped   int
}

func (d *helpfulDevice) Help(job func()) bool {
	d.helped++
	d.executor.Go(job)
	return true
}

// TestSlowLoadsGoElsewhere: the device's thread reads pages, and after a slow read leaves
// the next ones to others.
func TestSlowLoadsGoElsewhere(t *testing.T) {
	g := newRig(t)
	r := g.create(1, testSize)
	device := &helpfulDevice{Device: r.store.options.Device, executor: r.store.options.Executor}
	r.store.options.Device = device
	number := int64(0)
	load := func(times int) {
		for range times {
			g.read(r, number*pageExtents*block.ExtentSize, block.BlockSize)
			number++
		}
	}
	load(3)
	r.store.loads.slow = 0 // one may have been slow
	load(1)
	if device.helped < 2 {
		t.Errorf("the device's thread has read %d pages", device.helped)
	}
	device.helped, r.store.loads.slow = 0, slowJobs
	load(slowJobs)
	if device.helped != 0 || r.store.loads.slow != 0 {
		t.Errorf("after a slow read the device's thread has read %d pages, and the next %d are not for it", device.helped, r.store.loads.slow)
	}
	load(1)
	if device.helped != 1 {
		t.Errorf("later the device's thread has read %d pages", device.helped)
	}
}
