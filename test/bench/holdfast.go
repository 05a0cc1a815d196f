package main

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/internal/vfs"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
	"github.com/holdfast-io/holdfast/test/harness"
)

const (
	// startLimit bounds the start of a server, callLimit a call to a daemon.
	startLimit = 30 * time.Second
	callLimit  = 60 * time.Second
)

// holdfast is a cluster of three daemons, whose volumes are contenders.
type holdfast struct {
	// debug: the daemons offer profiles. tls: they have certificates.
	debug, tls bool
	binaries   harness.Binaries
	cluster    *harness.Cluster
}

// start builds Holdfast and starts it below dir.
func (h *holdfast) start(ctx context.Context, dir, frontend string, engine vfs.Engine) error {
	var err error
	if h.binaries, err = harness.Build(ctx, filepath.Join(dir, "bin")); err != nil {
		return err
	}
	h.cluster, err = harness.Start(ctx, harness.Options{
		Binaries: h.binaries, Dir: filepath.Join(dir, "c"), DaemonArgs: []string{"--frontend", frontend, "--disk-io", string(engine)},
		Debug: h.debug,
		TLS:   h.tls,
	})
	if err != nil {
		return err
	}
	return h.cluster.AddDisks(ctx, "ssd")
}

// stop ends it, if it was started.
func (h *holdfast) stop(ctx context.Context) error {
	if h.cluster == nil {
		return nil
	}
	return h.cluster.Stop(ctx)
}

func (s *volumeStage) startCluster(ctx context.Context) error {
	return s.start(ctx, s.dir, "socket", s.options.Engine)
}

// daemons are the processes of all daemons: that of a single replica's volume
// belongs to a cluster too.
func (h *holdfast) daemons() []int {
	var pids []int
	for _, n := range h.cluster.Nodes {
		pids = append(pids, n.PID())
	}
	return pids
}

// allocations are those of all daemons.
func (h *holdfast) allocations(ctx context.Context) (float64, error) {
	return h.sumMetric(ctx, "go_memstats_mallocs_total")
}

// sumMetric is a metric of all daemons.
func (h *holdfast) sumMetric(ctx context.Context, name string) (float64, error) {
	sum := 0.0
	for _, n := range h.cluster.Nodes {
		value, err := n.Metric(ctx, http.DefaultClient, name)
		if err != nil {
			return 0, err
		}
		sum += value
	}
	return sum, nil
}

// syncsOf is how often the disk of each replica was synced by flushes; the disks without
// one have none.
func (s *volumeStage) syncsOf(replicas int) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		sum, err := s.sumMetric(ctx, "holdfast_disk_flush_syncs_total")
		return sum / float64(replicas), err
	}
}

// idleTime is several times as long as anything that daemons do regularly.
const idleTime = 5 * time.Second

// watchIdle finds out, once for all that they show, what daemons without load allocate.
func (s *volumeStage) watchIdle(ctx context.Context) error {
	allocated, err := contender{allocations: s.allocations}.allocated(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	select {
	case <-time.After(idleTime):
	case <-ctx.Done():
		return ctx.Err()
	}
	n, err := allocated(ctx)
	if err != nil {
		return err
	}
	for i := range s.contenders {
		s.contenders[i].idle = n / time.Since(began).Seconds()
	}
	return nil
}

// addVolume makes a volume, attaches it where one of its replicas is, or, if its name says
// so, where none is, and fills it.
func (s *volumeStage) addVolume(name, title string, replicas int) func(context.Context) error {
	return func(ctx context.Context) error {
		id, uri, err := s.makeVolume(ctx, name, s.options.SizeBytes, replicas)
		if err != nil {
			return err
		}
		s.add(contender{
			Name: name, Title: title, pids: s.daemons, allocations: s.allocations,
			syncs:   s.syncsOf(replicas),
			healthy: func(ctx context.Context) error { return s.checkVolume(ctx, id, replicas) },
		}, nbdTarget(uri))
		return s.fio.fill(ctx, nbdTarget(uri), s.options.SizeBytes)
	}
}

// makeVolume makes a volume and attaches it; path is the device, or the URI of the socket.
func (h *holdfast) makeVolume(ctx context.Context, name string, bytes int64, replicas int) (id, path string, err error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	volumes := h.cluster.Nodes[0].Volumes()
	made, err := volumes.CreateVolume(ctx, &holdfastv1.CreateVolumeRequest{
		Name: name, SizeBytes: bytes, Parameters: &holdfastv1.VolumeParameters{Replicas: int32(replicas)},
	})
	if err != nil {
		return "", "", fmt.Errorf("create volume: %w", err)
	}
	node := h.cluster.Node(made.GetReplicas()[0].GetNodeId())
	if name == holdfastRemote {
		node = h.cluster.Nodes[(slices.Index(h.cluster.Nodes, node)+1)%len(h.cluster.Nodes)]
	}
	if _, err := volumes.PublishVolume(ctx, &holdfastv1.PublishVolumeRequest{VolumeId: made.GetId(), NodeId: node.ID()}); err != nil {
		return "", "", fmt.Errorf("publish volume: %w", err)
	}
	staged, err := node.Agent().StageVolume(ctx, &holdfastv1.StageVolumeRequest{VolumeId: made.GetId()})
	if err != nil {
		return "", "", fmt.Errorf("stage volume: %w", err)
	}
	return made.GetId(), staged.GetDevicePath(), nil
}

// checkVolume: a volume that lost a replica on the way would be measured under a
// wrong name.
func (h *holdfast) checkVolume(ctx context.Context, id string, replicas int) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	volume, err := h.cluster.Nodes[0].Volumes().GetVolume(ctx, &holdfastv1.GetVolumeRequest{Id: id})
	if err != nil {
		return fmt.Errorf("look at the volume: %w", err)
	}
	inSync := 0
	for _, r := range volume.GetReplicas() {
		if r.GetInSync() {
			inSync++
		}
	}
	if inSync != replicas {
		return fmt.Errorf("%d of %d replicas are in sync: the figures are void; the logs end with\n%s", inSync, replicas, h.cluster.LogTails())
	}
	return nil
}
