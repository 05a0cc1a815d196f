package store

import (
	"errors"
	"fmt"
	"slices"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/test/crash/sectors"
)

const maxModelCuts = 4

// actCut takes a cut, drops one or reads from one.
func (c *chaos) actCut(n byte, r *Replica) {
	var mine []*sectors.Cut
	for _, q := range c.model.Cuts {
		if q.Replica == n && q.Acked && !q.Dropping {
			mine = append(mine, q)
		}
	}
	switch p := c.random.IntN(10); {
	case len(mine) == 0 || p < 3 && len(c.model.Cuts) < maxModelCuts:
		c.takeCut(n, r)
	case p < 5:
		c.dropCut(r, mine[c.random.IntN(len(mine))])
	default:
		first, count := c.span(300)
		c.readCut(r, mine[c.random.IntN(len(mine))], first, count)
	}
}

func (c *chaos) takeCut(n byte, r *Replica) {
	c.names++
	q := c.model.BeginCut(n, c.names)
	c.note("cut %d of %d", q.Name, n)
	update := &block.Update{Cuts: []block.CutRequest{{Snapshot: snapshotID(q.Name), Epoch: 1}}}
	c.submit(r, &Op{Kind: Update, Meta: update}, func(*Op) {
		c.note("cut %d taken", q.Name)
		q.Acked = true
	})
}

func (c *chaos) dropCut(r *Replica, q *sectors.Cut) {
	c.note("drop cut %d of %d", q.Name, q.Replica)
	q.Dropping = true
	update := &block.Update{DropCuts: []block.SnapshotID{snapshotID(q.Name)}}
	c.submit(r, &Op{Kind: Update, Meta: update}, func(*Op) { c.model.ForgetCut(q) })
}

// readCut compares a part of a cut with what it may be. It may be dropped meanwhile.
func (c *chaos) readCut(r *Replica, q *sectors.Cut, first, count int) {
	op := &Op{Kind: Read, Snapshot: snapshotID(q.Name), Offset: int64(first) * block.SectorSize, Length: int64(count) * block.SectorSize}
	op.Buf = block.NewBuffer(int(op.Length))
	generation := c.generation
	c.inFlight++
	op.Done = func(op *Op) {
		if generation != c.generation {
			c.fail(errors.New("a request ended after its store was abandoned"))
			return
		}
		c.inFlight--
		switch {
		case q.Dropping && errors.Is(op.Err, block.ErrNotFound):
		case op.Err != nil && c.tolerant:
			c.failed = append(c.failed, fmt.Errorf("%s: %w", op.Kind, op.Err))
		case op.Err != nil:
			c.fail(fmt.Errorf("read cut %d: %w", q.Name, op.Err))
		case !q.Dropping:
			c.observe(q, first, op.Buf.Data)
		}
	}
	r.Submit(op)
}

func (c *chaos) observe(q *sectors.Cut, first int, data []byte) {
	for i := 0; i < len(data)/block.SectorSize; i++ {
		tag, err := sectors.Read(data[i*block.SectorSize:(i+1)*block.SectorSize], q.Replica)
		if err == nil {
			err = q.Observe(first+i, tag)
		}
		if err != nil {
			c.fail(fmt.Errorf("cut %d, sector %d: %w", q.Name, first+i, err))
			return
		}
	}
}

// verifyCuts looks at what a crash has left of the cuts. After a kill all that were
// acknowledged are there, and those that were valid are unchanged. What the engine would
// not use it drops.
func (c *chaos) verifyCuts(n byte, r *Replica, kill bool) {
	held := r.Cuts()
	for _, q := range slices.Clone(c.model.Cuts) {
		if q.Replica != n || c.failure != nil {
			continue
		}
		i := slices.IndexFunc(held, func(h block.Cut) bool { return h.Snapshot == snapshotID(q.Name) })
		switch {
		case i < 0 && q.Acked && !q.Dropping:
			c.fail(fmt.Errorf("cut %d of replica %d is lost, kill %v", q.Name, n, kill))
			continue
		case i < 0:
			c.model.ForgetCut(q)
			continue
		case q.Flushed && !q.Dropping && !held[i].Valid:
			c.fail(fmt.Errorf("cut %d of replica %d was flushed and is not valid", q.Name, n))
			continue
		}
		intact := held[i].Valid && !q.Spoiled
		if intact {
			for first := 0; first < len(q.Allowed); first += block.ChunkSize / block.SectorSize {
				c.readCut(r, q, first, min(block.ChunkSize/block.SectorSize, len(q.Allowed)-first))
				c.settle()
			}
		}
		if q.Dropping || !intact {
			c.dropCut(r, q)
			c.settle()
			continue
		}
		q.Acked = true
	}
	c.settle()
	if c.failure == nil {
		if err := c.store.Check(); err != nil {
			c.fail(fmt.Errorf("after cuts were dropped: %w", err))
		}
	}
}
