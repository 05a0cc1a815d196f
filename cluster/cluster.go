package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
)

// appliesInFlight bounds the commands that wait for Raft on one member.
const appliesInFlight = 256

// Cluster is this node's member of the cluster's Raft group.
type Cluster struct {
	options Options
	logger  *slog.Logger
	lock    *os.File
	disk    *raftDir
	fsm     *fsm
	raft    *raft.Raft
	stream  *streamLayer
	carrier *raft.NetworkTransport
	peers   *peers
	// following are the requests under way at the leader.
	following following
	// lastLeader is the raft.ServerID of the last leader that was known here.
	lastLeader atomic.Value
	// failures orders the members that are asked on a detour.
	failures failures
	leases   *leases
	metrics  *metrics

	// leading is set while this member leads and has applied everything that was
	// committed before its term.
	leading   atomic.Bool
	elections chan bool
	// fatal holds the error that ends Run.
	fatal   chan error
	applies chan struct{}
	// placing is held by the one creation that decides on a placement.
	placing chan struct{}
	// changingDisks is held by the one that opens or closes a disk of this node.
	changingDisks chan struct{}
	// naming are the names of snapshots that are being taken: requests of one name
	// share its reservation, and must not take it back from each other.
	naming  turns
	reverts reverts
	// mover is that of the last term in which this member led.
	mover  atomic.Pointer[mover]
	closed chan struct{}
	once   sync.Once

	mu sync.Mutex
	id identity
}

// Open prepares the member of this directory. It serves nothing before Run.
func Open(o Options) (_ *Cluster, err error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("open cluster member: %w", err)
	}
	o.Timing.setDefaults()
	if o.OverProvisioning == 0 {
		o.OverProvisioning = DefaultOverProvisioning
	}
	if o.DialRaft == nil {
		o.DialRaft = DialTCP
	}
	c := &Cluster{
		options: o, logger: o.Logger,
		leases:    newLeases(o.Clock, o.Timing.NodeLease),
		elections: make(chan bool, 16),
		fatal:     make(chan error, 1),
		applies:   make(chan struct{}, appliesInFlight),
		placing:   make(chan struct{}, 1), changingDisks: make(chan struct{}, 1),
		closed: make(chan struct{}),
	}
	c.reverts.init()
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open cluster member: %w", err)
	}
	if c.lock, err = lockDir(o.Dir); err != nil {
		return nil, err
	}
	if err := c.openIdentity(); err != nil {
		return nil, err
	}
	c.peers = newPeers(o.DialOptions)
	c.fsm = newFSM(c.fail)
	if err := c.openRaft(); err != nil {
		return nil, err
	}
	c.metrics, err = newMetrics(c, o.Registerer)
	return c, err
}

// openIdentity reads or makes the identity and opens the Raft state that belongs
// to it. An identity whose state was lost is given up (rule 1).
func (c *Cluster) openIdentity() error {
	dir := filepath.Join(c.options.Dir, "raft")
	logger := raftLogger{logger: c.logger.With("component", "raft")}
	id, known, err := loadIdentity(c.options.Dir)
	if err != nil {
		return err
	}
	if c.disk, err = openRaftDir(dir, logger); err != nil {
		return err
	}
	lost := known && id.Joined && c.disk.fresh
	if lost && c.options.Bootstrap {
		return fmt.Errorf("the Raft state of node %s of cluster %s is lost; its cluster must be joined, not begun again: %w", id.Node, id.Cluster, block.ErrInvalid)
	}
	if lost || !known && !c.disk.fresh {
		if err := c.discardRaftDir(dir); err != nil {
			return err
		}
		if c.disk, err = openRaftDir(dir, logger); err != nil {
			return err
		}
	}
	if !known || lost {
		fresh, err := newIdentity(c.options.Random)
		if err != nil {
			return err
		}
		if lost {
			c.logger.Warn("the Raft state of this node is lost; it becomes a new node", "node", fresh.Node, "lost_node", id.Node)
		}
		id = fresh
		if err := id.save(c.options.Dir); err != nil {
			return err
		}
	}
	c.id = id
	return nil
}

// discardRaftDir sets aside what is left of a Raft state that cannot be used.
func (c *Cluster) discardRaftDir(dir string) error {
	if err := c.disk.logs.Close(); err != nil {
		return fmt.Errorf("close Raft log: %w", err)
	}
	c.disk = nil
	aside := dir + ".lost"
	if err := os.RemoveAll(aside); err != nil {
		return fmt.Errorf("set aside lost Raft state: %w", err)
	}
	if err := os.Rename(dir, aside); err != nil {
		return fmt.Errorf("set aside lost Raft state: %w", err)
	}
	return nil
}

func (c *Cluster) openRaft() error {
	o := &c.options
	own := raftAddress(c.id.Node, o.RaftAddress)
	c.stream = newStreamLayer(o.RaftListener, c.id.Node, c.ClusterID, o.DialRaft, c.logger)
	c.stream.address = own
	logger := raftLogger{logger: c.logger.With("component", "raft")}
	c.carrier = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: c.stream, MaxPool: 3, Timeout: 2 * o.Timing.Election, Logger: logger,
	})
	config := raft.DefaultConfig()
	config.LocalID = serverID(c.id.Node)
	config.Logger = logger
	config.NotifyCh = c.elections
	config.NoLegacyTelemetry = true
	config.HeartbeatTimeout = o.Timing.Election
	config.ElectionTimeout = o.Timing.Election
	// A leader steps down when it has not heard from a majority for as long as a
	// follower waits at least. Earlier would be an election for a pause that nobody
	// else has noticed.
	config.LeaderLeaseTimeout = o.Timing.Election
	// A node that was removed has to say so rather than fall silent.
	config.ShutdownOnRemove = false
	// Commands are small and a restore is cheap: keep the log short.
	config.SnapshotThreshold = 4096
	config.TrailingLogs = 2048

	if o.Bootstrap && c.disk.fresh {
		self := raft.Server{ID: config.LocalID, Address: own, Suffrage: raft.Voter}
		if err := raft.BootstrapCluster(config, c.disk.logs, c.disk.logs, c.disk.snapshots, c.carrier,
			raft.Configuration{Servers: []raft.Server{self}}); err != nil {
			return fmt.Errorf("bootstrap Raft: %w", err)
		}
	}
	const cachedEntries = 512
	cache, err := raft.NewLogCache(cachedEntries, c.disk.logs)
	if err != nil {
		return fmt.Errorf("open Raft: %w", err)
	}
	if c.raft, err = raft.NewRaft(config, c.fsm, cache, c.disk.logs, c.disk.snapshots, c.carrier); err != nil {
		return fmt.Errorf("open Raft: %w", err)
	}
	return nil
}

func serverID(node block.NodeID) raft.ServerID { return raft.ServerID(node.String()) }

// Run is the member at work. It owns all goroutines of the member but those
// inside Raft, joins them, and returns nil after ctx has ended, or the reason why
// this member cannot go on: it was refused by the cluster (block.ErrForeign), its
// log holds what this build does not know (block.ErrVersion), or it leads and can
// write no more (block.ErrUnavailable). A new process may then try again. Close
// still has to be called.
func (c *Cluster) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(c.stream.run)
	g.Go(func() error { return c.watchElections(ctx) })
	g.Go(func() error { return c.watchLeader(ctx) })
	g.Go(func() error { return c.register(ctx) })
	g.Go(func() error { return c.sendHeartbeats(ctx) })
	g.Go(func() error { return c.runAgent(ctx) })
	g.Go(func() error {
		select {
		case err := <-c.fatal:
			return err
		case <-ctx.Done():
			return nil
		}
	})
	g.Go(func() error {
		<-ctx.Done()
		return c.Close()
	})
	return g.Wait()
}

// fail ends Run with an error.
func (c *Cluster) fail(err error) {
	select {
	case c.fatal <- err:
	default:
	}
}

// Close ends the member: leadership handed over, no more requests, Raft down, files
// closed. It may be called more than once.
func (c *Cluster) Close() (err error) {
	c.once.Do(func() {
		c.handOver()
		close(c.closed)
		c.leading.Store(false)
		if c.peers != nil {
			err = errors.Join(err, c.peers.close())
		}
		if c.raft != nil {
			err = errors.Join(err, c.raft.Shutdown().Error())
		}
		if c.carrier != nil {
			err = errors.Join(err, c.carrier.Close())
		} else {
			err = errors.Join(err, c.options.RaftListener.Close())
		}
		if c.disk != nil {
			err = errors.Join(err, c.disk.logs.Close())
		}
		if c.metrics != nil {
			c.metrics.unregister()
		}
		if c.lock != nil {
			err = errors.Join(err, c.lock.Close())
		}
	})
	return err
}

// NodeID is the ID of this node.
func (c *Cluster) NodeID() block.NodeID {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.id.Node
}

// ClusterID is the cluster this node belongs to, zero until it has joined.
func (c *Cluster) ClusterID() block.ClusterID {
	if id := c.State().Cluster(); !id.IsZero() {
		return id
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.id.Cluster
}

// joined records durably that the cluster has taken this node in.
func (c *Cluster) joined(cluster block.ClusterID) error {
	c.mu.Lock()
	id := c.id
	id.Cluster, id.Joined = cluster, true
	same := id == c.id
	c.id = id
	c.mu.Unlock()
	if same {
		return nil
	}
	return id.save(c.options.Dir)
}

// State is the state as far as this member has applied it.
func (c *Cluster) State() *state.State {
	s, _ := c.fsm.read()
	return s
}

// Changes returns a channel that is closed when State is about to return another
// state. Take the channel before reading the state.
func (c *Cluster) Changes() <-chan struct{} {
	_, changed := c.fsm.read()
	return changed
}

// Wait waits until the local state fulfils a condition.
func (c *Cluster) Wait(ctx context.Context, holds func(*state.State) bool) error {
	for {
		s, changed := c.fsm.read()
		if holds(s) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-c.closed:
			return block.ErrClosed
		}
	}
}

// Ready waits until this node is a member and knows itself.
func (c *Cluster) Ready(ctx context.Context) error {
	own := c.NodeID()
	err := c.Wait(ctx, func(s *state.State) bool {
		_, ok := s.Node(own)
		return ok
	})
	if err != nil {
		return fmt.Errorf("wait to become a member: %w", err)
	}
	return nil
}

// bound gives a request without a deadline one.
func (c *Cluster) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, c.options.Timing.Request)
}

// pause waits for d, or until ctx or the member ends.
func (c *Cluster) pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-c.closed:
		return block.ErrClosed
	}
}
