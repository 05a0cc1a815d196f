package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
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
	cluster  *cluster.Cluster
	disks    *disks
	data     net.Listener
}

// runDaemon runs the node until ctx ends or it cannot go on.
func runDaemon(ctx context.Context, c config, log *slog.Logger) (err error) {
	markIOPath(log)
	for _, dir := range []string{c.dataDir, c.runDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	d := &daemon{config: c, log: log, registry: prometheus.NewRegistry()}
	d.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if d.data, err = net.Listen("tcp", c.listenData); err != nil {
		return fmt.Errorf("listen for replica traffic: %w", err)
	}
	defer func() { err = errors.Join(err, closeListener(d.data)) }()
	if err := d.openCluster(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.cluster.Close(), d.disks.close()) }()
	return d.run(ctx)
}

// openCluster prepares the cluster member and the disks that it reports on.
func (d *daemon) openCluster() error {
	raftListener, err := net.Listen("tcp", d.config.listenRaft)
	if err != nil {
		return fmt.Errorf("listen for Raft: %w", err)
	}
	d.disks = newDisks(d.config.dataDir, d.log)
	d.cluster, err = cluster.Open(cluster.Options{
		Dir:            filepath.Join(d.config.dataDir, "cluster"),
		Name:           d.config.name,
		Tags:           d.config.tags,
		ControlAddress: d.config.listenControl,
		DataAddress:    d.config.listenData,
		RaftAddress:    d.config.listenRaft,
		RaftListener:   raftListener,
		Bootstrap:      d.config.bootstrap,
		Join:           d.config.join,
		Replicas:       d.disks,
		Disks:          d.disks,
		Logger:         d.log,
		Registerer:     d.registry,
		Clock:          clock.System{},
		Random:         rand.Reader,
	})
	if err != nil {
		return errors.Join(err, closeListener(raftListener))
	}
	d.disks.node = d.cluster.NodeID()
	return nil
}

// run starts the parts and joins them. The order of ending is: calls, engines
// with their devices left in place, replicas, cluster member.
func (d *daemon) run(ctx context.Context) error {
	outer, cancelOuter := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelOuter()
	var parts errgroup.Group
	failed := make(chan error, 5)
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
	agent := &nodeAgent{config: d.config, cluster: d.cluster}
	// A new node answers the control API before it is a member: joining needs it.
	api := newControlAPI(d.cluster, agent)
	start(ctx, "control API", func(ctx context.Context) error { return api.serve(ctx, d.config) })
	if address := d.config.listenMetrics; address != "" {
		start(ctx, "metrics", func(ctx context.Context) error { return serveHTTP(ctx, address, metricsHandler(d.registry)) })
	}
	if address := d.config.listenDebug; address != "" {
		start(ctx, "profiles", func(ctx context.Context) error { return serveHTTP(ctx, address, profileHandler()) })
	}
	err := d.serveVolumes(ctx, outer, agent, start, failed)
	cancelOuter()
	return errors.Join(err, parts.Wait())
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
		<-ready
		return err
	}
	host, err := server.NewHost(d.cluster.ClusterID(), server.DefaultLimits())
	if err != nil {
		return err
	}
	if err := d.disks.open(d.cluster.ClusterID(), host); err != nil {
		return err
	}
	data, err := wire.NewServer(wire.ServerConfig{
		Cluster:  d.cluster.ClusterID(),
		Node:     d.cluster.NodeID(),
		Acceptor: host,
		Exports:  host.Exports(),
		Logger:   d.log,
	})
	if err != nil {
		return err
	}
	start(outer, "replica traffic", func(ctx context.Context) error { return data.Serve(ctx, d.data) })
	engines, err := d.newEngines(ctx, host)
	if err != nil {
		return err
	}
	agent.serve(engines, host)
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

func (d *daemon) newEngines(ctx context.Context, host *server.Host) (*engine.Host, error) {
	metrics, err := engine.NewMetrics(d.registry)
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	devices, err := d.chooseFrontend(ctx)
	if err != nil {
		return nil, err
	}
	return engine.NewHost(engine.HostConfig{
		Node:    d.cluster.NodeID(),
		Cluster: d.cluster.ClusterID(),
		Timing:  core.Timing{}.Default(),
		Limits:  core.Limits{}.Default(),
		Truth:   truth{d.cluster},
		Dialer:  dialer{cluster: d.cluster, local: host},
		Devices: devices,
		Clock:   clock.System{},
		Logger:  d.log,
		Metrics: metrics,
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
		return nil, fmt.Errorf("choose frontend: %w", err)
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

func newControlAPI(member *cluster.Cluster, agent *nodeAgent) *controlAPI {
	s := grpc.NewServer(grpc.ChainUnaryInterceptor(rpcerr.UnaryServerInterceptor))
	member.Register(s)
	holdfastv1.RegisterNodeAgentServer(s, agent)
	grpc_health_v1.RegisterHealthServer(s, health.NewServer())
	return &controlAPI{server: s}
}

// serve answers on the TCP address, for other nodes, and on the unix socket, for
// this one.
func (a *controlAPI) serve(ctx context.Context, c config) error {
	tcp, err := net.Listen("tcp", c.listenControl)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if err := os.Remove(c.controlSocket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, tcp.Close())
	}
	unix, err := net.Listen("unix", c.controlSocket)
	if err != nil {
		return errors.Join(fmt.Errorf("listen: %w", err), tcp.Close())
	}
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

func closeListener(l net.Listener) error {
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
