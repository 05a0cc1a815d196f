package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"k8s.io/klog/v2"

	"github.com/holdfast-io/holdfast/driver/mount"
	"github.com/holdfast-io/holdfast/test/harness"
	"github.com/holdfast-io/holdfast/test/harness/postgresql"
)

// postgresStage is what the contenders need, and all of them. One server runs at a time,
// that of the contender whose turn it is: others would checkpoint and clean beside it.
type postgresStage struct {
	holdfast
	options postgresOptions
	dir     string
	mounter *mount.Mounter
	// mounts are where file systems are mounted, or were to be.
	mounts []string
	// loop is the loop device of the plain file, file the device of the other one.
	loop string
	file *fileDevice
	// serving is the server that runs, if any does.
	serving    *postgresql.Server
	contenders []contender
	// version is what PostgreSQL calls itself, device what shows the volumes.
	version, device string
}

// newPostgresStage makes the directory, once it is clear that there is room.
func newPostgresStage(o postgresOptions) (*postgresStage, error) {
	// The library that mounts tells of each file system, in the midst of the progress.
	klog.SetSlogLogger(slog.New(slog.DiscardHandler))
	mounter := mount.New()
	if err := mounter.Check(); err != nil {
		return nil, err
	}
	if err := wantFree(o.Dir, copies*o.SizeBytes); err != nil {
		return nil, err
	}
	// Short, because of the limit on paths of sockets.
	dir, err := os.MkdirTemp(o.Dir, "hf-bench-")
	if err != nil {
		return nil, err
	}
	// PostgreSQL's user has to come through to the mounts, and to its homes.
	if err := os.Chmod(dir, 0o711); err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	return &postgresStage{options: o, dir: dir, mounter: mounter}, nil
}

func (s *postgresStage) all() []contender { return s.contenders }

// set makes all contenders.
func (s *postgresStage) set(ctx context.Context, p *progress) error {
	return runSteps(ctx, p, []step{
		{"building Holdfast and starting three daemons", func(ctx context.Context) error {
			return s.start(ctx, s.dir, s.options.frontend, s.options.Engine)
		}},
		{"filling a database on a file under a loop device", s.addLoop},
		{"filling a database on a file behind a device like a volume's", s.addFile},
		{"filling a database on a volume with 1 replica", s.addVolume(holdfast1, 1)},
		{"filling a database on a volume with 3 replicas", s.addVolume(holdfast3, 3)},
	})
}

func (s *postgresStage) addLoop(ctx context.Context) error {
	path := filepath.Join(s.dir, "file-loop")
	if err := makeFile(path, s.options.SizeBytes); err != nil {
		return err
	}
	var err error
	if s.loop, err = attachLoop(ctx, path); err != nil {
		return err
	}
	return s.add(ctx, contender{Name: fileUnderLoop}, s.loop)
}

func (s *postgresStage) addFile(ctx context.Context) error {
	path, devices := filepath.Join(s.dir, "file"), filepath.Join(s.dir, "f")
	if err := makeFile(path, s.options.SizeBytes); err != nil {
		return err
	}
	var err error
	s.file, err = attachFile(ctx, path, devices, s.options.frontend, []string{s.binaries.Daemon, "fuse-device"}, s.options.Engine)
	if err != nil {
		return err
	}
	s.device = "kernel NBD"
	if strings.HasPrefix(s.file.device.Path(), "/dev/loop") {
		s.device = "FUSE under a loop device"
	}
	helpers, err := harness.Naming(s.binaries.Daemon, devices)
	if err != nil {
		return err
	}
	servers := append(helpers, os.Getpid())
	return s.add(ctx, contender{Name: fileBehindFrontend, pids: func() []int { return servers }}, s.file.device.Path())
}

// addVolume makes a volume. What serves its device counts among its servers, beside the
// daemons.
func (s *postgresStage) addVolume(name string, replicas int) func(context.Context) error {
	return func(ctx context.Context) error {
		id, device, err := s.makeVolume(ctx, name, s.options.SizeBytes, replicas)
		if err != nil {
			return err
		}
		servers, err := harness.Naming(s.binaries.Daemon, s.cluster.Dir)
		if err != nil {
			return err
		}
		return s.add(ctx, contender{
			Name: name, pids: func() []int { return servers },
			healthy: func(ctx context.Context) error { return s.checkVolume(ctx, id, replicas) },
		}, device)
	}
}

// add makes a database on a device, written to its last byte before, and the contender
// of it.
func (s *postgresStage) add(ctx context.Context, c contender, device string) error {
	for _, t := range postgresTitles {
		if t.name == c.Name {
			c.Title = t.title
		}
	}
	if err := fillDevice(ctx, device, s.options.SizeBytes); err != nil {
		return err
	}
	at := filepath.Join(s.dir, "m-"+c.Name)
	s.mounts = append(s.mounts, at)
	if err := os.Mkdir(at, 0o755); err != nil {
		return err
	}
	if err := s.mounter.FormatAndMount(ctx, mount.Request{Device: device, Target: at, FSType: "ext4"}); err != nil {
		return err
	}
	server, err := postgresql.New(filepath.Join(s.dir, "d-"+c.Name))
	if err != nil {
		return err
	}
	if err := server.Initialise(ctx, at); err != nil {
		return err
	}
	if err := s.serve(ctx, server); err != nil {
		return err
	}
	if _, err := server.Run(ctx, "pgbench", "-i", "-q", "-s", strconv.Itoa(s.options.scale)); err != nil {
		return err
	}
	if s.version, err = server.Query(ctx, "SELECT 'PostgreSQL ' || current_setting('server_version')"); err != nil {
		return err
	}
	s.version = strings.TrimSpace(s.version)
	c.ready = func(ctx context.Context) error { return s.serve(ctx, server) }
	c.load = func(ctx context.Context, _ workload, _ int) (load, error) { return s.pgbench(ctx, server) }
	s.contenders = append(s.contenders, c)
	return nil
}

// serve starts a server, after the one that runs was stopped in order: each begins with
// all on its disk and nothing in its memory.
func (s *postgresStage) serve(ctx context.Context, server *postgresql.Server) error {
	if s.serving != nil {
		if err := s.serving.Stop(ctx); err != nil {
			return err
		}
	}
	s.serving = server
	if err := server.Start(ctx); err != nil {
		return err
	}
	_, err := server.Query(ctx, "CHECKPOINT")
	return err
}

// pgbench runs it once. PostgreSQL is a client of the device, as pgbench is.
func (s *postgresStage) pgbench(ctx context.Context, server *postgresql.Server) (load, error) {
	before, err := server.CPU()
	if err != nil {
		return load{}, err
	}
	cmd := server.Program(ctx, "pgbench", "-n", "-c", strconv.Itoa(s.options.clients), "-j", strconv.Itoa(pgbenchThreads),
		"-T", strconv.Itoa(int(s.options.Runtime/time.Second)))
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return load{}, fmt.Errorf("pgbench: %w: %s", errors.Join(err, ctx.Err()), lastLines(said.Bytes()))
	}
	summary, err := postgresql.ParseSummary(said.String())
	if err != nil {
		return load{}, err
	}
	if summary.Failed > 0 || summary.Processed == 0 {
		return load{}, fmt.Errorf("pgbench processed %d transactions, and %d failed: see %s", summary.Processed, summary.Failed, server.LogPath())
	}
	after, err := server.CPU()
	clients := after - before + cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return load{
		Operations: int64(summary.Processed), Rate: summary.Rate, Average: summary.Latency,
		ClientCPU: clients, ProcessCPU: clients,
	}, err
}

// strike ends and removes everything, whatever was set, from the top.
func (s *postgresStage) strike(ctx context.Context) error {
	var errs []error
	if s.serving != nil {
		errs = append(errs, s.serving.Kill(ctx))
	}
	for _, at := range s.mounts {
		errs = append(errs, s.unmount(ctx, at))
	}
	mounted := errors.Join(errs...)
	if s.loop != "" {
		errs = append(errs, detachLoop(ctx, s.loop))
	}
	if s.file != nil {
		errs = append(errs, s.file.detach(ctx))
	}
	errs = append(errs, s.stop(ctx))
	if mounted != nil {
		return errors.Join(append(errs, fmt.Errorf("%s is left in place: unmount what is below it, and remove it", s.dir))...)
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

// unmount unmounts what may be mounted. Processes that were killed may hold it for a
// moment.
func (s *postgresStage) unmount(ctx context.Context, at string) error {
	if mounted, err := s.mounter.IsMounted(at); err != nil || !mounted {
		return err
	}
	return harness.Wait(ctx, "the last user of "+at, func(context.Context) error {
		err := s.mounter.Unmount(at)
		if err != nil && !errors.Is(err, mount.ErrBusy) {
			return harness.Stop(err)
		}
		return err
	})
}
