package cluster

import (
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/clock"
)

// DiskReport is what a node says of one of its disks.
type DiskReport struct {
	ID block.DiskID
	// Capacity is what replicas may take, Free what is left of it, in bytes.
	Capacity int64
	Free     int64
	// Failure is empty while the disk works.
	Failure string
	// Warning is empty, or what is going to be wrong with it.
	Warning string
	// Device is the block device that was given, by its present name; empty for a
	// directory.
	Device string
}

// leases is who the leader has heard from. It lives in the leader's memory: a new
// leader begins with an empty one. All that it brings along is when the leader before
// it, which it followed, answered last.
type leases struct {
	clock  clock.Clock
	length time.Duration

	mu     sync.Mutex
	since  block.Instant
	nodes  map[block.NodeID]lease
	disks  map[block.DiskID]DiskReport
	former block.NodeID
	last   block.Instant
}

type lease struct {
	heard block.Instant
	index uint64
}

func newLeases(clock clock.Clock, length time.Duration) *leases {
	l := &leases{clock: clock, length: length}
	l.reset()
	return l
}

// reset begins a term.
func (l *leases) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last < l.since {
		l.former = block.NodeID{} // this node led itself meanwhile
	}
	l.since = l.clock.Now()
	l.nodes = map[block.NodeID]lease{}
	l.disks = map[block.DiskID]DiskReport{}
}

// heard renews the lease of a node that has applied up to index.
func (l *leases) heard(node block.NodeID, index uint64, disks []DiskReport) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nodes[node] = lease{heard: l.clock.Now(), index: index}
	for _, d := range disks {
		l.disks[d.ID] = d
	}
}

// answered notes a sign of life of the leader that this node follows.
func (l *leases) answered(leader block.NodeID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.former, l.last = leader, l.clock.Now()
}

// alive reports whether the lease of a node, or the first one of this leader,
// still runs.
//
// Rule 28 (the cluster's truth is away): a new leader holds nobody for dead before a
// full lease of its own. Without a leader, engines go on, because nothing on the path
// of I/O asks Raft; what needs a change of the view waits for one (settle).
func (l *leases) alive(node block.NodeID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.quiet(node) < block.Instant(l.length)
}

// quietFor is how long nothing was heard of a node: by this leader, and of the leader
// before it as long as this node followed that.
func (l *leases) quietFor(node block.NodeID) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if node == l.former {
		return time.Duration(l.clock.Now() - max(l.last, l.nodes[node].heard))
	}
	return time.Duration(l.quiet(node))
}

// quiet is how long this leader has heard nothing of a node.
func (l *leases) quiet(node block.NodeID) block.Instant {
	return l.clock.Now() - max(l.since, l.nodes[node].heard)
}

// follows reports whether a node was heard within its lease and had applied at
// least up to index.
func (l *leases) follows(node block.NodeID, index uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, ok := l.nodes[node]
	return ok && l.clock.Now()-n.heard < block.Instant(l.length) && n.index >= index
}

// applied is up to where a node had applied the log when it was heard last.
func (l *leases) applied(node block.NodeID) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nodes[node].index
}

// disk is the last report on a disk.
func (l *leases) disk(id block.DiskID) (DiskReport, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d, ok := l.disks[id]
	return d, ok
}
