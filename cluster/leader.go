package cluster

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
)

// watchElections runs the leader's duties while this member leads. It takes
// Raft's news at once, because Raft waits for that.
func (c *Cluster) watchElections(ctx context.Context) error {
	resign := func() {}
	defer func() { resign() }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case leads := <-c.elections:
			resign()
			resign = func() {}
			if leads {
				resign = c.beginTerm(ctx)
			}
		}
	}
}

// beginTerm begins to lead; the returned function ends that and waits until it
// has ended.
func (c *Cluster) beginTerm(ctx context.Context) (resign func()) {
	term, cancel := context.WithCancel(ctx)
	var duties sync.WaitGroup
	duties.Go(func() { c.lead(term) })
	duties.Go(func() { c.move(term) })
	duties.Go(func() { c.tidy(term) })
	return func() {
		cancel()
		duties.Wait()
	}
}

// lead is one term of leadership: first everything committed before it is
// applied, then requests are answered.
func (c *Cluster) lead(ctx context.Context) {
	defer c.leading.Store(false)
	c.leases.reset()
	var dog watchdog
	for !c.leading.Load() {
		err := c.begin(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			c.logger.Warn("cannot begin to lead", "error", err)
			if dog.bites(err) || c.pause(ctx, c.options.Timing.Heartbeat) != nil {
				c.giveUp(ctx, err)
				return
			}
			continue
		}
		c.leading.Store(true)
	}
	c.logger.Info("leading the cluster", "node", c.NodeID(), "term", c.raft.CurrentTerm())
	reverting, cancel := context.WithCancel(ctx)
	var reverts sync.WaitGroup
	reverts.Go(func() { c.finishReverts(reverting) })
	defer reverts.Wait()
	defer cancel()
	promote := time.NewTicker(c.options.Timing.Heartbeat)
	defer promote.Stop()
	probe := time.NewTicker(c.options.Timing.Watchdog)
	defer probe.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-promote.C:
			if err := c.promote(ctx); err != nil && ctx.Err() == nil {
				c.logger.Warn("cannot make a member a voter", "error", err)
			}
			c.fenceBorrowers(ctx)
		case <-probe.C:
			if err := c.barrier(ctx); dog.bites(err) {
				c.giveUp(ctx, err)
				return
			}
			c.sweepMeans(ctx, time.Now())
		}
	}
}

// begin applies what earlier terms committed and gives a new cluster its ID.
func (c *Cluster) begin(ctx context.Context) error {
	if err := c.barrier(ctx); err != nil {
		return err
	}
	if !c.State().Cluster().IsZero() {
		return nil
	}
	id, err := block.NewID(c.options.Random)
	if err != nil {
		return fmt.Errorf("make cluster ID: %w", err)
	}
	data, err := state.Encode(state.Bootstrap{Cluster: block.ClusterID{ID: id}, Incarnation: 1})
	if err != nil {
		return err
	}
	a, err := c.submit(ctx, data)
	if err != nil {
		return fmt.Errorf("bootstrap cluster: %w", err)
	}
	return a.result.Err
}

// barrier is a write that changes nothing.
func (c *Cluster) barrier(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.options.Timing.Watchdog)
	defer cancel()
	return c.settle(ctx, func() raft.Future { return c.raft.Barrier(c.options.Timing.Watchdog) })
}

// giveUp ends this member, so that a new process may begin anew and the others
// elect another leader meanwhile.
func (c *Cluster) giveUp(ctx context.Context, err error) {
	if ctx.Err() == nil && c.raft.State() == raft.Leader {
		c.fail(fmt.Errorf("this leader cannot write: %w: %w", err, block.ErrUnavailable))
	}
}

// handOver lets another member lead before this one ends in order: an election
// would hold up every change for a second or two. A transfer that fails may leave a
// leader that refuses writes (hashicorp/raft#696); this one is about to end anyway.
func (c *Cluster) handOver() {
	if c.raft == nil || c.raft.State() != raft.Leader {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.options.Timing.Election)
	defer cancel()
	if err := c.settle(ctx, func() raft.Future { return c.raft.LeadershipTransfer() }); err != nil {
		c.logger.Info("nobody took over the leadership of this member", "error", err)
	}
}

// watchdog notices a leader whose writes fail again and again though Raft calls
// it the leader: after an interrupted transfer of leadership it refuses them for
// ever (hashicorp/raft#696), and so it does on a disk that hangs.
type watchdog struct{ failures int }

// watchdogPatience is how many probes in a row may fail.
const watchdogPatience = 3

// bites reports whether the outcome of another probe is one too many.
func (w *watchdog) bites(err error) bool {
	if err == nil {
		w.failures = 0
		return false
	}
	w.failures++
	return w.failures > watchdogPatience
}
