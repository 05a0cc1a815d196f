package harness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"google.golang.org/grpc"

	"github.com/holdfast-io/holdfast/internal/control"
	"github.com/holdfast-io/holdfast/internal/mtls"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
	"github.com/holdfast-io/holdfast/test/harness/certs"
)

// Node is one daemon of a cluster and the CSI plugin beside it.
type Node struct {
	Name string
	// Index is its place among the nodes of the cluster.
	Index int
	// Dir holds data, run and disks of the node.
	Dir string
	// host:port, as given to the daemon.
	ControlAddress, DataAddress, RaftAddress, MetricsAddress string
	// DebugAddress is where profiles are, if the cluster was started with Debug.
	DebugAddress string
	// Socket is the path of the control socket, PluginSocket that of the plugin.
	Socket, PluginSocket string

	// TLS are the files of the daemon, if it has any.
	TLS mtls.Files

	cluster   *Cluster
	daemon    *process
	plugin    *process
	conn      *grpc.ClientConn
	csi       *grpc.ClientConn
	deviceDir string
	disks     int
	id        string
	frozen    bool
}

// newNode prepares the node at an index, which is to be reached by host.
func newNode(c *Cluster, index int, host string) (*Node, error) {
	name := fmt.Sprintf("n%d", index+1)
	dir := filepath.Join(c.Dir, name)
	n := &Node{
		Name: name, Index: index, Dir: dir, cluster: c,
		ControlAddress: net.JoinHostPort(host, controlPort),
		DataAddress:    net.JoinHostPort(host, dataPort),
		RaftAddress:    net.JoinHostPort(host, raftPort),
		MetricsAddress: net.JoinHostPort(host, metricsPort),
		DebugAddress:   net.JoinHostPort(host, debugPort),
		Socket:         filepath.Join(dir, "run", "holdfastd.sock"),
		PluginSocket:   filepath.Join(dir, "csi.sock"),
		deviceDir:      filepath.Join("/dev", filepath.Base(c.Dir)+"-"+name),
		daemon:         &process{name: name, path: c.options.Binaries.Daemon, log: c.logPath(name)},
		plugin:         &process{name: name + "-csi", path: c.options.Binaries.Plugin, log: c.logPath(name + "-csi")},
	}
	for _, sub := range []string{"data", "run", "disks"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o750); err != nil {
			return nil, err
		}
	}
	var err error
	if c.Authority != nil {
		if n.TLS, err = c.Authority.Issue(filepath.Join(dir, "tls"), certs.Request{Name: mtls.Node}); err != nil {
			return nil, err
		}
	}
	// Over the socket, the test still hears from a node whose network it has cut.
	if n.conn, err = control.Dial("unix://" + n.Socket); err != nil {
		return nil, err
	}
	if n.csi, err = control.Dial("unix://" + n.PluginSocket); err != nil {
		return nil, err
	}
	return n, nil
}

// close closes the connections.
func (n *Node) close() error {
	if n.conn == nil {
		return nil
	}
	err := errors.Join(n.conn.Close(), n.csi.Close())
	n.conn, n.csi = nil, nil
	return err
}

// Start starts the daemon, again or for the first time, and waits until it
// answers. It finds its cluster by itself.
func (n *Node) Start(ctx context.Context) error { return n.startWith(ctx) }

// startWith starts the daemon with further arguments.
func (n *Node) startWith(ctx context.Context, args ...string) error {
	args = append([]string{
		"--data-dir", filepath.Join(n.Dir, "data"), "--run-dir", filepath.Join(n.Dir, "run"), "--name", n.Name,
		"--listen-control", n.ControlAddress, "--listen-data", n.DataAddress, "--listen-raft", n.RaftAddress,
		"--listen-metrics", n.MetricsAddress, "--control-socket", n.Socket,
	}, args...)
	if n.cluster.options.Debug {
		args = append(args, "--listen-debug", n.DebugAddress)
	}
	args = append(args, n.cluster.options.DaemonArgs...)
	if n.TLS.Given() {
		args = append(args, "--tls-cert", n.TLS.Cert, "--tls-key", n.TLS.Key, "--tls-ca", n.TLS.CA)
	}
	if prefix := n.cluster.options.Prefix; prefix != nil {
		args = append(prefix(n), append([]string{n.cluster.options.Binaries.Daemon}, args...)...)
		n.daemon.path, args = args[0], args[1:]
	}
	if err := n.daemon.start(args); err != nil {
		return err
	}
	return Wait(ctx, "node "+n.Name+" to answer", func(ctx context.Context) error {
		if err := n.daemon.check(); err != nil {
			return Stop(err)
		}
		self, err := n.Agent().GetNode(ctx, &holdfastv1.GetNodeRequest{})
		if err == nil {
			n.id = self.GetId()
		}
		return err
	})
}

// Kill ends the daemon by SIGKILL, as a crash would.
func (n *Node) Kill() error {
	n.frozen = false
	return n.daemon.kill()
}

// Stop ends the daemon in order. One that does not end is killed and reported.
func (n *Node) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	return n.daemon.stop(ctx)
}

// Freeze stops the daemon by SIGSTOP: it is alive and silent.
func (n *Node) Freeze() error {
	if err := n.daemon.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	n.frozen = true
	return nil
}

// Thaw lets a frozen daemon go on; it does nothing to another one.
func (n *Node) Thaw() error {
	if !n.frozen {
		return nil
	}
	n.frozen = false
	return n.daemon.signal(syscall.SIGCONT)
}

// Running reports whether the daemon lives.
func (n *Node) Running() bool { return n.daemon.current() != nil }

// PID is the process ID of the daemon; 0 if it does not live.
func (n *Node) PID() int {
	if l := n.daemon.current(); l != nil {
		return l.cmd.Process.Pid
	}
	return 0
}

// ID is the ID of the node in the cluster.
func (n *Node) ID() string { return n.id }

// Volumes, Cluster and Agent are clients of the daemon's control API. They
// reconnect by themselves after a restart.
func (n *Node) Volumes() holdfastv1.VolumesClient { return holdfastv1.NewVolumesClient(n.conn) }

// Snapshots is the service for snapshots, as this daemon answers it.
func (n *Node) Snapshots() holdfastv1.SnapshotsClient { return holdfastv1.NewSnapshotsClient(n.conn) }

// Cluster is the client of the cluster-wide service.
func (n *Node) Cluster() holdfastv1.ClusterClient { return holdfastv1.NewClusterClient(n.conn) }

// Agent is the client of what the daemon does for its own machine.
func (n *Node) Agent() holdfastv1.NodeAgentClient { return holdfastv1.NewNodeAgentClient(n.conn) }

// AddDisk makes a directory and adds it as a disk of the node.
func (n *Node) AddDisk(ctx context.Context, class string, tags ...string) (*holdfastv1.Disk, error) {
	n.disks++
	path := filepath.Join(n.Dir, "disks", fmt.Sprintf("d%d", n.disks))
	if err := os.Mkdir(path, 0o750); err != nil {
		return nil, fmt.Errorf("add disk to %s: %w", n.Name, err)
	}
	disk, err := n.Cluster().AddDisk(ctx, &holdfastv1.AddDiskRequest{Path: path, Class: class, Tags: tags})
	if err != nil {
		return nil, fmt.Errorf("add disk to %s: %w", n.Name, err)
	}
	return disk, nil
}

// StartPlugin starts the CSI plugin of the node and waits until it serves.
func (n *Node) StartPlugin(ctx context.Context) error {
	args := []string{
		"--endpoint", "unix://" + n.PluginSocket, "--server", "unix://" + n.Socket,
		"--device-dir", n.deviceDir, "--log-level", "debug",
	}
	err := n.plugin.start(append(args, n.cluster.options.PluginArgs...))
	if err != nil {
		return err
	}
	return Wait(ctx, "plugin of "+n.Name+" to serve", func(ctx context.Context) error {
		if err := n.plugin.check(); err != nil {
			return Stop(err)
		}
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "unix", n.PluginSocket)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// CSI is a connection to the plugin of the node, for csi.NewControllerClient and
// its like. It reconnects by itself after a restart.
func (n *Node) CSI() grpc.ClientConnInterface { return n.csi }

// KillPlugin ends the plugin by SIGKILL.
func (n *Node) KillPlugin() error { return n.plugin.kill() }

// StopPlugin ends the plugin in order.
func (n *Node) StopPlugin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	return n.plugin.stop(ctx)
}

// unstageAll takes away the devices of a node that runs.
func (n *Node) unstageAll(ctx context.Context) error {
	if !n.Running() || n.conn == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	list, err := n.Volumes().ListVolumes(ctx, &holdfastv1.ListVolumesRequest{})
	if err != nil {
		// A cluster without a majority cannot say; its devices end with their
		// processes.
		return nil
	}
	var errs []error
	for _, v := range list.GetVolumes() {
		if v.GetPublishedNodeId() != n.id || v.GetAttachmentId() == "" {
			continue
		}
		if _, err := n.Agent().UnstageVolume(ctx, &holdfastv1.UnstageVolumeRequest{VolumeId: v.GetId()}); err != nil {
			errs = append(errs, fmt.Errorf("unstage volume %s on %s: %w", v.GetName(), n.Name, err))
		}
	}
	return errors.Join(errs...)
}
