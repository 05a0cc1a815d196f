package server

import (
	"bytes"
	"math/rand"
	"slices"
	"sync"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/turn"
	"github.com/holdfast-io/holdfast/internal/wire"
	"github.com/holdfast-io/holdfast/replica/store"
)

// steppedReplica holds every operation until the test lets it go. Its bytes are
// in memory: what the tests here need of a store is its timing.
type steppedReplica struct {
	id     block.ReplicaID
	volume block.VolumeID
	data   []byte

	mu    sync.Mutex
	held  []*store.Op
	fence block.Fence
	view  block.View
	cuts  []block.Cut
	fail  error
	// last is the operation that was done last, without its results.
	last store.Op
}

var _ Replica = (*steppedReplica)(nil)

func (r *steppedReplica) ID() block.ReplicaID            { return r.id }
func (r *steppedReplica) Volume() block.VolumeID         { return r.volume }
func (r *steppedReplica) Size() int64                    { return int64(len(r.data)) }
func (r *steppedReplica) Used() int64                    { return int64(len(r.data)) }
func (r *steppedReplica) View() block.View               { return r.view.Clone() }
func (r *steppedReplica) Log() block.Regions             { return block.RegionsOf(0) }
func (r *steppedReplica) DirtySets() []block.DirtySet    { return nil }
func (r *steppedReplica) FlushNumber() block.FlushNumber { return block.FlushNumber{Epoch: 1, N: 7} }
func (r *steppedReplica) Confirmed() []block.Confirmed   { return nil }
func (r *steppedReplica) Cuts() []block.Cut              { return r.cuts }
func (r *steppedReplica) Fence() block.Fence {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fence
}

func (r *steppedReplica) Submit(op *store.Op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = append(r.held, op)
}

// waiting is the number of operations held.
func (r *steppedReplica) waiting() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.held)
}

// kinds are those of the held operations, oldest first.
func (r *steppedReplica) kinds() []store.Kind {
	r.mu.Lock()
	defer r.mu.Unlock()
	var kinds []store.Kind
	for _, op := range r.held {
		kinds = append(kinds, op.Kind)
	}
	return kinds
}

// step does and completes the i-th held operation; false if there is none.
func (r *steppedReplica) step(i int) bool {
	r.mu.Lock()
	if i >= len(r.held) {
		r.mu.Unlock()
		return false
	}
	op := r.held[i]
	r.last = *op
	r.held = slices.Delete(r.held, i, i+1)
	op.Err = r.fail
	if op.Err == nil {
		r.apply(op)
	}
	r.mu.Unlock()
	op.Done(op)
	return true
}

// drain completes everything, also what is submitted meanwhile.
func (r *steppedReplica) drain() {
	for r.step(0) {
	}
}

func (r *steppedReplica) apply(op *store.Op) {
	switch op.Kind {
	case store.Read:
		copy(op.Buf.Data, r.data[op.Offset:op.Offset+op.Length])
	case store.Write:
		copy(r.data[op.Offset:], op.Buf.Data)
	case store.Zero:
		clear(r.data[op.Offset : op.Offset+op.Length])
	case store.Hash:
		op.Hashes = make([]block.ExtentHash, (op.Length+block.ExtentSize-1)/block.ExtentSize)
	case store.Update:
		if op.Meta.View != nil {
			r.view = op.Meta.View.Clone()
		}
	case store.Fence:
		r.fence = op.NewFence
	}
}

// steppedDisk is a disk of stepped replicas.
type steppedDisk struct {
	id       block.DiskID
	cluster  block.ClusterID
	replicas []Replica
	deleted  []block.ReplicaID
}

func (d *steppedDisk) ID() block.DiskID                { return d.id }
func (d *steppedDisk) Cluster() block.ClusterID        { return d.cluster }
func (d *steppedDisk) Incarnation() block.Incarnation  { return block.Incarnation{DiskSequence: 5} }
func (d *steppedDisk) Free() int64                     { return 12345 }
func (d *steppedDisk) Replicas() []Replica             { return d.replicas }
func (d *steppedDisk) Delete(id block.ReplicaID) error { d.deleted = append(d.deleted, id); return nil }
func (d *steppedDisk) Create(id block.ReplicaID, volume block.VolumeID, size int64) (Replica, error) {
	r := &steppedReplica{id: id, volume: volume, data: make([]byte, size)}
	d.replicas = append(d.replicas, r)
	return r, nil
}

const testSize = 4 * block.ExtentSize

// bench is a host with one disk and one replica, on one goroutine.
type bench struct {
	t       testing.TB
	host    *Host
	disk    *steppedDisk
	replica *steppedReplica
	ids     *rand.Rand
}

func newBench(t testing.TB, limits Limits) *bench {
	b := &bench{t: t, ids: rand.New(rand.NewSource(1))}
	cluster := block.ClusterID{ID: b.id()}
	host, err := NewHost(cluster, limits)
	if err != nil {
		t.Fatal(err)
	}
	b.host = host
	b.replica = &steppedReplica{id: block.ReplicaID{ID: b.id()}, volume: block.VolumeID{ID: b.id()}, data: make([]byte, testSize)}
	b.disk = &steppedDisk{id: block.DiskID{ID: b.id()}, cluster: cluster, replicas: []Replica{b.replica}}
	if err := host.AddDisk(b.disk); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) id() block.ID {
	id, err := block.NewID(b.ids)
	if err != nil {
		b.t.Fatal(err)
	}
	return id
}

// client is an engine's end of one connection.
type client struct {
	b       *bench
	session wire.Session
	fence   block.Fence
	seq     uint64

	mu      sync.Mutex
	replies []block.Reply
}

func (b *bench) connect(fence block.Fence) *client {
	c := &client{b: b, fence: fence}
	c.session = b.host.Accept(func(rep block.Reply, _ *turn.Turn) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.replies = append(c.replies, rep)
	})
	return c
}

// open sends the OpOpen of the client's fence.
func (c *client) open() uint64 {
	return c.send(block.Request{Op: block.OpOpen, Open: &block.Open{
		Cluster: c.b.host.cluster, Volume: c.b.replica.volume, Replica: c.b.replica.id, Fence: c.fence, Size: testSize,
	}})
}

// opened connects, opens and lets the store do what that takes.
func (b *bench) opened(fence block.Fence) *client {
	b.t.Helper()
	c := b.connect(fence)
	seq := c.open()
	b.replica.drain()
	if rep := c.answer(seq); rep.Err != nil || rep.Opened == nil {
		b.t.Fatalf("open: %+v", rep)
	}
	return c
}

func (c *client) send(req block.Request) uint64 {
	c.seq++
	req.Seq = c.seq
	req.Epoch = c.fence.Epoch
	req.Session = c.fence.Session
	c.session.Handle(req, nil)
	return c.seq
}

func (c *client) write(offset int64, data []byte) uint64 {
	buf := block.NewBuffer(len(data))
	copy(buf.Data, data)
	return c.send(block.Request{Op: block.OpWrite, Offset: offset, Length: int64(len(data)), Buf: buf})
}

// find looks for the reply to a request.
func (c *client) find(seq uint64) (block.Reply, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rep := range c.replies {
		if rep.Seq == seq {
			return rep, true
		}
	}
	return block.Reply{}, false
}

// answer is the reply to a request, which must be there.
func (c *client) answer(seq uint64) block.Reply {
	c.b.t.Helper()
	rep, ok := c.find(seq)
	if !ok {
		c.b.t.Fatalf("request %d has no answer", seq)
	}
	if rep.Epoch != c.fence.Epoch || rep.Session != c.fence.Session {
		c.b.t.Fatalf("reply %+v does not carry epoch and session of %+v", rep, c.fence)
	}
	return rep
}

func (c *client) silent(seq uint64) {
	c.b.t.Helper()
	if rep, ok := c.find(seq); ok {
		c.b.t.Fatalf("request %d was answered with %+v", seq, rep)
	}
}

func fence(epoch block.Epoch, session block.Session) block.Fence {
	return block.Fence{Incarnation: 1, Generation: 1, Epoch: epoch, Session: session}
}

func pattern(n int, b byte) []byte { return bytes.Repeat([]byte{b}, n) }

// holds checks which operations the store runs.
func (b *bench) holds(kinds ...store.Kind) {
	b.t.Helper()
	if got := b.replica.kinds(); !slices.Equal(got, kinds) {
		b.t.Fatalf("the store runs %v, want %v", got, kinds)
	}
}
