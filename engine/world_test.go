package engine

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/clock"
	"github.com/holdfast-io/holdfast/internal/turn"
	"github.com/holdfast-io/holdfast/internal/vfs"
	"github.com/holdfast-io/holdfast/internal/wire"
	"github.com/holdfast-io/holdfast/replica/server"
	"github.com/holdfast-io/holdfast/replica/store"
)

// patience bounds every wait of these tests; only a fault makes one so long.
const patience = 60 * time.Second

// testTiming is fast, but not so fast that a busy machine loses replicas.
func testTiming() core.Timing {
	const ms = int64(time.Millisecond)
	return core.Timing{
		PingInterval: 100 * ms, Lease: 1000 * ms, LeaseMargin: 100 * ms, PingDeadline: 2500 * ms, ReplicaDeadline: 2500 * ms,
		AttachGrace: 500 * ms, AttachWait: 1000 * ms,
		ConnectRetry: 50 * ms, ProposeRetry: 50 * ms, NoSpaceRetry: 100 * ms, LogIdle: 500 * ms, CutHold: 500 * ms,
		NumberGap: 200 * ms,
	}
}

// world is a cluster in one process: the state machine of cluster/state instead
// of a Raft group, and for each node a real store on a disk in memory, behind a
// real replica server on a real TCP listener.
type world struct {
	t     *testing.T
	id    block.ClusterID
	truth *truth
	nodes []*node
	log   *slog.Logger
}

// node serves the replicas of one store.
type node struct {
	world  *world
	id     block.NodeID
	disk   block.DiskID
	device *vfs.MemDevice
	store  *store.Store
	host   *server.Host
	addr   string

	mu     sync.Mutex
	stop   func()
	hung   chan struct{} // closed when hanging links may go on; nil while none hangs
	accept wire.Acceptor
}

func newID(t *testing.T) block.ID {
	t.Helper()
	id, err := block.NewID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func newWorld(t *testing.T, nodes int) *world {
	t.Helper()
	checkLeaks(t)
	w := &world{
		t: t, id: block.ClusterID{ID: newID(t)},
		log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	w.truth = newTruth(t)
	w.truth.must(state.Bootstrap{Cluster: w.id, Incarnation: 1})
	for range nodes {
		w.nodes = append(w.nodes, w.newNode())
	}
	return w
}

func (w *world) newNode() *node {
	w.t.Helper()
	n := &node{world: w, id: block.NodeID{ID: newID(w.t)}, disk: block.DiskID{ID: newID(w.t)}}
	executor := vfs.NewGoExecutor(4)
	w.t.Cleanup(executor.Close)
	dir := pebblevfs.NewMem()
	if err := dir.MkdirAll("disk", 0o700); err != nil {
		w.t.Fatal(err)
	}
	n.device = vfs.NewMemDevice(executor, 1<<30)
	options := store.Options{
		Dir: dir, Path: "disk", Device: n.device, Executor: executor,
		Incarnation: block.Incarnation{Boot: newID(w.t)}, Logger: w.log, Cluster: w.id,
		Reserve: 1 << 20, GrowStep: 16 << 20, MemTableSize: 256 << 10,
	}
	if err := store.Format(options, store.Identity{Cluster: w.id, Node: n.id, Disk: n.disk}); err != nil {
		w.t.Fatal(err)
	}
	var err error
	if n.store, err = store.Open(options); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { n.store.Close() })
	if n.host, err = server.NewHost(w.id, server.DefaultLimits()); err != nil {
		w.t.Fatal(err)
	}
	if err := n.host.AddDisk(server.StoreDisk(n.store)); err != nil {
		w.t.Fatal(err)
	}
	n.accept = n.host
	n.serve()
	w.t.Cleanup(n.kill)
	w.truth.must(state.SetNode{Node: state.Node{ID: n.id, Name: n.id.Short(), DataAddress: n.addr}})
	w.truth.must(state.AddDisk{Disk: state.Disk{ID: n.disk, Node: n.id, Path: "disk", Capacity: 1 << 30}})
	return n
}

// serve listens, where the node did before if it did.
func (n *node) serve() {
	n.world.t.Helper()
	listener, err := net.Listen("tcp", cmp.Or(n.addr, "127.0.0.1:0"))
	if err != nil {
		n.world.t.Fatal(err)
	}
	if n.addr == "" {
		n.addr = listener.Addr().String()
	}
	srv, err := wire.NewServer(wire.ServerConfig{
		Cluster: n.world.id, Node: n.id, Acceptor: n.accept, Exports: n.host.Exports(), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		n.world.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { _ = srv.Serve(ctx, gatedListener{Listener: listener, node: n}) })
	n.mu.Lock()
	n.stop = func() { cancel(); n.thaw(); serving.Wait() }
	n.mu.Unlock()
}

// kill ends the node's server, as the death of its daemon does. The store is left
// as the kernel would leave it.
func (n *node) kill() {
	n.mu.Lock()
	stop := n.stop
	n.stop = nil
	n.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// hang makes the node read and write nothing more, without closing anything.
func (n *node) hang() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hung = make(chan struct{})
}

func (n *node) thaw() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.hung != nil {
		close(n.hung)
		n.hung = nil
	}
}

func (n *node) gate() {
	n.mu.Lock()
	hung := n.hung
	n.mu.Unlock()
	if hung != nil {
		<-hung
	}
}

// gatedListener lets a node hang.
type gatedListener struct {
	net.Listener
	node *node
}

func (l gatedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	// Small, so that whoever writes to a hanging node soon has to wait.
	_ = conn.(*net.TCPConn).SetReadBuffer(16 << 10)
	return gatedConn{Conn: conn, node: l.node}, nil
}

type gatedConn struct {
	net.Conn
	node *node
}

func (c gatedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.node.gate()
	return n, err
}

func (c gatedConn) Write(p []byte) (int, error) {
	c.node.gate()
	return c.Conn.Write(p)
}

// Dial implements Dialer for the engines of this node.
func (n *node) Dial(ctx context.Context, member block.Member, recv wire.Receiver) (wire.Link, error) {
	if member.Node == n.id {
		return wire.Local(n.host, recv), nil
	}
	for _, other := range n.world.nodes {
		if other.id == member.Node {
			return wire.Dial(ctx, wire.DialConfig{
				Addr: other.addr, Cluster: n.world.id, Node: n.id, Peer: member.Node, Replica: member.ID,
			}, recv)
		}
	}
	return nil, block.ErrNotFound
}

// volume makes a volume with a replica on each of the nodes, published to the
// first of them.
func (w *world) volume(size int64, nodes ...*node) block.VolumeID {
	w.t.Helper()
	if len(nodes) == 0 {
		nodes = w.nodes
	}
	id := block.VolumeID{ID: newID(w.t)}
	var placed []state.Placement
	for _, n := range nodes {
		replica := block.ReplicaID{ID: newID(w.t)}
		if err := n.host.CreateReplica(n.disk, replica, id, size); err != nil {
			w.t.Fatal(err)
		}
		placed = append(placed, state.Placement{Replica: replica, Node: n.id, Disk: n.disk})
	}
	w.truth.must(state.CreateVolume{
		Volume: id, Name: id.String(), Size: size, Replicas: placed,
		Parameters: state.Parameters{Replicas: len(nodes), MinInSync: 1}, DecidedAt: w.truth.now().Index(),
	})
	for i, p := range placed {
		w.truth.must(state.ReplicaReady{Replica: p.Replica, Incarnation: nodes[i].store.Incarnation()})
	}
	w.truth.must(state.Publish{Volume: id, Node: nodes[0].id})
	return id
}

// view is what Raft shows of a volume.
func (w *world) view(id block.VolumeID) block.View {
	v, _ := w.truth.now().Volume(id)
	return v.View
}

// waitInSync waits until that many members are in the in-sync set.
func (w *world) waitInSync(id block.VolumeID, members int) {
	w.t.Helper()
	w.truth.wait(func(s *state.State) bool {
		v, _ := s.Volume(id)
		return v.View.InSync() == members
	}, fmt.Sprintf("%d members in sync", members))
}

// content reads a replica straight from its store.
func (n *node) content(id block.VolumeID) []byte {
	n.world.t.Helper()
	view := n.world.view(id)
	for _, m := range view.Replicas {
		if m.Node != n.id {
			continue
		}
		r, err := n.store.Replica(m.ID)
		if err != nil {
			n.world.t.Fatal(err)
		}
		var all bytes.Buffer
		for at := int64(0); at < r.Size(); at += block.MaxTransfer {
			buf := block.NewBuffer(int(min(block.MaxTransfer, r.Size()-at)))
			done := make(chan error, 1)
			r.Submit(&store.Op{
				Kind: store.Read, Offset: at, Length: int64(len(buf.Data)), Buf: buf,
				Done: func(op *store.Op) { done <- op.Err },
			})
			if err := <-done; err != nil {
				n.world.t.Fatalf("read replica on node %s at %d: %v", n.id.Short(), at, err)
			}
			all.Write(buf.Data)
			buf.Release()
		}
		return all.Bytes()
	}
	n.world.t.Fatal("node has no replica")
	return nil
}

// wantEqual checks that every node holds these bytes.
func (w *world) wantEqual(id block.VolumeID, want []byte, nodes ...*node) {
	w.t.Helper()
	if len(nodes) == 0 {
		nodes = w.nodes
	}
	for _, n := range nodes {
		if got := n.content(id); !bytes.Equal(got, want) {
			at := 0
			for at < len(want) && got[at] == want[at] {
				at++
			}
			w.t.Errorf("replica on node %s differs at byte %d", n.id.Short(), at)
		}
	}
}

// startEngine runs an engine of a volume on the first node until the test ends.
func (w *world) startEngine(id block.VolumeID, change ...func(*Config)) *Engine {
	w.t.Helper()
	n := w.nodes[0]
	raft := nodeTruth{w.truth, n.id}
	started, err := raft.StartEngine(w.t.Context(), id, w.view(id).Attachment, block.StartID{ID: newID(w.t)})
	if err != nil {
		w.t.Fatal(err)
	}
	config := Config{
		Core: core.Config{
			Node: n.id, Cluster: w.id, View: started.View, MinInSync: started.MinInSync,
			Timing: testTiming(), Limits: core.Limits{}.Default(),
		},
		Dialer: n, Proposer: raft, Clock: clock.System{}, Logger: w.log,
	}
	for _, c := range change {
		c(&config)
	}
	e, err := New(config)
	if err != nil {
		w.t.Fatal(err)
	}
	w.run(e)
	return e
}

// run runs an engine until the test ends.
func (w *world) run(e *Engine) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = e.Run(ctx) })
	w.t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

func await(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatal("waited in vain:", what)
	}
}

// join waits for goroutines that may be stuck in a request.
func join(t *testing.T, what string, group *sync.WaitGroup) {
	t.Helper()
	ended := make(chan struct{})
	go func() { group.Wait(); close(ended) }()
	await(t, what, ended)
}

// eventually polls what nothing tells of.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain:", what)
		}
	}
}

// outcome is the end of one request; a second one is a fault.
type outcome struct {
	t    *testing.T
	done chan struct{}
	mu   sync.Mutex
	ends int
	err  error
	data []byte
}

func newOutcome(t *testing.T) *outcome { return &outcome{t: t, done: make(chan struct{})} }

// Complete implements Completer.
func (o *outcome) CompleteIn(_ *turn.Turn, err error, buf *block.Buffer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ends++; o.ends > 1 {
		o.t.Errorf("request completed %d times", o.ends)
		return
	}
	o.err = err
	if buf != nil {
		o.data = bytes.Clone(buf.Data)
		buf.Release()
	}
	close(o.done)
}

func (o *outcome) wait() ([]byte, error) {
	o.t.Helper()
	await(o.t, "a request to end", o.done)
	return o.data, o.err
}

// submit starts a request.
func submit(t *testing.T, e *Engine, r core.Request, data []byte) *outcome {
	t.Helper()
	if data != nil {
		r.Buf = block.NewBuffer(len(data))
		copy(r.Buf.Data, data)
		r.Length = int64(len(data))
	}
	o := newOutcome(t)
	e.Submit(r, o, nil)
	return o
}

// do carries a request out.
func do(t *testing.T, e *Engine, r core.Request, data []byte) []byte {
	t.Helper()
	got, err := submit(t, e, r, data).wait()
	if err != nil {
		t.Fatalf("request %d at %d: %v", r.Kind, r.Offset, err)
	}
	return got
}

func write(t *testing.T, e *Engine, offset int64, data []byte) {
	t.Helper()
	do(t, e, core.Request{Kind: core.WriteRequest, Offset: offset}, data)
}

func noise(t *testing.T, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(rand.Reader, b); err != nil {
		t.Fatal(err)
	}
	return b
}

// checkLeaks fails a test that leaves goroutines of ours behind. It is called
// first, so that it looks last.
func checkLeaks(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		var left string
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			if left = ourGoroutines(); left == "" {
				return
			}
		}
		t.Errorf("goroutines left behind:\n%s", left)
	})
}

func ourGoroutines() string {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	var ours []string
	for i, stack := range strings.Split(string(stacks), "\n\n") {
		// The first is the one that looks.
		if i > 0 && strings.Contains(stack, "holdfast-io/holdfast") && !strings.Contains(stack, "testing.tRunner") {
			ours = append(ours, stack)
		}
	}
	return strings.Join(ours, "\n\n")
}
