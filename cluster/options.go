package cluster

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/clock"
)

// Options say what a member needs.
type Options struct {
	// Dir keeps the identity of the node and its Raft state. Losing it makes the
	// node a new one (rule 1).
	Dir string
	// Name is the node's name for people.
	Name string
	// Tags can be asked for when volumes are placed.
	Tags []string
	// ControlAddress, DataAddress and RaftAddress are where other nodes reach the
	// three listeners, host:port.
	ControlAddress string
	DataAddress    string
	RaftAddress    string
	// RaftListener accepts Raft connections; the member closes it.
	RaftListener net.Listener
	// Bootstrap begins a new cluster if Dir holds none. It must be set on one node
	// only, and taken away once the cluster exists: a node that lost its Dir would
	// begin another cluster.
	Bootstrap bool
	// Join are control addresses of members to join through.
	Join []string

	// Replicas makes and deletes replicas, Disks formats disks and reports on
	// them. Both may be called at any time between Run and its return.
	Replicas ReplicaHost
	Disks    DiskHost

	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Clock      clock.Clock
	// Random is a cryptographic source.
	Random io.Reader
	// DialRaft opens a connection to another member's Raft listener, and so is
	// where TLS goes; plain TCP if nil.
	DialRaft func(address string, timeout time.Duration) (net.Conn, error)
	// DialOptions are for the gRPC connections to other daemons and must bring
	// transport credentials; plain TCP if empty.
	DialOptions []grpc.DialOption
	Timing      Timing
	// OverProvisioning is how often the space of a disk may be promised to volumes,
	// 0.1 to 100; the zero value stands for DefaultOverProvisioning. That of the leader
	// counts.
	OverProvisioning float64
}

// DefaultOverProvisioning lets volumes be twice as large as the disks that hold them.
const DefaultOverProvisioning = 2.0

// Timing are the durations of the member. The zero value of a field stands for
// the default.
type Timing struct {
	// Election is how long a follower waits for a sign of the leader, up to twice
	// that, before it asks for votes. It has to outlast a scheduler under full
	// load, and is most of the time for which nothing can be decided after the
	// leader died: 900 ms.
	Election time.Duration
	// Heartbeat is the interval of Peer.Heartbeat: 500 ms.
	Heartbeat time.Duration
	// NodeLease is how long a node counts as alive after a heartbeat: 5 s.
	NodeLease time.Duration
	// Silence is how long after a heartbeat somebody may wait for an answer of a node,
	// who can do without it: 2 s.
	Silence time.Duration
	// Unstage bounds how long UnpublishVolume waits for a node to unstage before
	// it ends the attachment without it: 20 s.
	Unstage time.Duration
	// Request bounds a request whose caller set no deadline: 60 s.
	Request time.Duration
	// EngineStatus bounds the question for the status of engines: 500 ms.
	EngineStatus time.Duration
	// AgentRetry is how long the agent waits before it repeats what failed: 2 s.
	AgentRetry time.Duration
	// Watchdog is the interval of the leader's probe writes: 5 s.
	Watchdog time.Duration
	// MovePatience is how long a node may be away before a replica that is being copied
	// to it is given up and made elsewhere: 5 min.
	MovePatience time.Duration
}

func (t *Timing) setDefaults() {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&t.Election, 900 * time.Millisecond},
		{&t.Heartbeat, 500 * time.Millisecond},
		{&t.NodeLease, 5 * time.Second},
		{&t.Silence, 2 * time.Second},
		{&t.Unstage, 20 * time.Second},
		{&t.Request, 60 * time.Second},
		{&t.EngineStatus, 500 * time.Millisecond},
		{&t.AgentRetry, 2 * time.Second},
		{&t.Watchdog, 5 * time.Second},
		{&t.MovePatience, 5 * time.Minute},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
}

// Validate reports what is missing or cannot work.
func (o *Options) Validate() error {
	for name, address := range map[string]string{"control": o.ControlAddress, "data": o.DataAddress, "Raft": o.RaftAddress} {
		if err := checkAddress(address); err != nil {
			return fmt.Errorf("%s address: %w", name, err)
		}
	}
	for _, address := range o.Join {
		if err := checkAddress(address); err != nil {
			return fmt.Errorf("address to join: %w", err)
		}
	}
	// The cluster would refuse them, each time the node asks.
	if err := checkName(o.Name); err != nil {
		return fmt.Errorf("node: %w", err)
	}
	if _, err := checkTags(o.Tags); err != nil {
		return fmt.Errorf("node: %w", err)
	}
	switch {
	case o.Dir == "":
		return fmt.Errorf("directory must be set: %w", block.ErrInvalid)
	case o.RaftListener == nil || o.Replicas == nil || o.Disks == nil:
		return fmt.Errorf("the Raft listener, the replica host and the disk host must be set: %w", block.ErrInvalid)
	case o.Logger == nil || o.Registerer == nil || o.Clock == nil || o.Random == nil:
		return fmt.Errorf("logger, registerer, clock and random source must be set: %w", block.ErrInvalid)
	case o.OverProvisioning != 0 && !(o.OverProvisioning >= 0.1 && o.OverProvisioning <= 100):
		return fmt.Errorf("over-provisioning %g: 0.1 to 100 is possible: %w", o.OverProvisioning, block.ErrInvalid)
	case o.Bootstrap && len(o.Join) > 0:
		return fmt.Errorf("a node either begins a cluster or joins one: %w", block.ErrInvalid)
	}
	return nil
}

// checkAddress wants a host that others can dial, and a port.
func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q: want host:port: %w", address, block.ErrInvalid)
	}
	if ip := net.ParseIP(host); host == "" || port == "" || port == "0" || ip != nil && ip.IsUnspecified() {
		return fmt.Errorf("%q: other nodes cannot reach that: %w", address, block.ErrInvalid)
	}
	return nil
}
