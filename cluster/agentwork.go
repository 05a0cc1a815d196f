package cluster

import (
	"slices"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
)

// AgentTask is a replica to be made, or deleted.
type AgentTask struct {
	Spec   ReplicaSpec
	Remove bool
}

// AgentWork is what a comparison of state and disks comes to.
type AgentWork struct {
	Tasks []AgentTask
	// Unknown are replicas that the state does not know and that are not quarantined;
	// Known are quarantined ones that it knows now.
	Unknown []HeldReplica
	Known   []block.ReplicaID
	// Foreign are open disks that are not of this node: they were removed, or another
	// node has them now.
	Foreign []block.DiskID
	// Blocked: there is more to do on disks that are not open, or have failed.
	Blocked bool
}

// Empty reports that there is nothing that can be done now.
func (w *AgentWork) Empty() bool { return len(w.Tasks)+len(w.Unknown)+len(w.Known) == 0 }

// FindAgentWork compares a state with the disks of a node and the replicas held on
// them. It has no effects, so that the agent of a simulated node can go by it, too.
func FindAgentWork(s *state.State, own block.NodeID, disks []DiskReport, held []HeldReplica, quarantined map[block.ReplicaID]bool) (w AgentWork) {
	if s.Cluster().IsZero() {
		return w
	}
	working := map[block.DiskID]bool{}
	for _, d := range disks {
		working[d.ID] = d.Failure == ""
		if disk, ok := s.Disk(d.ID); !ok || disk.Node != own {
			w.Foreign = append(w.Foreign, d.ID)
		}
	}
	for v := range s.UnsettledVolumes() {
		members := v.View.Replicas
		for _, p := range v.Elsewhere() {
			members = append(members[:len(members):len(members)], block.Member{ID: p.Replica, Node: p.Node, Disk: p.Disk})
		}
		for _, m := range members {
			if m.Node != own {
				continue
			}
			switch f := fateOf(&v, m.ID); {
			case f == keepReplica:
			case !working[m.Disk]:
				w.Blocked = true
			default:
				spec, ok := replicaSpec(s, &v, m)
				if f == makeReplica && !ok {
					w.Blocked = true
					continue
				}
				w.Tasks = append(w.Tasks, AgentTask{Spec: spec, Remove: f == deleteReplica})
			}
		}
	}
	for _, r := range held {
		switch unknown := !s.HasReplica(r.Replica); {
		case unknown && !quarantined[r.Replica]:
			w.Unknown = append(w.Unknown, r)
		case !unknown && quarantined[r.Replica]:
			w.Known = append(w.Known, r.Replica)
		}
	}
	return w
}

// replicaSpec is what a replica is to be; false if it is to share the bytes of a
// replica that is not on its disk. It is then not made: it must not be empty.
func replicaSpec(s *state.State, v *state.Volume, m block.Member) (ReplicaSpec, bool) {
	spec := ReplicaSpec{Disk: m.Disk, Replica: m.ID, Volume: v.ID, Size: v.View.Size}
	added := slices.ContainsFunc(v.Unmade(), func(p state.Placement) bool { return p.Replica == m.ID })
	if added && len(v.View.Snapshots) > 0 {
		// A cut has the size of its replica: it is as large as the volume was at its oldest
		// snapshot, and grows from cut to cut as the volume did.
		spec.Size = v.View.Snapshots[0].Size
	}
	if v.Source == nil || added || slices.Contains(v.Absent, m.ID) {
		return spec, true
	}
	source, _ := s.Volume(v.Source.Volume)
	i := slices.IndexFunc(source.View.Replicas, func(o block.Member) bool { return o.Disk == m.Disk })
	if i < 0 {
		return spec, false
	}
	spec.Source, spec.Snapshot = source.View.Replicas[i].ID, v.Source.Snapshot
	return spec, true
}
