package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/holdfast-io/holdfast/cluster"
	"github.com/holdfast-io/holdfast/cluster/rpcerr"
	"github.com/holdfast-io/holdfast/engine"
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/engine/frontend"
	"github.com/holdfast-io/holdfast/engine/frontend/fuse"
	"github.com/holdfast-io/holdfast/engine/frontend/nbd"
	"github.com/holdfast-io/holdfast/engine/frontend/socket"
	"github.com/holdfast-io/holdfast/internal/clock"
	"github.com/holdfast-io/holdfast/internal/iopath"
	"github.com/holdfast-io/holdfast/internal/mtls"
	"github.com/holdfast-io/holdfast/internal/vfs"
	"github.com/holdfast-io/holdfast/internal/wire"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
	"github.com/holdfast-io/holdfast/replica/server"
)

// stopTimeout bounds how long calls in flight may take when the daemon stops.
const stopTimeout = 5 * time.Second

// daemon is everything that one node runs.
type daemon struct {
	config   config
	log      *slog.Logger
	registry *prometheus.Registry
	reserved *reserved
	cluster  *cluster.Cluster
	disks    *disks
	devices  frontend.Driver
	// identity is nil where the nodes trust their network.
	identity *mtls.Identity
}

// runDaemon runs the node until ctx ends or it cannot go on.
func runDaemon(ctx context.Context, c config, log *slog.Logger) (err error) {
	iopath.Mark(log)
	d := &daemon{config: c, log: log, registry: prometheus.NewRegistry()}
	d.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if d.reserved, err = reserve(ctx, &c); err != nil {
		return err
	}
	defer d.reserved.release()
	d.disks = newDisks(c.dataDir, vfs.Engine(c.diskIO), c.diskMemory<<20, log)
	defer func() { err = errors.Join(err, d.disks.close()) }()
	d.registry.MustRegister(d.disks)
	if _, err := d.disks.list.read(); err != nil {
		return err
	}
	if err := d.openIdentity(); err != nil {
		return err
	}
	if err := d.openCluster(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.cluster.Close()) }()
	if d.devices, err = d.chooseFrontend(ctx); err != nil {
		return err
	}
	return d.run(ctx)
}

// openCluster prepares the cluster member.
func (d *daemon) openCluster() (err error) {
	dialRaft, dialOptions := d.clusterDialers()
	d.cluster, err = cluster.Open(cluster.Options{
		Dir:            filepath.Join(d.config.dataDir, "cluster"),
		Name:           d.config.name,
		Tags:           d.config.tags,
		ControlAddress: d.config.listenControl,
		DataAddress:    d.config.listenData,
		RaftAddress:    d.config.listenRaft,
		RaftListener:   d.raftListener(),
		DialRaft:       dialRaft,
		DialOptions:    dialOptions,
		Bootstrap:      d.config.bootstrap,
		Join:           d.config.join,
		Replicas:       d.disks,
		Disks:          d.disks,
		Logger:         d.log,
		Registerer:     d.registry,
		Clock:          clock.System{},
		Random:         rand.Reader,

		OverProvisioning: d.config.overProvision,
	})
	if err != nil {
		return err
	}
	if d.cluster.ClusterID().IsZero() && !d.config.bootstrap && len(d.config.join) == 0 {
		return usageError{errors.Join(
			fmt.Errorf("the node in %s belongs to no cluster yet: give --join and the control address of a member, "+
				"or --bootstrap if it is to be the first of a new cluster", d.config.dataDir),
			d.cluster.Close())}
	}
	d.disks.member = d.cluster
	return nil
}

// run starts the parts and joins them. The order of ending is: calls, engines
// with their devices left in place, replicas, cluster member.
func (d *daemon) run(ctx context.Context) error {
	outer, cancelOuter := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelOuter()
	// Also when it is a part that fails.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var parts errgroup.Group
	failed := make(chan error, 6)
	start := func(ctx context.Context, name string, run func(context.Context) error) {
		parts.Go(func() error {
			err := run(ctx)
			if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, net.ErrClosed) {
				return nil
			}
			err = fmt.Errorf("%s: %w", name, err)
			failed <- err
			return err
		})
	}
	start(outer, "cluster member", d.cluster.Run)
	if d.identity != nil {
		start(outer, "TLS", d.identity.Run)
	}
	agent := &nodeAgent{config: d.config, cluster: d.cluster}
	// A new node answers the control API before it is a member: joining needs it.
	api := newControlAPI(d.cluster, agent, d.controlOptions()...)
	start(ctx, "control API", func(ctx context.Context) error { return api.serve(ctx, d.reserved.control, d.reserved.socket) })
	if listener := d.reserved.metrics; listener != nil {
		start(ctx, "metrics", func(ctx context.Context) error { return serveHTTP(ctx, listener, metricsHandler(d.registry)) })
	}
	if listener := d.reserved.debug; listener != nil {
		start(ctx, "profiles", func(ctx context.Context) error { return serveHTTP(ctx, listener, profileHandler()) })
	}
	err := d.serveVolumes(ctx, outer, agent, start, failed)
	cancel()
	cancelOuter()
	if partErr := parts.Wait(); err == nil {
		// Otherwise it is the same, or a consequence.
		err = partErr
	}
	return err
}

// serveVolumes serves replicas and engines as soon as the node is a member, and
// waits for the end.
func (d *daemon) serveVolumes(ctx, outer context.Context, agent *nodeAgent,
	start func(context.Context, string, func(context.Context) error), failed <-chan error) error {
	joined, cancel := context.WithCancel(ctx)
	defer cancel()
	ready := make(chan error, 1)
	go func() { ready <- d.member(joined) }()
	select {
	case err := <-ready:
		if err != nil {
			return ignoreCanceled(err)
		}
	case err := <-failed:
		cancel()
		return errors.Join(err, ignoreCanceled(<-ready))
	}
	host, err := server.NewHost(d.cluster.ClusterID(), server.DefaultLimits())
	if err != nil {
		return err
	}
	if err := d.disks.open(ctx, d.cluster.ClusterID(), host); err != nil {
		return err
	}
	data, err := wire.NewServer(wire.ServerConfig{
		Cluster:  d.cluster.ClusterID(),
		Node:     d.cluster.NodeID(),
		Acceptor: host,
		Exports:  host.Exports(),
		Logger:   d.log,

		TLS:        d.dataServer(),
		RequireTLS: d.identity != nil,
	})
	if err != nil {
		return err
	}
	start(outer, "replica traffic", func(ctx context.Context) error { return data.Serve(ctx, d.reserved.data) })
	engines, err := d.newEngines(host)
	if err != nil {
		return err
	}
	agent.serve(&volumes{engines: engines, replicas: host, disks: d.disks})
	d.log.Info("node is a member", "node", d.cluster.NodeID().String(), "cluster", d.cluster.ClusterID().String())
	return d.runEngines(ctx, engines, failed)
}

// member waits until the node knows its cluster. One that was a member before
// knows it at once, and serves its replicas before Raft has a leader.
func (d *daemon) member(ctx context.Context) error {
	if !d.cluster.ClusterID().IsZero() {
		return nil
	}
	return d.cluster.Ready(ctx)
}

func (d *daemon) newEngines(host *server.Host) (*engine.Host, error) {
	metrics, err := engine.NewMetrics(d.registry)
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	host.SetElsewhere(elsewhere{cluster: d.cluster, metrics: metrics, tls: d.dataClient, log: d.log})
	return engine.NewHost(engine.HostConfig{
		Node:    d.cluster.NodeID(),
		Cluster: d.cluster.ClusterID(),
		Timing:  core.Timing{}.Default(),
		Limits:  core.Limits{}.Default(),
		Truth:   truth{d.cluster},
		Dialer:  dialer{cluster: d.cluster, local: host, tls: d.dataClient},
		Devices: d.devices,
		Clock:   clock.System{},
		Logger:  d.log,
		Metrics: metrics,
		Scrubs:  scrubs{d.cluster},
	})
}

// chooseFrontend takes the kernel's NBD client where there is one, unless a flag
// says otherwise.
func (d *daemon) chooseFrontend(ctx context.Context) (frontend.Driver, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own program: %w", err)
	}
	drivers := []frontend.Driver{
		&nbd.Driver{Node: d.cluster.NodeID(), Logger: d.log},
		&fuse.Driver{
			RunDir: filepath.Join(d.config.runDir, "devices"),
			Helper: []string{self, fuseDeviceName},
			Logger: d.log,
		},
	}
	override := d.config.frontend
	switch override {
	case frontendAuto:
		override = ""
	case frontendSocket:
		// It makes no device that could be mounted, so it is there only for who
		// asks for it.
		drivers = append(drivers, &socket.Driver{RunDir: filepath.Join(d.config.runDir, "sockets"), Logger: d.log})
	}
	driver, err := frontend.Choose(ctx, override, drivers...)
	if err != nil {
		return nil, fmt.Errorf("volumes cannot be shown as devices here: %w: run as root, on a machine with the kernel module nbd, "+
			"or with /dev/fuse and /dev/loop-control", err)
	}
	d.log.Info("frontend chosen", "frontend", driver.Name())
	return driver, nil
}

// runEngines runs the engines until ctx ends or another part has failed.
func (d *daemon) runEngines(ctx context.Context, engines *engine.Host, failed <-chan error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- engines.Run(ctx) }()
	select {
	case err := <-done:
		return ignoreCanceled(err)
	case err := <-failed:
		cancel()
		return errors.Join(err, ignoreCanceled(<-done))
	}
}

// controlAPI is the gRPC server of the daemon.
type controlAPI struct{ server *grpc.Server }

func newControlAPI(member *cluster.Cluster, agent *nodeAgent, options ...grpc.ServerOption) *controlAPI {
	s := grpc.NewServer(append(options, grpc.ChainUnaryInterceptor(rpcerr.UnaryServerInterceptor))...)
	member.Register(s)
	holdfastv1.RegisterNodeAgentServer(s, agent)
	grpc_health_v1.RegisterHealthServer(s, health.NewServer())
	return &controlAPI{server: s}
}

// serve answers on the TCP address, for other nodes, and on the unix socket, for
// this one.
func (a *controlAPI) serve(ctx context.Context, tcp, unix net.Listener) error {
	stop := context.AfterFunc(ctx, a.stop)
	defer stop()
	var both errgroup.Group
	both.Go(func() error { return a.server.Serve(tcp) })
	both.Go(func() error { return a.server.Serve(unix) })
	if err := both.Wait(); !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

// stop lets calls in flight finish for a while.
func (a *controlAPI) stop() {
	timer := time.AfterFunc(stopTimeout, a.server.Stop)
	defer timer.Stop()
	a.server.GracefulStop()
}

func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
