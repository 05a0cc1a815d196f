package cluster

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/clock"
	"github.com/holdfast-io/holdfast/test/harness/loopback"
)

// handClock is moved by hand.
type handClock struct{ now block.Instant }

func (c *handClock) Now() block.Instant { return c.now }

func (c *handClock) AfterFunc(time.Duration, func()) func() bool { return func() bool { return true } }

func TestLeases(t *testing.T) {
	hand := &handClock{now: 1000}
	l := newLeases(hand, 100)
	node, disk := block.NodeID{ID: placeID('n', 1)}, block.DiskID{ID: placeID('d', 1)}
	hand.now = 1099
	if !l.alive(node) || l.follows(node, 0) {
		t.Fatal("a new leader holds a node for dead, or one it never heard for close")
	}
	hand.now = 1100
	if l.alive(node) {
		t.Fatal("a node never heard outlives the first lease")
	}
	l.heard(node, 7, []DiskReport{{ID: disk, Capacity: 5}})
	hand.now = 1199
	if !l.alive(node) || !l.follows(node, 7) || l.follows(node, 8) {
		t.Fatal("a heartbeat does not count")
	}
	if d, ok := l.disk(disk); !ok || d.Capacity != 5 {
		t.Fatalf("disk report %+v", d)
	}
	hand.now = 1200
	if l.alive(node) || l.follows(node, 7) {
		t.Fatal("a lease does not end")
	}
	l.reset()
	if _, ok := l.disk(disk); ok || !l.alive(node) {
		t.Fatal("a new term begins with an old memory")
	}
}

// TestSilenceOfFormerLeader counts from its last answer, also in the next term, but its
// lease does not; and not from an answer before a term of this node.
func TestSilenceOfFormerLeader(t *testing.T) {
	const led = block.Instant(3 * time.Second)
	hand := &handClock{}
	l := newLeases(hand, time.Hour)
	former, other := block.NodeID{ID: placeID('n', 1)}, block.NodeID{ID: placeID('n', 2)}
	want := func(node block.NodeID, quiet block.Instant) {
		t.Helper()
		if got := block.Instant(l.quietFor(node)); got != quiet {
			t.Errorf("quiet for %v, want %v", got, quiet)
		}
	}
	hand.now += led
	l.answered(former)
	hand.now += led
	l.reset()
	want(former, led)
	want(other, 0)
	if !l.alive(former) {
		t.Error("the lease of the former leader is over")
	}
	hand.now += block.Instant(time.Second)
	want(former, led+block.Instant(time.Second))
	l.heard(former, 1, nil)
	want(former, 0)
	hand.now += block.Instant(time.Second)
	l.reset()
	want(former, 0)
}

func TestWatchdogBites(t *testing.T) {
	var dog watchdog
	for range 2 {
		for range watchdogPatience {
			if dog.bites(block.ErrUnknown) {
				t.Fatal("it bit too early")
			}
		}
		if dog.bites(nil) {
			t.Fatal("it bit a leader that writes")
		}
	}
	bitten := false
	for range watchdogPatience + 1 {
		bitten = dog.bites(block.ErrUnknown)
	}
	if !bitten {
		t.Fatal("it never bites")
	}
}

func entry(t *testing.T, index uint64, c state.Command) *raft.Log {
	t.Helper()
	data, err := state.Encode(c)
	if err != nil {
		t.Fatal(err)
	}
	return &raft.Log{Index: index, Type: raft.LogCommand, Data: data}
}

func TestFSM(t *testing.T) {
	var fatal []error
	f := newFSM(func(err error) { fatal = append(fatal, err) })
	_, changed := f.read()
	results := f.ApplyBatch([]*raft.Log{
		entry(t, 3, state.Bootstrap{Cluster: block.ClusterID{ID: placeID('c', 1)}, Incarnation: 1}),
		{Index: 4, Type: raft.LogConfiguration},
		entry(t, 5, state.SetNode{Node: state.Node{ID: block.NodeID{ID: placeID('n', 1)}}}),
		{Index: 6, Type: raft.LogCommand, Data: []byte("{")},
	})
	select {
	case <-changed:
	default:
		t.Fatal("nobody is told of a change")
	}
	if r := results[2].(state.Result); r.Err != nil || r.Node == nil || results[1] != nil {
		t.Fatalf("results %+v", results)
	}
	if r := results[3].(state.Result); !errors.Is(r.Err, block.ErrInvalid) || len(fatal) != 0 {
		t.Fatalf("a malformed command: %+v, %v", r, fatal)
	}

	before, _ := f.read()
	snapshot, err := f.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	sink := &memorySink{}
	if err := snapshot.Persist(sink); err != nil {
		t.Fatal(err)
	}
	g := newFSM(func(error) {})
	if err := g.Restore(io.NopCloser(bytes.NewReader(sink.Bytes()))); err != nil {
		t.Fatal(err)
	}
	if after, _ := g.read(); after.NodeCount() != 1 || after.Index() != before.Index() {
		t.Fatalf("restored %+v", after)
	}
	if err := g.Restore(io.NopCloser(bytes.NewReader(sink.Bytes()[1:]))); !errors.Is(err, block.ErrCorrupt) {
		t.Fatalf("restored a damaged snapshot: %v", err)
	}

	newer := &raft.Log{Index: 7, Type: raft.LogCommand, Data: []byte(`{"version":9,"kind":"bootstrap","command":{}}`)}
	if r := f.Apply(newer).(state.Result); !errors.Is(r.Err, block.ErrVersion) || len(fatal) != 1 {
		t.Fatalf("a command of a newer build: %+v, %v", r, fatal)
	}
	if r := f.Apply(entry(t, 8, state.SetNode{Node: state.Node{ID: block.NodeID{ID: placeID('n', 2)}}})).(state.Result); !errors.Is(r.Err, block.ErrVersion) {
		t.Fatalf("the member goes on after a command it did not understand: %+v", r)
	}
	if _, err := f.Snapshot(); !errors.Is(err, block.ErrVersion) {
		t.Fatalf("the member hides what it skipped in a snapshot: %v", err)
	}
}

type memorySink struct{ bytes.Buffer }

func (*memorySink) ID() string    { return "memory" }
func (*memorySink) Cancel() error { return nil }
func (*memorySink) Close() error  { return nil }

func testOptions(t *testing.T) Options {
	t.Helper()
	h := newHost()
	return Options{
		Dir: t.TempDir(), Name: "node", ControlAddress: "host:1", DataAddress: "host:2", RaftAddress: "host:3",
		RaftListener: listen(t, "127.0.0.1:0"), Replicas: h, Disks: h,
		Logger: testLogger(t), Registerer: prometheus.NewRegistry(), Clock: clock.System{}, Random: rand.Reader,
	}
}

func openClosed(t *testing.T, o Options) (*Cluster, error) {
	t.Helper()
	o.RaftListener = listen(t, "127.0.0.1:0")
	c, err := Open(o)
	if err == nil {
		if err := errors.Join(c.Close(), c.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return c, err
}

func TestIdentity(t *testing.T) {
	o := testOptions(t)
	first, err := openClosed(t, o)
	if err != nil {
		t.Fatal(err)
	}
	second, err := openClosed(t, o)
	if err != nil || second.NodeID() != first.NodeID() {
		t.Fatalf("reopened as %v, %v, was %v", second.NodeID(), err, first.NodeID())
	}

	// It was a member, and its Raft state is gone: another node.
	joined := identity{Version: identityVersion, Node: first.NodeID(), Cluster: block.ClusterID{ID: placeID('c', 1)}, Joined: true}
	if err := joined.save(o.Dir); err != nil {
		t.Fatal(err)
	}
	o.Bootstrap = true
	if _, err := openClosed(t, o); !errors.Is(err, block.ErrInvalid) {
		t.Fatalf("a lost member begins a second cluster: %v", err)
	}
	o.Bootstrap = false
	third, err := openClosed(t, o)
	if err != nil || third.NodeID() == first.NodeID() || !third.ClusterID().IsZero() {
		t.Fatalf("a node without its Raft state is still %v of %v, %v", third.NodeID(), third.ClusterID(), err)
	}

	for content, want := range map[string]error{
		"":                                 block.ErrCorrupt,
		`{"version":1}`:                    block.ErrCorrupt,
		`{"version":2}`:                    block.ErrVersion,
		`{"version":1,"node":"not an id"}`: block.ErrCorrupt,
	} {
		if err := os.WriteFile(filepath.Join(o.Dir, "identity.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openClosed(t, o); !errors.Is(err, want) {
			t.Errorf("identity %q: %v, want %v", content, err, want)
		}
	}
}

// TestIdentityLost: a Raft state whose identity is gone is nobody's.
func TestIdentityLost(t *testing.T) {
	o := testOptions(t)
	o.Bootstrap = true
	first, err := openClosed(t, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(o.Dir, "identity.json")); err != nil {
		t.Fatal(err)
	}
	o.Bootstrap = false
	second, err := openClosed(t, o)
	if err != nil || second.NodeID() == first.NodeID() || !second.disk.fresh {
		t.Fatalf("a found Raft state was used by %v, %v", second.NodeID(), err)
	}
	if _, err := os.Stat(filepath.Join(o.Dir, "raft.lost")); err != nil {
		t.Fatal(err)
	}
}

func TestOneProcessForADirectory(t *testing.T) {
	o := testOptions(t)
	c, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openClosed(t, o); !errors.Is(err, block.ErrInUse) {
		t.Errorf("opened twice: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOptionsValidate(t *testing.T) {
	for name, spoil := range map[string]func(*Options){
		"no directory":       func(o *Options) { o.Dir = "" },
		"no name":            func(o *Options) { o.Name = "" },
		"no listener":        func(o *Options) { o.RaftListener = nil },
		"no host":            func(o *Options) { o.Replicas = nil },
		"no clock":           func(o *Options) { o.Clock = nil },
		"unreachable":        func(o *Options) { o.DataAddress = "0.0.0.0:5" },
		"join nowhere":       func(o *Options) { o.Join = []string{"nowhere"} },
		"bootstrap and join": func(o *Options) { o.Bootstrap, o.Join = true, []string{"host:1"} },
	} {
		o := testOptions(t)
		defer o.RaftListener.Close()
		if err := o.Validate(); err != nil {
			t.Fatal(err)
		}
		spoil(&o)
		if err := o.Validate(); !errors.Is(err, block.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGreetings(t *testing.T) {
	ours, theirs := block.ClusterID{ID: placeID('c', 1)}, block.ClusterID{ID: placeID('c', 2)}
	self, other := block.NodeID{ID: placeID('n', 1)}, block.NodeID{ID: placeID('n', 2)}
	l := newStreamLayer(listen(t, "127.0.0.1:0"), self, func() block.ClusterID { return ours }, DialTCP, testLogger(t))
	done := make(chan error, 1)
	go func() { done <- l.run() }()
	for name, c := range map[string]struct {
		greeting greeting
		want     error
	}{
		"right":           {greeting{ours, self}, nil},
		"not joined yet":  {greeting{block.ClusterID{}, self}, nil},
		"another cluster": {greeting{theirs, self}, block.ErrForeign},
		"another node":    {greeting{ours, other}, block.ErrNotFound},
	} {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if err := greet(conn, c.greeting, 5*time.Second); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if c.want == nil {
			accepted, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			accepted.Close()
		}
		conn.Close()
	}
	garbage, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := garbage.Write(bytes.Repeat([]byte("x"), greetingLength)); err != nil {
		t.Fatal(err)
	}
	if n, err := garbage.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("garbage was answered with %d bytes", n)
	}
	garbage.Close()
	if err := errors.Join(l.Close(), l.Close(), <-done); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("accepted after the end: %v", err)
	}
}

// mortalListener takes its connections along.
type mortalListener struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func (l *mortalListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.conns = append(l.conns, conn)
	}
	return conn, err
}

func (l *mortalListener) die() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range l.conns {
		_ = conn.Close() // Raft may have closed it
	}
}

// TestVoteAfterRestart: the first vote asked of a daemon that was restarted is heard,
// although Raft kept a connection to its predecessor.
func TestVoteAfterRestart(t *testing.T) {
	cluster := func() block.ClusterID { return block.ClusterID{ID: placeID('c', 1)} }
	voter := block.NodeID{ID: placeID('n', 1)}
	carrier := func(node block.NodeID, address string) (*streamLayer, *raft.NetworkTransport) {
		l := newStreamLayer(&mortalListener{Listener: listen(t, address)}, node, cluster, DialTCP, testLogger(t))
		return l, raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: l, MaxPool: 1, Timeout: 10 * time.Second, Logger: raftLogger{logger: testLogger(t)},
		})
	}
	_, asking := carrier(block.NodeID{ID: placeID('n', 2)}, loopback.FreeAddress(t))
	defer asking.Close()
	address := loopback.FreeAddress(t)
	for term := uint64(1); term <= 3; term++ {
		l, asked := carrier(voter, address)
		var serving sync.WaitGroup
		serving.Go(func() {
			if err := l.run(); err != nil {
				t.Error(err)
			}
		})
		serving.Go(func() {
			for range 2 {
				rpc := <-asked.Consumer()
				rpc.Respond(&raft.RequestVoteResponse{Term: rpc.Command.(*raft.RequestVoteRequest).Term, Granted: true}, nil)
			}
		})
		for range 2 {
			var answer raft.RequestVoteResponse
			err := asking.RequestVote(serverID(voter), raftAddress(voter, address), &raft.RequestVoteRequest{Term: term}, &answer)
			if err != nil || !answer.Granted || answer.Term != term {
				t.Fatalf("term %d: %+v, %v", term, answer, err)
			}
		}
		if err := asked.Close(); err != nil {
			t.Fatal(err)
		}
		l.Listener.(*mortalListener).die()
		serving.Wait()
	}
}

// TestEndOfARaftConnection: it is reset, so that the kernel delivers nothing that was not
// sent by then. To Raft on the other side it is an end like any other.
func TestEndOfARaftConnection(t *testing.T) {
	listener := listen(t, "127.0.0.1:0")
	pair := func() (far net.Conn) {
		near, err := DialTCP(listener.Addr().String(), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if far, err = listener.Accept(); err != nil {
			t.Fatal(errors.Join(err, near.Close()))
		}
		if err := errors.Join(near.Close(), far.SetReadDeadline(time.Now().Add(time.Minute))); err != nil {
			t.Fatal(err)
		}
		return far
	}
	far := pair()
	defer far.Close()
	if n, err := far.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the other side read %d bytes, %v", n, err)
	}
	far = pair()
	l := newStreamLayer(listener, block.NodeID{}, nil, nil, testLogger(t))
	served := l.adopt(far)
	if n, err := served.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("Raft reads %d bytes, %v", n, err)
	}
	if err := served.Close(); err != nil {
		t.Error(err)
	}
	l.handlers.Wait()
}

func FuzzDecodeGreeting(f *testing.F) {
	f.Add(greeting{block.ClusterID{ID: placeID('c', 1)}, block.NodeID{ID: placeID('n', 1)}}.encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		g, err := decodeGreeting(data)
		if err != nil {
			if !errors.Is(err, block.ErrProtocol) {
				t.Fatal(err)
			}
			return
		}
		if !reflect.DeepEqual(g.encode(), data) {
			t.Fatalf("%x came back as %x", data, g.encode())
		}
	})
}
