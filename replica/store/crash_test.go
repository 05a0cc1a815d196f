package store

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
	"github.com/holdfast-io/holdfast/test/crash/sectors"
)

var (
	crashSeed  = flag.Uint64("crash.seed", 0, "seed of the random crash test; 0 runs a fixed set")
	crashSeeds = flag.Int("crash.seeds", 4, "number of seeds of the random crash test")
)

// chaos drives a store with random requests, crashes it at random moments and
// compares what it finds with a model.
//
// The fault model: a kill ends the process between any two steps; writes in
// flight may reach the device as a whole or by sectors; nothing that the
// operating system had is lost. A power loss keeps what was synced and any
// subset, by sector, of what was not, in the data file and in the files of the
// metadata directory.
type chaos struct {
	*rig
	random *rand.Rand
	model  *sectors.Model
	// sizes are the replicas and their sizes.
	sizes map[byte]int64
	order []byte
	// inFlight counts requests that have not ended.
	inFlight int
	// tolerant: requests may fail; failed are their errors.
	tolerant   bool
	failed     []error
	failure    error
	trace      []string
	bugs       bugs
	generation int
	// names counts the cuts.
	names byte
}

const chaosSize = 18 << 20

// bugs are planted in what the store stands on, to see that the test finds them.
type bugs struct {
	device func(vfs.Device) vfs.Device
	dir    func(vfs.Dir) vfs.Dir
}

func newChaos(t testing.TB, seed uint64, planted bugs) *chaos {
	c := &chaos{random: rand.New(rand.NewPCG(seed, 7)), model: sectors.New(), sizes: map[byte]int64{}, bugs: planted}
	c.rig = newRig(t)
	c.reopen()
	for n := byte(1); n <= 3; n++ {
		c.addReplica(n)
	}
	return c
}

// reopen opens the store again with the limits of this test, which are small
// so that every mechanism works.
func (c *chaos) reopen() {
	c.t.Helper()
	if err := c.store.Abandon(); err != nil {
		c.t.Fatal(err)
	}
	c.dir = c.dir.CrashClone(pebblevfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
	c.options.JournalSize = 4 << 10
	c.options.MaxChanged = 24
	c.options.CacheSize = 4 * pageBytes
	c.openBroken()
}

func (c *chaos) openBroken() {
	c.t.Helper()
	c.options.Dir, c.options.Executor = c.dir, c.steps
	c.options.Device = c.device
	if c.bugs.device != nil {
		c.options.Device = c.bugs.device(c.device)
	}
	if c.bugs.dir != nil {
		c.options.Dir = c.bugs.dir(c.dir)
	}
	s, err := Open(c.options)
	if err != nil {
		c.fail(fmt.Errorf("open after a crash: %w", err))
		return
	}
	c.store = s
}

func (c *chaos) fail(err error) {
	if c.failure == nil {
		c.failure = err
	}
}

func (c *chaos) addReplica(n byte) {
	c.create(n, chaosSize)
	c.model.Add(n, chaosSize)
	c.sizes[n] = chaosSize
	c.order = append(c.order, n)
}

// span picks a range near a few hot spots, so that requests collide.
func (c *chaos) span(maxSectors int) (first, n int) {
	spots := []int{0, 128, 500, 8190, 32768 - 64, 36864 - 300}
	first = spots[c.random.IntN(len(spots))] + c.random.IntN(200)
	n = 1 + c.random.IntN(maxSectors)
	if c.random.IntN(3) == 0 {
		first &^= 7
		n = (n + 7) &^ 7
	}
	last := chaosSize / block.SectorSize
	first = min(first, last-1)
	return first, min(n, last-first)
}

func (c *chaos) submit(r *Replica, op *Op, done func(*Op)) {
	generation := c.generation
	c.inFlight++
	op.Done = func(op *Op) {
		if generation != c.generation {
			c.fail(errors.New("a request ended after its store was abandoned"))
			return
		}
		c.inFlight--
		if op.Err != nil && c.tolerant {
			c.failed = append(c.failed, fmt.Errorf("%s: %w", op.Kind, op.Err))
			c.model.Spoil()
			return
		}
		if op.Err != nil {
			c.fail(fmt.Errorf("%s of %d at %d: %w", op.Kind, op.Length, op.Offset, op.Err))
			return
		}
		done(op)
	}
	r.Submit(op)
}

// act submits one random request.
func (c *chaos) act() {
	n := c.order[c.random.IntN(len(c.order))]
	r := c.replica(n)
	switch p := c.random.IntN(100); {
	case p < 55:
		c.actWrite(n, r)
	case p < 70:
		c.actZero(n, r)
	case p < 80:
		c.actFlush(n, r)
	case p < 92:
		c.actRead(n, r)
	case p < 94:
		c.actHash(r)
	case p < 98:
		c.actCut(n, r)
	default:
		c.actClear(r)
	}
}

func (c *chaos) actWrite(n byte, r *Replica) {
	first, count := c.span(c.pick(4, 16, 300))
	tag := c.model.Begin(n, first, count, false)
	data := make([]byte, count*block.SectorSize)
	for i := range count {
		sectors.Fill(data[i*block.SectorSize:(i+1)*block.SectorSize], n, tag+uint64(i))
	}
	c.note("write %d: %d+%d tag %d", n, first, count, tag)
	op := writeOp(int64(first)*block.SectorSize, data)
	if c.random.IntN(8) == 0 {
		op.Flags = block.FlagDurable
		c.submit(r, op, func(*Op) { c.model.Durable(n, first, count, tag) })
		return
	}
	c.submit(r, op, func(*Op) { c.model.Ack(n, first, count, tag, false) })
}

func (c *chaos) actZero(n byte, r *Replica) {
	first, count := c.span(c.pick(20, 300, 20000))
	tag := c.model.Begin(n, first, count, true)
	c.note("zero %d: %d+%d", n, first, count)
	op := &Op{Kind: Zero, Offset: int64(first) * block.SectorSize, Length: int64(count) * block.SectorSize}
	c.submit(r, op, func(*Op) { c.model.Ack(n, first, count, tag, true) })
}

func (c *chaos) actFlush(n byte, r *Replica) {
	marks := c.model.Mark(n)
	var cuts []*sectors.Cut
	for _, q := range c.model.Cuts {
		if q.Replica == n && q.Acked {
			cuts = append(cuts, q)
		}
	}
	number := block.FlushNumber{Epoch: 1, N: c.model.NextTag}
	c.note("flush %d", n)
	c.submit(r, &Op{Kind: Flush, FlushNumber: number}, func(*Op) {
		c.note("flushed %d", n)
		c.model.Flushed(n, marks)
		for _, q := range cuts {
			q.Flushed = true
		}
		if r.FlushNumber().Less(number) {
			c.fail(fmt.Errorf("flush %v ended, the number is %v", number, r.FlushNumber()))
		}
	})
}

// actRead checks that a read returns a value that some write in flight or the
// last one gave each sector.
func (c *chaos) actRead(n byte, r *Replica) {
	first, count := c.span(100)
	op := &Op{Kind: Read, Offset: int64(first) * block.SectorSize, Length: int64(count) * block.SectorSize, Flags: block.FlagAcceptSuspect}
	op.Buf = block.NewBuffer(int(op.Length))
	c.submit(r, op, func(op *Op) {
		for i := range count {
			if _, err := sectors.Read(op.Buf.Data[i*block.SectorSize:(i+1)*block.SectorSize], n); err != nil {
				c.fail(fmt.Errorf("read replica %d sector %d: %w", n, first+i, err))
			}
		}
	})
}

func (c *chaos) actHash(r *Replica) {
	c.submit(r, &Op{Kind: Hash, Offset: 0, Length: 1 << 20}, func(op *Op) {
		for i, h := range op.Hashes {
			if h.Bad != 0 {
				c.fail(fmt.Errorf("hash of replica %s: extent %d has bad blocks %#x", r.ID(), i, h.Bad))
			}
		}
	})
}

// actClear takes a region out of the log. As the engine would, it first reads
// the region, so that no suspect checksum is left.
func (c *chaos) actClear(r *Replica) {
	if c.inFlight > 0 {
		return
	}
	region := block.Region(c.random.IntN(2))
	c.note("clear log %s: %d", r.ID().Short(), region)
	if !c.scrub(r, region) {
		return
	}
	var regions block.Regions
	regions.Add(region)
	c.submit(r, &Op{Kind: Update, Meta: &block.Update{ClearLog: regions}}, func(*Op) {})
	c.settle()
}

// scrub reads a region and takes suspect checksums as they are.
func (c *chaos) scrub(r *Replica, region block.Region) bool {
	for at := region.Span().Offset; at < min(region.Span().End(), r.Size()); at += block.MaxTransfer {
		op := &Op{Kind: Read, Offset: at, Length: block.MaxTransfer, Flags: block.FlagAcceptSuspect, Buf: block.NewBuffer(block.MaxTransfer)}
		c.submit(r, op, func(*Op) {})
		c.settle()
		op.Buf.Release()
	}
	return c.failure == nil
}

func (c *chaos) pick(of ...int) int { return of[c.random.IntN(len(of))] }

func (c *chaos) note(format string, args ...any) {
	c.trace = append(c.trace, fmt.Sprintf(format, args...))
}

// crash ends the store in the middle of whatever it does and looks at what is
// left.
func (c *chaos) crash() {
	kill := c.random.IntN(2) == 0
	c.generation++
	c.inFlight = 0
	share := c.pick(0, 50, 100)
	keep := func(int, vfs.UnsyncedWrite, int) bool { return c.random.IntN(100) < share }
	if c.random.IntN(2) == 0 {
		whole := map[int]bool{}
		keep = func(i int, _ vfs.UnsyncedWrite, _ int) bool {
			kept, known := whole[i]
			if !known {
				kept = c.random.IntN(100) < share
				whole[i] = kept
			}
			return kept
		}
	}
	steps := &vfs.StepExecutor{}
	c.note("crash, kill %v, keep %d%%", kill, share)
	if kill {
		c.dir = c.dir.CrashClone(pebblevfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: c.random})
		c.device = c.device.Kill(steps, keep)
	} else {
		c.dir = c.dir.CrashClone(pebblevfs.CrashCloneCfg{UnsyncedDataPercent: c.pick(0, 50, 100), RNG: c.random})
		c.device = c.device.Crash(steps, keep)
		c.options.Incarnation.DiskSequence++
	}
	if err := c.store.Abandon(); err != nil {
		c.fail(err)
		return
	}
	old := c.steps
	c.steps = steps
	for old.Pending() > 0 {
		old.Step(0)
	}
	c.openBroken()
	if c.failure == nil {
		c.verify(kill)
	}
}

// closeInOrder closes the store, after a flush, for Close would wait for jobs that
// nobody runs. Then nothing can be lost, with or without power.
func (c *chaos) closeInOrder() {
	c.settle()
	c.actFlush(c.order[0], c.replica(c.order[0]))
	if c.settle(); c.failure != nil {
		return
	}
	power := c.random.IntN(2) == 0
	c.note("closed in order, power lost %v", power)
	if err := c.store.Close(); err != nil {
		c.fail(err)
		return
	}
	if power {
		c.dir = c.dir.CrashClone(pebblevfs.CrashCloneCfg{})
		c.device = c.device.Crash(c.steps, func(int, vfs.UnsyncedWrite, int) bool { return false })
		c.options.Incarnation.DiskSequence++
	} else {
		c.device = c.device.Fork() // the store has closed the other one
	}
	if c.openBroken(); c.failure == nil {
		c.verify(true)
	}
}

// verify compares every sector with the model, and the maps with the
// allocation.
func (c *chaos) verify(kill bool) {
	c.settle()
	if err := c.store.Check(); err != nil {
		c.fail(err)
		return
	}
	for _, n := range c.order {
		r, err := c.store.Replica(replicaID(n))
		if err != nil {
			c.fail(err)
			return
		}
		for at := int64(0); at < r.Size(); at += block.ChunkSize {
			op := &Op{Kind: Read, Offset: at, Length: block.ChunkSize, Flags: block.FlagAcceptSuspect, Buf: block.NewBuffer(block.ChunkSize)}
			c.submit(r, op, func(*Op) {})
			c.settle()
			if c.failure != nil {
				return
			}
			c.compare(n, int(at/block.SectorSize), op.Buf.Data, kill)
			op.Buf.Release()
		}
		c.verifyCuts(n, r, kill)
	}
}

func (c *chaos) compare(n byte, first int, data []byte, kill bool) {
	for i := 0; i < len(data)/block.SectorSize; i++ {
		tag, err := sectors.Read(data[i*block.SectorSize:(i+1)*block.SectorSize], n)
		if err == nil {
			err = c.model.Survive(n, first+i, tag, kill)
		}
		if err != nil {
			c.fail(fmt.Errorf("after a crash, kill %v: replica %d sector %d: %w", kill, n, first+i, err))
			return
		}
	}
}

// run makes crashes, with some hundred steps before each.
func (c *chaos) run(crashes int) error {
	for range crashes {
		for range 20 + c.random.IntN(300) {
			if c.steps.Pending() == 0 || c.inFlight < 24 && c.random.IntN(3) == 0 {
				c.act()
			} else {
				c.steps.Step(c.random.IntN(c.steps.Pending()))
			}
			if c.failure != nil {
				return c.failure
			}
		}
		if c.random.IntN(8) == 0 {
			c.replaceReplica()
		}
		if c.random.IntN(6) == 0 && c.failure == nil {
			c.closeInOrder()
		}
		if c.crash(); c.failure != nil {
			return c.failure
		}
	}
	return nil
}

// replaceReplica deletes one and makes another, which takes over its extents.
func (c *chaos) replaceReplica() {
	c.settle()
	i := c.random.IntN(len(c.order))
	n := c.order[i]
	c.note("delete %d", n)
	if err := c.store.Delete(replicaID(n)); err != nil {
		c.fail(err)
		return
	}
	c.order = append(c.order[:i], c.order[i+1:]...)
	c.model.DropReplicaCuts(n)
	for range c.random.IntN(10) {
		if c.steps.Pending() > 0 {
			c.steps.Step(0)
		}
	}
	c.addReplica(n + 3)
}

func TestRandomCrashes(t *testing.T) {
	first, count := uint64(1), *crashSeeds
	if *crashSeed != 0 {
		first, count = *crashSeed, 1
	}
	for seed := first; seed < first+uint64(count); seed++ {
		c := newChaos(t, seed, bugs{})
		if err := c.run(15); err != nil {
			for _, line := range c.trace[max(0, len(c.trace)-60):] {
				t.Log(line)
			}
			t.Fatalf("seed %d: %v", seed, err)
		}
		if err := c.store.Abandon(); err != nil {
			t.Fatal(err)
		}
	}
}
