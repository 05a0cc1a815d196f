package store

import (
	"math/rand/v2"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/test/crash/sectors"
)

func keepAll(dir *pebblevfs.MemFS) *pebblevfs.MemFS {
	return dir.CrashClone(pebblevfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
}

const faultSize = 1 << 20

// scenario is what the store does around the syncs: writes of parts of blocks to
// valid, new and reused blocks, trims, flushes of both replicas.
func scenario(c *chaos) {
	write := func(n byte, first, count int) {
		tag := c.model.Begin(n, first, count, false)
		data := make([]byte, count*block.SectorSize)
		for i := range count {
			sectors.Fill(data[i*block.SectorSize:(i+1)*block.SectorSize], n, tag+uint64(i))
		}
		c.submit(c.replica(n), writeOp(int64(first)*block.SectorSize, data), func(*Op) { c.model.Ack(n, first, count, tag, false) })
	}
	zero := func(n byte, first, count int) {
		tag := c.model.Begin(n, first, count, true)
		op := &Op{Kind: Zero, Offset: int64(first) * block.SectorSize, Length: int64(count) * block.SectorSize}
		c.submit(c.replica(n), op, func(*Op) { c.model.Ack(n, first, count, tag, true) })
	}
	number := uint64(0)
	flush := func(n byte) {
		number++
		marks := c.model.Mark(n)
		c.submit(c.replica(n), &Op{Kind: Flush, FlushNumber: block.FlushNumber{Epoch: 1, N: number}}, func(*Op) { c.model.Flushed(n, marks) })
	}
	drop := func(i int) { c.dropCut(c.replica(c.model.Cuts[i].Replica), c.model.Cuts[i]) }
	write(1, 0, 8)
	write(1, 130, 3)
	write(2, 0, 256)
	c.settle()
	flush(1)
	c.settle()
	c.takeCut(2, c.replica(2))
	write(1, 1, 1)
	write(1, 20, 30)
	zero(2, 3, 200)
	c.settle()
	flush(2)
	c.takeCut(1, c.replica(1))
	write(1, 256, 128)
	c.settle()
	zero(1, 0, 128)
	c.settle()
	write(1, 2, 1)
	write(2, 10, 1)
	flush(1)
	flush(2)
	c.settle()
	write(2, 128, 256)
	write(1, 4, 2)
	c.settle()
	if len(c.model.Cuts) == 2 {
		drop(0)
	}
	c.takeCut(1, c.replica(1))
	write(1, 130, 5)
	c.settle()
	c.submit(c.replica(1), &Op{Kind: Update, Meta: &block.Update{ClearLog: block.RegionsOf(0)}}, func(*Op) {})
	c.settle()
	flush(2)
	c.settle()
}
