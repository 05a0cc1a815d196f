package driver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"

	"github.com/holdfast-io/holdfast/driver/mount"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

const (
	// Name is how Kubernetes knows the plugin.
	Name = "csi.holdfast.io"
	// TopologyKey is the label that names the node a volume can be used on. Its
	// value is the node's name, which outlives a reinstallation of the node.
	TopologyKey = "topology.holdfast.io/node"

	// callTimeout bounds a call whose caller set no deadline.
	callTimeout = 2 * time.Minute
	// trimTimeout bounds the trim of one volume.
	trimTimeout = time.Hour
	// stopTimeout bounds the wait for running calls at the end.
	stopTimeout = 20 * time.Second
)

// Mode chooses which services a plugin offers.
type Mode string

// The modes.
const (
	// ModeAll: everything in one process, as for a single machine and for tests.
	ModeAll Mode = "all"
	// ModeController: next to the external sidecars, once or a few times a cluster.
	ModeController Mode = "controller"
	// ModeNode: next to kubelet, on every node.
	ModeNode Mode = "node"
)

// Options are what a Driver needs.
type Options struct {
	// Endpoint is where to serve: "unix:///csi/csi.sock" or just the path.
	Endpoint string
	// Daemon is the connection to the local daemon.
	Daemon grpc.ClientConnInterface
	// Mode defaults to ModeAll.
	Mode Mode
	// Version is what GetPluginInfo answers.
	Version string
	// Devices is where device nodes are made; it defaults to mount.DefaultDevices.
	Devices mount.Devices
	// TrimInterval is how often the file systems of this node are trimmed; 0 for
	// never. The controller mounts none.
	TrimInterval time.Duration
}

// Validate fills in the defaults and reports what is wrong.
func (o *Options) Validate() error {
	if o.Mode == "" {
		o.Mode = ModeAll
	}
	if o.Devices == "" {
		o.Devices = mount.DefaultDevices
	}
	switch {
	case o.Daemon == nil:
		return errors.New("no connection to a daemon")
	case o.Mode != ModeAll && o.Mode != ModeController && o.Mode != ModeNode:
		return fmt.Errorf("mode %q is none of %s, %s, %s", o.Mode, ModeAll, ModeController, ModeNode)
	case o.TrimInterval < 0:
		return fmt.Errorf("trim interval %s is below zero", o.TrimInterval)
	case o.Version == "":
		return errors.New("no version")
	}
	_, err := socketPath(o.Endpoint)
	return err
}

// socketPath reads an endpoint. CSI is spoken over unix sockets only: it has no
// authentication of its own but the permissions of the socket.
func socketPath(endpoint string) (string, error) {
	path := strings.TrimPrefix(strings.TrimPrefix(endpoint, "unix:"), "//")
	if path == "" || strings.Contains(path, "://") {
		return "", fmt.Errorf("endpoint %q is not a unix socket such as unix:///csi/csi.sock", endpoint)
	}
	return path, nil
}

// Driver serves the CSI services of one mode.
type Driver struct {
	options Options
	socket  string
	server  *grpc.Server
	// trimmer is nil where nothing is trimmed.
	trimmer *trimmer
}

// New checks the options and prepares the services.
func New(options Options) (*Driver, error) {
	if err := options.Validate(); err != nil {
		return nil, fmt.Errorf("configure CSI plugin: %w", err)
	}
	socket, err := socketPath(options.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("configure CSI plugin: %w", err)
	}
	mounter := mount.New()
	if options.Mode != ModeController {
		if err := mounter.Check(); err != nil {
			return nil, fmt.Errorf("configure CSI plugin: %w", err)
		}
	}
	d := &Driver{
		options: options,
		socket:  socket,
		server:  grpc.NewServer(grpc.ChainUnaryInterceptor(withDeadline, logged)),
	}
	d.register(mounter)
	return d, nil
}

func (d *Driver) register(mounter *mount.Mounter) {
	api := newDaemon(d.options.Daemon)
	csi.RegisterIdentityServer(d.server, &identity{cluster: api.cluster, version: d.options.Version})
	if d.options.Mode != ModeNode {
		csi.RegisterControllerServer(d.server, &controller{daemon: api, running: newInFlight()})
	}
	if d.options.Mode != ModeController {
		n := &node{daemon: api, mounter: mounter, devices: d.options.Devices, running: newInFlight()}
		csi.RegisterNodeServer(d.server, n)
		if d.options.TrimInterval > 0 {
			d.trimmer = &trimmer{node: n, interval: d.options.TrimInterval}
		}
	}
}

// Run serves until the context ends, then lets the running calls finish.
func (d *Driver) Run(ctx context.Context) error {
	listener, err := d.listen(ctx)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", d.socket, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer d.joinTrimmer(d.startTrimmer(ctx))
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- d.server.Serve(listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve CSI: %w", err)
	case <-ctx.Done():
	}
	// A call that cannot end (an unmount that waits for frozen I/O) is cut off.
	cut := time.AfterFunc(stopTimeout, d.server.Stop)
	defer cut.Stop()
	d.server.GracefulStop()
	if err := <-served; err != nil {
		return fmt.Errorf("serve CSI: %w", err)
	}
	return nil
}

// startTrimmer starts the trimmer, if there is one; what is returned is closed when it
// has ended.
func (d *Driver) startTrimmer(ctx context.Context) <-chan struct{} {
	ended := make(chan struct{})
	if d.trimmer == nil {
		close(ended)
		return ended
	}
	go func() {
		defer close(ended)
		d.trimmer.run(ctx)
	}()
	return ended
}

// joinTrimmer waits for the trimmer, unless it sits in frozen I/O.
func (d *Driver) joinTrimmer(ended <-chan struct{}) {
	timeout := time.NewTimer(stopTimeout)
	defer timeout.Stop()
	select {
	case <-ended:
	case <-timeout.C:
	}
}

// listen replaces the socket that a killed predecessor left, but not one that
// somebody serves.
func (d *Driver) listen(ctx context.Context) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(d.socket), 0o750); err != nil {
		return nil, err
	}
	var dialer net.Dialer
	if conn, err := dialer.DialContext(ctx, "unix", d.socket); err == nil {
		conn.Close()
		return nil, errors.New("another plugin is serving there")
	}
	if err := os.Remove(d.socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var config net.ListenConfig
	return config.Listen(ctx, "unix", d.socket)
}

// daemon is what the services call on the local daemon.
type daemon struct {
	volumes   holdfastv1.VolumesClient
	snapshots holdfastv1.SnapshotsClient
	cluster   holdfastv1.ClusterClient
	agent     holdfastv1.NodeAgentClient
}

func newDaemon(conn grpc.ClientConnInterface) daemon {
	return daemon{
		volumes:   holdfastv1.NewVolumesClient(conn),
		snapshots: holdfastv1.NewSnapshotsClient(conn),
		cluster:   holdfastv1.NewClusterClient(conn),
		agent:     holdfastv1.NewNodeAgentClient(conn),
	}
}
