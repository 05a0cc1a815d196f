package main

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/cluster"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/mtls"
	"github.com/holdfast-io/holdfast/internal/vfs"
	"github.com/holdfast-io/holdfast/replica/store"
)

// config is what the flags say.
type config struct {
	dataDir       string
	runDir        string
	name          string
	listenControl string
	listenData    string
	listenRaft    string
	controlSocket string
	listenMetrics string
	listenDebug   string
	bootstrap     bool
	join          []string
	tags          []string
	frontend      string
	overProvision float64
	diskIO        string
	diskMemory    int64 // in MiB
	logLevel      string
	logFormat     string
	tls           mtls.Files
}

// diskMemoryMax is the most that --disk-memory may be: 1 TiB, in MiB.
const diskMemoryMax = 1 << 20

// Frontends that are not simply one of several that might do.
const (
	frontendAuto   = "auto"
	frontendSocket = "socket"
)

const long = `holdfastd serves replicated block volumes from the disks of this node.

The first node of a cluster is started with --bootstrap, every other one with
--join and the control address of any member. Both flags are needed only once:
a node that belongs to a cluster finds it again by itself.

Restarting the daemon is harmless at any time. Devices stay, I/O waits until the
daemon is back, and replicas that missed writes copy just those.

A volume becomes a block device by the kernel's NBD client, or by FUSE where the
kernel has none. With --frontend socket it becomes an NBD export on a unix socket
instead, which only root reaches: the path of the device is then the URI to give
to tools that speak NBD (qemu-img, nbdcopy, fio). It takes up to 32 connections at
once, a flush on one of which covers what was answered on all; it cannot be
mounted, nor detached while it is connected.

With --tls-cert, --tls-key and --tls-ca, whatever goes between nodes is encrypted, and
only who has a certificate of that authority is let in. All nodes have to be given them
at once. The control socket of this machine stays as it is. Files that change are read
again; so certificates are renewed without a restart.

It needs root: for devices, for its share of the I/O path (never swapped out,
never killed for memory), and for the disks. Without it, it says what it lacks.

Exit codes:
  0  ended by a signal, in order; a second signal ends it at once
  1  failed; starting it again may help
  2  the command line is wrong; starting it again does not help`

const example = `  # the first node
  holdfastd --bootstrap --data-dir /var/lib/holdfast --name node-1 \
    --listen-control 192.0.2.1:7420 --listen-data 192.0.2.1:7421 --listen-raft 192.0.2.1:7422

  # another one
  holdfastd --join 192.0.2.1:7420 --data-dir /var/lib/holdfast --name node-2 \
    --listen-control 192.0.2.2:7420 --listen-data 192.0.2.2:7421 --listen-raft 192.0.2.2:7422

  # the same, in private; see docs/tls.md
  holdfastd --tls-cert node-1.pem --tls-key node-1.key --tls-ca ca.pem --name node-1

  # volumes for tools that speak NBD
  holdfastd --frontend socket --data-dir /var/lib/holdfast --name node-1
  qemu-img convert -n -O raw disk.qcow2 "$(holdfast volume attach db)"`

func newCommand() *cobra.Command {
	var c config
	root := &cobra.Command{
		Use:     "holdfastd",
		Short:   "Serve replicated block volumes from this node's disks",
		Long:    long,
		Example: example,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("argument %q is too many; see holdfastd --help", args[0])}
			}
			return nil
		},
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			logger, err := c.logger()
			if err == nil {
				err = c.validate()
			}
			if err != nil {
				return usageError{fmt.Errorf("%w; see holdfastd --help", err)}
			}
			return runDaemon(cmd.Context(), c, logger)
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see holdfastd --help", err)}
	})
	hostname, _ := os.Hostname()
	f := root.Flags()
	f.StringVar(&c.dataDir, "data-dir", "/var/lib/holdfast", "identity of the node and state of the cluster; must survive reboots")
	f.StringVar(&c.runDir, "run-dir", "/run/holdfast", "sockets and devices; must not survive reboots")
	f.StringVar(&c.name, "name", hostname, "name of the node, for people")
	f.StringVar(&c.listenControl, "listen-control", "127.0.0.1:7420", "host:port for the control API (gRPC); other nodes use it as it is written here")
	f.StringVar(&c.listenData, "listen-data", "127.0.0.1:7421", "host:port for replica traffic and read-only exports (NBD)")
	f.StringVar(&c.listenRaft, "listen-raft", "127.0.0.1:7422", "host:port for Raft")
	f.StringVar(&c.controlSocket, "control-socket", "", "unix socket for the control API (default <run-dir>/holdfastd.sock)")
	f.StringVar(&c.listenMetrics, "listen-metrics", "", "host:port for Prometheus metrics at /metrics; empty for none")
	f.StringVar(&c.listenDebug, "listen-debug", "", "host:port for profiles of the running daemon at /debug/pprof; empty for none; whoever reaches it may slow the daemon down")
	f.BoolVar(&c.bootstrap, "bootstrap", false, "make a new cluster with this node as its first")
	f.StringSliceVar(&c.join, "join", nil, "control addresses of members of the cluster to join")
	f.StringSliceVar(&c.tags, "tag", nil, "tags of the node, for placement")
	f.StringVar(&c.frontend, "frontend", frontendAuto, "how volumes are shown: nbd (the kernel's client), fuse (where the kernel has none), auto (the first of these that works), or socket (an NBD URI, for tools that speak NBD; not for mounting)")
	f.Float64Var(&c.overProvision, "over-provisioning", cluster.DefaultOverProvisioning, "how often the space of a disk may be promised to volumes, which are thin; 1 promises nothing twice; give every node the same")
	f.StringVar(&c.diskIO, "disk-io", string(vfs.EngineAuto), "how disks are read and written: io_uring, threads, or auto (io_uring where the kernel allows it)")
	f.Int64Var(&c.diskMemory, "disk-memory", 0, "MiB of memory for the maps and tables of each disk, at least 32; 0 for 64 for each TiB in use, and 64 at least")
	c.tls.AddFlags(f, mtls.Node)
	f.StringVar(&c.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&c.logFormat, "log-format", "text", "text or json")
	root.AddCommand(newFuseDeviceCommand(), newVersionCommand())
	return root
}

func (c *config) logger() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.logLevel)); err != nil {
		return nil, fmt.Errorf("--log-level %q: want debug, info, warn or error", c.logLevel)
	}
	options := &slog.HandlerOptions{Level: level}
	switch c.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, options)), nil
	default:
		return nil, fmt.Errorf("--log-format %q: want text or json", c.logFormat)
	}
}

func (c *config) validate() error {
	if c.bootstrap && len(c.join) > 0 {
		return fmt.Errorf("--bootstrap makes a new cluster, --join enters one: give only one of them")
	}
	if c.name == "" {
		return fmt.Errorf("--name must not be empty")
	}
	if err := c.validateAddresses(); err != nil {
		return err
	}
	if err := c.validatePaths(); err != nil {
		return err
	}
	if err := c.tls.Validate(); err != nil {
		return err
	}
	switch c.frontend {
	case frontendAuto, "nbd", "fuse", frontendSocket:
	default:
		return fmt.Errorf("--frontend %q: want auto, nbd, fuse or socket", c.frontend)
	}
	if !(c.overProvision >= 0.1 && c.overProvision <= 100) {
		return fmt.Errorf("--over-provisioning %g: want 0.1 to 100", c.overProvision)
	}
	if _, err := vfs.ParseEngine(c.diskIO); err != nil {
		return fmt.Errorf("--disk-io %w", err)
	}
	if m := c.diskMemory; m != 0 && (m < store.LeastMemory>>20 || m > diskMemoryMax) {
		return fmt.Errorf("--disk-memory %d: want 0, or %d to %d", m, store.LeastMemory>>20, diskMemoryMax)
	}
	return nil
}

func (c *config) validateAddresses() error {
	published := []struct{ flag, address string }{
		{"--listen-control", c.listenControl}, {"--listen-data", c.listenData}, {"--listen-raft", c.listenRaft},
	}
	taken := map[string]string{}
	for _, p := range published {
		host, err := splitAddress(p.flag, p.address)
		if err != nil {
			return err
		}
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			return fmt.Errorf("%s %q: other nodes use this address, so give the host and port by which they reach it", p.flag, p.address)
		}
		if other := taken[p.address]; other != "" {
			return fmt.Errorf("%s and %s are both %q: give each an address of its own", other, p.flag, p.address)
		}
		taken[p.address] = p.flag
	}
	for _, p := range []struct{ flag, address string }{{"--listen-metrics", c.listenMetrics}, {"--listen-debug", c.listenDebug}} {
		if p.address == "" {
			continue
		}
		if _, err := splitAddress(p.flag, p.address); err != nil {
			return err
		}
	}
	for _, address := range c.join {
		host, err := splitAddress("--join", address)
		if err == nil && host == "" {
			err = fmt.Errorf("--join %q: want host:port, the control address of a member", address)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// splitAddress wants host:port with a port number from 1 to 65535.
func splitAddress(flag, address string) (host string, err error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("%s %q: want host:port, such as 192.0.2.1:7420", flag, address)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("%s %q: the port must be a number from 1 to 65535", flag, address)
	}
	return host, nil
}

const (
	// socketPathMax is what the kernel takes as the path of a unix socket, in bytes.
	socketPathMax = 107
	// deviceSocketMax is what the longest socket of a device adds to the run
	// directory: /sockets/<attachment ID>.nbd.
	deviceSocketMax = len("/sockets/") + 2*len(block.ID{}) + len(".nbd")
)

func (c *config) validatePaths() error {
	if c.dataDir == "" || c.runDir == "" {
		return fmt.Errorf("--data-dir and --run-dir must not be empty")
	}
	var err error
	if c.dataDir, err = filepath.Abs(c.dataDir); err != nil {
		return fmt.Errorf("--data-dir: %w", err)
	}
	if c.runDir, err = filepath.Abs(c.runDir); err != nil {
		return fmt.Errorf("--run-dir: %w", err)
	}
	if c.dataDir == c.runDir {
		return fmt.Errorf("--data-dir and --run-dir are both %s: what one keeps must survive reboots, what the other keeps must not", c.dataDir)
	}
	if runDirMax := socketPathMax - deviceSocketMax; len(c.runDir) > runDirMax {
		return fmt.Errorf("--run-dir %s has %d bytes: the kernel's limit for the paths of its sockets leaves %d; choose a shorter one",
			c.runDir, len(c.runDir), runDirMax)
	}
	if c.controlSocket == "" {
		c.controlSocket = filepath.Join(c.runDir, "holdfastd.sock")
	}
	if len(c.controlSocket) > socketPathMax {
		return fmt.Errorf("--control-socket %s has %d bytes: the kernel takes %d; choose a shorter one",
			c.controlSocket, len(c.controlSocket), socketPathMax)
	}
	return nil
}
