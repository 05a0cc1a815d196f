package main

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
	"github.com/holdfast-io/holdfast/test/harness"
)

const (
	// startLimit bounds the start of a server, callLimit a call to a daemon.
	startLimit = 30 * time.Second
	callLimit  = 60 * time.Second
)

func (s *volumeStage) startCluster(ctx context.Context) error {
	binaries, err := harness.Build(ctx, filepath.Join(s.dir, "bin"))
	if err != nil {
		return err
	}
	s.cluster, err = harness.Start(ctx, harness.Options{
		Binaries: binaries, Dir: filepath.Join(s.dir, "c"), TLS: s.options.TLS, DaemonArgs: []string{"--frontend", "socket", "--disk-io", string(s.options.Engine)},
	})
	if err != nil {
		return err
	}
	return s.cluster.AddDisks(ctx, "ssd")
}

// daemons are the processes of all daemons: that of a single replica's volume
// belongs to a cluster too.
func (s *volumeStage) daemons() []int {
	var pids []int
	for _, n := range s.cluster.Nodes {
		pids = append(pids, n.PID())
	}
	return pids
}

// allocations are those of all daemons.
func (s *volumeStage) allocations(ctx context.Context) (float64, error) {
	sum := 0.0
	for _, n := range s.cluster.Nodes {
		value, err := n.Metric(ctx, http.DefaultClient, "go_memstats_mallocs_total")
		if err != nil {
			return 0, err
		}
		sum += value
	}
	return sum, nil
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
		id, uri, err := s.makeVolume(ctx, name, replicas)
		if err != nil {
			return err
		}
		s.add(contender{
			Name: name, Title: title, pids: s.daemons, allocations: s.allocations,
			healthy: func(ctx context.Context) error { return s.checkVolume(ctx, id, replicas) },
		}, nbdTarget(uri))
		return s.fill(ctx, nbdTarget(uri))
	}
}

func (s *volumeStage) makeVolume(ctx context.Context, name string, replicas int) (id, uri string, err error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	volumes := s.cluster.Nodes[0].Volumes()
	made, err := volumes.CreateVolume(ctx, &holdfastv1.CreateVolumeRequest{
		Name: name, SizeBytes: s.options.SizeBytes, Parameters: &holdfastv1.VolumeParameters{Replicas: int32(replicas)},
	})
	if err != nil {
		return "", "", fmt.Errorf("create volume: %w", err)
	}
	node := s.cluster.Node(made.GetReplicas()[0].GetNodeId())
	if name == holdfastRemote {
		node = s.cluster.Nodes[(slices.Index(s.cluster.Nodes, node)+1)%len(s.cluster.Nodes)]
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
func (s *volumeStage) checkVolume(ctx context.Context, id string, replicas int) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	volume, err := s.cluster.Nodes[0].Volumes().GetVolume(ctx, &holdfastv1.GetVolumeRequest{Id: id})
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
		return fmt.Errorf("%d of %d replicas are in sync: the figures are void; the logs end with\n%s", inSync, replicas, s.cluster.LogTails())
	}
	return nil
}
