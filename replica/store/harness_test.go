package store

import (
	"bytes"
	"crypto/sha256"
	"log/slog"
	"math/rand/v2"
	"testing"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// rig is a store on a disk in memory, driven by the test's goroutine.
type rig struct {
	t        testing.TB
	steps    *vfs.StepExecutor
	device   *vfs.MemDevice
	dir      *pebblevfs.MemFS
	options  Options
	store    *Store
	identity Identity
}

func testID(n byte) block.ID { return block.ID{0: n, 15: n} }

func replicaID(n byte) block.ReplicaID { return block.ReplicaID{ID: testID(n)} }

func newRig(t testing.TB) *rig {
	t.Helper()
	g := &rig{t: t, steps: &vfs.StepExecutor{}, dir: pebblevfs.NewCrashableMem()}
	g.device = vfs.NewMemDevice(g.steps, 64<<20)
	g.identity = Identity{
		Cluster: block.ClusterID{ID: testID(1)}, Node: block.NodeID{ID: testID(2)}, Disk: block.DiskID{ID: testID(3)},
	}
	g.options = Options{
		Dir: g.dir, Path: "disk", Device: g.device, Executor: g.steps,
		Incarnation: block.Incarnation{Boot: testID(9)},
		Logger:      slog.New(slog.DiscardHandler),
		Reserve:     1 << 20, GrowStep: 4 << 20, MemTableSize: 256 << 10, Simulated: true,
	}
	if err := g.dir.MkdirAll("disk", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syncDir(g.dir, ""); err != nil {
		t.Fatal(err)
	}
	if err := Format(g.options, g.identity); err != nil {
		t.Fatal(err)
	}
	g.open()
	return g
}

func (g *rig) open() {
	g.t.Helper()
	g.options.Dir, g.options.Device, g.options.Executor = g.dir, g.device, g.steps
	s, err := Open(g.options)
	if err != nil {
		g.t.Fatal(err)
	}
	g.store = s
}

// settle runs every job, oldest first.
func (g *rig) settle() {
	for n := 0; g.steps.Pending() > 0; n++ {
		if n > 1_000_000 {
			g.t.Fatal("jobs without end")
		}
		g.steps.Step(0)
	}
}

func (g *rig) create(n byte, size int64) *Replica {
	g.t.Helper()
	if err := g.store.Create(ReplicaSpec{Replica: replicaID(n), Volume: block.VolumeID{ID: testID(100 + n)}, Size: size}); err != nil {
		g.t.Fatal(err)
	}
	return g.replica(n)
}

func (g *rig) replica(n byte) *Replica {
	g.t.Helper()
	r, err := g.store.Replica(replicaID(n))
	if err != nil {
		g.t.Fatal(err)
	}
	return r
}

// do submits op and runs jobs until it has ended.
func (g *rig) do(r *Replica, op *Op) error {
	g.t.Helper()
	ended := false
	op.Done = func(*Op) {
		if ended {
			g.t.Error("Done called twice")
		}
		ended = true
	}
	r.Submit(op)
	if ended {
		g.t.Fatal("Done called from within Submit")
	}
	g.settle()
	if !ended {
		g.t.Fatalf("%s did not end", op.Kind)
	}
	return op.Err
}

func (g *rig) must(r *Replica, op *Op) {
	g.t.Helper()
	if err := g.do(r, op); err != nil {
		g.t.Fatalf("%s: %v", op.Kind, err)
	}
}

func buffer(data []byte) *block.Buffer {
	b := block.NewBuffer(len(data))
	copy(b.Data, data)
	return b
}

func fill(n int, v byte) []byte { return bytes.Repeat([]byte{v}, n) }

func writeOp(offset int64, data []byte) *Op {
	return &Op{Kind: Write, Offset: offset, Length: int64(len(data)), Buf: buffer(data)}
}

func (g *rig) write(r *Replica, offset int64, data []byte) {
	g.t.Helper()
	g.must(r, writeOp(offset, data))
}

func (g *rig) read(r *Replica, offset, length int64) []byte {
	g.t.Helper()
	op := &Op{Kind: Read, Offset: offset, Length: length, Buf: block.NewBuffer(int(length))}
	for i := range op.Buf.Data {
		op.Buf.Data[i] = 0xee
	}
	g.must(r, op)
	return op.Buf.Data
}

func (g *rig) zero(r *Replica, offset, length int64) {
	g.t.Helper()
	g.must(r, &Op{Kind: Zero, Offset: offset, Length: length})
}

func (g *rig) flush(r *Replica) {
	g.t.Helper()
	g.must(r, &Op{Kind: Flush})
}

func (g *rig) expect(r *Replica, offset int64, want []byte) {
	g.t.Helper()
	got := g.read(r, offset, int64(len(want)))
	for i := range got {
		if got[i] != want[i] {
			g.t.Fatalf("byte %d of [%d, +%d) is %#x, want %#x", i, offset, len(want), got[i], want[i])
		}
	}
}

// reopen ends the store as a kill does, and opens it under the same incarnation.
func (g *rig) kill() {
	g.t.Helper()
	dir := g.dir.CrashClone(pebblevfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
	g.restart(dir, func(e *vfs.StepExecutor) *vfs.MemDevice {
		return g.device.Kill(e, func(int, vfs.UnsyncedWrite, int) bool { return false })
	})
}

// powerLoss ends the store and loses everything that was not synced.
func (g *rig) powerLoss() {
	g.t.Helper()
	dir := g.dir.CrashClone(pebblevfs.CrashCloneCfg{})
	g.options.Incarnation.Boot[0]++
	g.restart(dir, func(e *vfs.StepExecutor) *vfs.MemDevice {
		return g.device.Crash(e, func(int, vfs.UnsyncedWrite, int) bool { return false })
	})
}

func (g *rig) restart(dir *pebblevfs.MemFS, after func(*vfs.StepExecutor) *vfs.MemDevice) {
	g.t.Helper()
	if err := g.store.Abandon(); err != nil {
		g.t.Fatal(err)
	}
	steps := &vfs.StepExecutor{}
	g.device = after(steps)
	g.dir, g.steps = dir, steps
	g.open()
}

func sum(b []byte) [32]byte { return sha256.Sum256(b) }
