package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// host keeps disks and replicas in memory. It implements ReplicaHost, DiskHost
// and the part of NodeAgent that the cluster calls.
type host struct {
	holdfastv1.UnimplementedNodeAgentServer

	mu       sync.Mutex
	disks    map[string]DiskReport
	replicas map[block.ReplicaID]HeldReplica
	// quarantined are the replicas that were put into quarantine, false once let out.
	quarantined map[block.ReplicaID]bool
	// closed are the disks that were taken out.
	closed  map[block.DiskID]bool
	unstage func(context.Context, string) error
	cuts    map[block.ReplicaID]HeldCuts
	// specs are what replicas were made from.
	specs map[block.ReplicaID]ReplicaSpec
	// create, unless nil, comes before the making of a replica.
	create func(context.Context) error
	usage  *holdfastv1.VolumeUsage
	// work is what TakeSnapshot and GrowVolume do: p is to be proposed.
	work func(ctx context.Context, volume string, p block.Proposal) error
	// revert is what RevertHead does.
	revert func(ctx context.Context, volume, snapshot string) error
	// resync is what ResyncVolume does.
	resync func(ctx context.Context, volume string, replicas []block.ReplicaID) error
}

func newHost() *host {
	return &host{disks: map[string]DiskReport{}, replicas: map[block.ReplicaID]HeldReplica{},
		quarantined: map[block.ReplicaID]bool{}, closed: map[block.DiskID]bool{}, specs: map[block.ReplicaID]ReplicaSpec{}, cuts: map[block.ReplicaID]HeldCuts{}}
}

func (h *host) open(disk block.DiskID) bool {
	for _, d := range h.disks {
		if d.ID == disk && !h.closed[disk] {
			return true
		}
	}
	return false
}

// setCreate puts something before the making of replicas.
func (h *host) setCreate(f func(context.Context) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.create = f
}

func (h *host) Create(ctx context.Context, spec ReplicaSpec) (block.Incarnation, error) {
	h.mu.Lock()
	f := h.create
	h.mu.Unlock()
	if f != nil {
		if err := f(ctx); err != nil {
			return block.Incarnation{}, err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.open(spec.Disk) {
		return block.Incarnation{}, block.ErrNotFound
	}
	h.specs[spec.Replica] = spec
	h.replicas[spec.Replica] = HeldReplica{Disk: spec.Disk, Replica: spec.Replica, Volume: spec.Volume}
	return block.Incarnation{Boot: block.ID{1}, DiskSequence: 2, Superblock: 3}, nil
}

func (h *host) Delete(_ context.Context, disk block.DiskID, replica block.ReplicaID) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.open(disk) {
		return block.ErrNotFound
	}
	delete(h.replicas, replica)
	return nil
}

func (h *host) DropCuts(_ context.Context, replica block.ReplicaID, cuts []block.SnapshotID) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	held := h.cuts[replica]
	held.Cuts = slices.DeleteFunc(slices.Clone(held.Cuts), func(c block.Cut) bool { return slices.Contains(cuts, c.Snapshot) })
	h.cuts[replica] = held
	return nil
}

func (h *host) Cuts(replica block.ReplicaID) HeldCuts {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.cuts[replica]
}

// setCuts changes what is found of a replica.
func (h *host) setCuts(id block.ReplicaID, held HeldCuts) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cuts[id] = held
}

func (h *host) Quarantine(replica block.ReplicaID, on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.quarantined[replica] = on
}

func (h *host) Replicas() (list []HeldReplica) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.replicas {
		list = append(list, r)
	}
	return list
}

func (h *host) AddDisk(_ context.Context, _ block.ClusterID, disk NewDisk) (AddedDisk, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	path := disk.Path
	d, ok := h.disks[path]
	if !ok {
		id, err := block.NewID(rand.Reader)
		if err != nil {
			return AddedDisk{}, err
		}
		d = DiskReport{ID: block.DiskID{ID: id}, Capacity: 64 << 30, Free: 64 << 30}
		h.disks[path] = d
	}
	delete(h.closed, d.ID)
	return AddedDisk{ID: d.ID, Path: path, Capacity: d.Capacity}, nil
}

func (h *host) RemoveDisk(_ context.Context, disk block.DiskID) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed[disk] = true
	return nil
}

// holds reports whether a disk is open.
func (h *host) holds(disk block.DiskID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.open(disk)
}

// plug gives the disk of another host to this one, at a path.
func (h *host) plug(path string, d DiskReport) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.disks[path] = d
}

// report changes what the host says of a disk.
func (h *host) report(path string, change func(*DiskReport)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.disks[path]
	change(&d)
	h.disks[path] = d
}

func (h *host) Disks() (list []DiskReport) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range h.disks {
		if !h.closed[d.ID] {
			list = append(list, d)
		}
	}
	return list
}

// setUnstage replaces what UnstageVolume does.
func (h *host) setUnstage(f func(ctx context.Context, volume string) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.unstage = f
}

func (h *host) UnstageVolume(ctx context.Context, req *holdfastv1.UnstageVolumeRequest) (*holdfastv1.UnstageVolumeResponse, error) {
	h.mu.Lock()
	f := h.unstage
	h.mu.Unlock()
	if f == nil {
		return nil, errors.New("no unstage was expected")
	}
	return &holdfastv1.UnstageVolumeResponse{}, f(ctx, req.GetVolumeId())
}

func (h *host) TakeSnapshot(ctx context.Context, req *holdfastv1.TakeSnapshotRequest) (*holdfastv1.TakeSnapshotResponse, error) {
	id, err := parseSnapshotID(req.GetSnapshotId())
	if err != nil {
		return nil, err
	}
	return &holdfastv1.TakeSnapshotResponse{}, h.do(ctx, req.GetVolumeId(), block.Proposal{Snapshot: &block.Snapshot{ID: id, Created: req.GetCreated()}})
}

func (h *host) GrowVolume(ctx context.Context, req *holdfastv1.GrowVolumeRequest) (*holdfastv1.GrowVolumeResponse, error) {
	return &holdfastv1.GrowVolumeResponse{}, h.do(ctx, req.GetVolumeId(), block.Proposal{Size: req.GetSizeBytes()})
}

func (h *host) RevertHead(ctx context.Context, req *holdfastv1.RevertHeadRequest) (*holdfastv1.RevertHeadResponse, error) {
	h.mu.Lock()
	f := h.revert
	h.mu.Unlock()
	return &holdfastv1.RevertHeadResponse{}, f(ctx, req.GetVolumeId(), req.GetSnapshotId())
}

// setRevert replaces what RevertHead does.
func (h *host) setRevert(f func(ctx context.Context, volume, snapshot string) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.revert = f
}

func (h *host) ResyncVolume(ctx context.Context, req *holdfastv1.ResyncVolumeRequest) (*holdfastv1.ResyncVolumeResponse, error) {
	var replicas []block.ReplicaID
	for _, text := range req.GetReplicaIds() {
		id, err := block.ParseID(text)
		if err != nil {
			return nil, err
		}
		replicas = append(replicas, block.ReplicaID{ID: id})
	}
	h.mu.Lock()
	f := h.resync
	h.mu.Unlock()
	return &holdfastv1.ResyncVolumeResponse{}, f(ctx, req.GetVolumeId(), replicas)
}

// setResync replaces what ResyncVolume does.
func (h *host) setResync(f func(ctx context.Context, volume string, replicas []block.ReplicaID) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.resync = f
}

func (h *host) GetSnapshotUsage(_ context.Context, req *holdfastv1.GetSnapshotUsageRequest) (*holdfastv1.GetSnapshotUsageResponse, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, err := block.ParseID(req.GetReplicaId()); err != nil {
		return nil, err
	}
	resp := &holdfastv1.GetSnapshotUsageResponse{}
	for range req.GetSnapshotIds() {
		resp.Usages = append(resp.Usages, &holdfastv1.SnapshotUsage{UniqueBytes: 4096, FreedIfDeletedBytes: 4096})
	}
	return resp, nil
}

func (h *host) GetVolumeUsage(context.Context, *holdfastv1.GetVolumeUsageRequest) (*holdfastv1.VolumeUsage, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.usage == nil {
		return nil, fmt.Errorf("usage of a replica: %w", block.ErrUnavailable)
	}
	return h.usage, nil
}

// setUsage replaces what replicas are said to take; nil is no answer.
func (h *host) setUsage(u *holdfastv1.VolumeUsage) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.usage = u
}

func (h *host) do(ctx context.Context, volume string, p block.Proposal) error {
	h.mu.Lock()
	f := h.work
	h.mu.Unlock()
	return f(ctx, volume, p)
}

// setWork replaces what TakeSnapshot and GrowVolume do.
func (h *host) setWork(f func(ctx context.Context, volume string, p block.Proposal) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.work = f
}

func (h *host) GetEngine(context.Context, *holdfastv1.GetEngineRequest) (*holdfastv1.EngineStatus, error) {
	return &holdfastv1.EngineStatus{Serving: true}, nil
}
