package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/holdfast-io/holdfast/cluster/rpcerr"
	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/clock"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
	"github.com/holdfast-io/holdfast/test/harness/loopback"
)

// testTiming is quick, but bears the race detector on a busy machine.
func testTiming() Timing {
	return Timing{
		Election: 600 * time.Millisecond, Heartbeat: 200 * time.Millisecond, NodeLease: 2 * time.Second, Silence: time.Second,
		Unstage: 2 * time.Second, AgentRetry: 200 * time.Millisecond, Watchdog: time.Second,
	}
}

const testDeadline = 60 * time.Second

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testDeadline)
	t.Cleanup(cancel)
	return ctx
}

func newTestID(t *testing.T) block.ID {
	t.Helper()
	id, err := block.NewID(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// node is one daemon's worth of cluster, which can be stopped and started again
// at the same addresses.
type node struct {
	t       *testing.T
	options Options
	host    *host

	*Cluster
	server  *grpc.Server
	stop    context.CancelFunc
	done    chan error
	serving sync.WaitGroup
	conn    *grpc.ClientConn

	// silent: requests are taken and never answered. heard tells of them.
	silent atomic.Bool
	heard  chan string
}

func newNode(t *testing.T, name string, join ...string) *node {
	t.Helper()
	h := newHost()
	return &node{t: t, host: h, heard: make(chan string, 64), options: Options{
		Dir: t.TempDir(), Name: name, Tags: []string{name}, Join: join, Bootstrap: len(join) == 0,
		ControlAddress: loopback.FreeAddress(t), DataAddress: loopback.FreeAddress(t), RaftAddress: loopback.FreeAddress(t),
		Replicas: h, Disks: h, Logger: testLogger(t), Clock: clock.System{}, Random: rand.Reader, Timing: testTiming(),
		OverProvisioning: 1,
	}}
}

// testLogger keeps the log of a test that fails.
func testLogger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// listen takes an address, also that of a stopped predecessor.
func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (n *node) start() *node {
	n.t.Helper()
	n.options.RaftListener = listen(n.t, n.options.RaftAddress)
	n.options.Registerer = prometheus.NewRegistry()
	c, err := Open(n.options)
	if err != nil {
		n.t.Fatal(err)
	}
	n.Cluster = c
	n.host.setWork(n.engineWork)
	n.host.setResync(n.engineResync)
	n.server = grpc.NewServer(grpc.ChainUnaryInterceptor(n.fallSilent, rpcerr.UnaryServerInterceptor))
	c.Register(n.server)
	holdfastv1.RegisterNodeAgentServer(n.server, n.host)
	control := listen(n.t, n.options.ControlAddress)
	ctx, cancel := context.WithCancel(context.Background())
	n.stop, n.done = cancel, make(chan error, 1)
	n.serving.Go(func() {
		if err := n.server.Serve(control); err != nil {
			n.t.Errorf("serve %s: %v", n.options.Name, err)
		}
	})
	n.serving.Go(func() { n.done <- c.Run(ctx) })
	n.conn, err = grpc.NewClient("passthrough:///"+n.options.ControlAddress, grpc.WithNoProxy(),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUnaryInterceptor(rpcerr.UnaryClientInterceptor))
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(n.halt)
	return n
}

// fallSilent holds requests while the node is silent.
func (n *node) fallSilent(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if !n.silent.Load() {
		return handler(ctx, req)
	}
	select {
	case n.heard <- info.FullMethod:
	default:
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

// halt stops the daemon; halting it again does nothing.
func (n *node) halt() {
	if n.stop == nil {
		return
	}
	n.stop()
	n.server.Stop()
	n.serving.Wait()
	n.stop = nil
	if err := errors.Join(<-n.done, n.conn.Close()); err != nil && !n.t.Failed() {
		n.t.Errorf("run %s: %v", n.options.Name, err)
	}
}

func (n *node) volumes() holdfastv1.VolumesClient { return holdfastv1.NewVolumesClient(n.conn) }
func (n *node) nodes() holdfastv1.ClusterClient   { return holdfastv1.NewClusterClient(n.conn) }

// group is a cluster of nodes.
type group []*node

// newGroup is a cluster of n nodes with a disk each, of which an odd number votes.
func newGroup(t *testing.T, n int) group {
	t.Helper()
	return newGroupOf(t, n, func(*node) {})
}

// newGroupOf is newGroup of nodes that are prepared before they start.
func newGroupOf(t *testing.T, n int, prepare func(*node)) group {
	t.Helper()
	var g group
	for i := 1; i <= n; i++ {
		var join []string
		if i > 1 {
			join = []string{g[0].options.ControlAddress}
		}
		member := newNode(t, fmt.Sprintf("node-%d", i), join...)
		prepare(member)
		g = append(g, member.start())
	}
	ctx := testContext(t)
	for _, member := range g {
		if err := member.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := member.nodes().AddDisk(ctx, &holdfastv1.AddDiskRequest{Path: "/disk", Class: "ssd"}); err != nil {
			t.Fatal(err)
		}
	}
	g.waitVoters(ctx, (n+1)/2*2-1)
	return g
}

// patient makes a member bear a machine that gives it no time for a second or two, in tests
// of which an election is the failure.
func (n *node) patient() { n.options.Timing.Election = 2 * time.Second }

// waitFor repeats a question until it is answered with yes.
func waitFor(ctx context.Context, t *testing.T, what string, ask func() bool) {
	t.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for !ask() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

func (g group) waitVoters(ctx context.Context, n int) {
	t := g[0].t
	t.Helper()
	waitFor(ctx, t, fmt.Sprintf("%d voters", n), func() bool {
		asked, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		voters := 0
		for _, member := range g {
			if member.stop == nil {
				continue
			}
			resp, err := member.nodes().ListNodes(asked, &holdfastv1.ListNodesRequest{})
			if err != nil {
				return false
			}
			for _, v := range resp.GetNodes() {
				if v.GetVoter() {
					voters++
				}
			}
			break
		}
		return voters == n
	})
}

// leader waits for a member that leads.
func (g group) leader(ctx context.Context) *node {
	t := g[0].t
	t.Helper()
	var leader *node
	waitFor(ctx, t, "a leader", func() bool {
		for _, member := range g {
			if member.stop != nil && member.leading.Load() {
				leader = member
			}
		}
		return leader != nil
	})
	return leader
}

// follower is a running member that does not lead.
func (g group) follower(ctx context.Context) *node {
	leader := g.leader(ctx)
	for _, member := range g {
		if member.stop != nil && member != leader {
			return member
		}
	}
	g[0].t.Fatal("no follower is running")
	return nil
}

func createRequest(name string, replicas int32) *holdfastv1.CreateVolumeRequest {
	return &holdfastv1.CreateVolumeRequest{Name: name, SizeBytes: 1 << 30, Parameters: &holdfastv1.VolumeParameters{Replicas: replicas}}
}

// attach publishes a volume to a member and starts its engine.
func (n *node) attach(ctx context.Context, volume string) state.Volume {
	n.t.Helper()
	if _, err := n.volumes().PublishVolume(ctx, &holdfastv1.PublishVolumeRequest{VolumeId: volume, NodeId: n.NodeID().String()}); err != nil {
		n.t.Fatal(err)
	}
	id, err := parseVolumeID(volume)
	if err != nil {
		n.t.Fatal(err)
	}
	v, err := n.StartEngine(ctx, id, block.AttachmentID{}, block.StartID{ID: newTestID(n.t)})
	if err != nil {
		n.t.Fatal(err)
	}
	return v
}

// engineWork does what an engine does of a proposal: at the epoch of the one that
// serves the volume here, or at one that is borrowed.
func (n *node) engineWork(ctx context.Context, volume string, p block.Proposal) error {
	id, err := parseVolumeID(volume)
	if err != nil {
		return err
	}
	v, _ := n.State().Volume(id)
	if v.View.Owner != n.NodeID() {
		drawn, err := block.NewID(rand.Reader)
		if err != nil {
			return err
		}
		if v, err = n.BorrowVolume(ctx, id, block.StartID{ID: drawn}, false); err != nil {
			return fmt.Errorf("%w: %s", block.ErrUnavailable, err.Error())
		}
		defer func() { _ = n.EndAttachment(ctx, id, v.View.Attachment) }()
	}
	p.Volume, p.Epoch, p.Revision = id, v.View.Epoch, v.View.Revision
	if p.Snapshot != nil {
		p.Snapshot.Size = v.View.Size
	}
	for verdict, view := n.Propose(ctx, p); verdict != block.Committed; verdict, view = n.Propose(ctx, p) {
		if verdict != block.Conflict || view.Revision == p.Revision {
			return fmt.Errorf("proposal %+v: verdict %d: %w", p, verdict, block.ErrConflict)
		}
		p.Revision = view.Revision
	}
	return nil
}

// engineResync does what an engine does for absent replicas and those whose place is
// taken.
func (n *node) engineResync(ctx context.Context, volume string, replicas []block.ReplicaID) error {
	for _, id := range replicas {
		if err := n.engineWork(ctx, volume, block.Proposal{Admit: []block.ReplicaID{id}}); err != nil {
			return err
		}
	}
	v := n.volume(volume)
	if r, leaves := v.Retiring(); leaves {
		return n.engineWork(ctx, volume, block.Proposal{Remove: []block.ReplicaID{r.Old}})
	}
	return nil
}

func (n *node) snapshots() holdfastv1.SnapshotsClient { return holdfastv1.NewSnapshotsClient(n.conn) }
