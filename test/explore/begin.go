package explore

import (
	"fmt"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
)

var (
	clusterID = block.ClusterID{ID: block.ID{6: 1}}
	volumeID  = block.VolumeID{ID: block.ID{3: 1}}
)

func diskID(i int) block.DiskID { return block.DiskID{ID: block.ID{2: byte(i + 1)}} }

// first is the boot of every replica at the beginning.
const first = 1

// begin is the first state: a volume that is served, or about to be.
func begin(s *setting) (*world, error) {
	c := &s.config
	w := &world{setting: s, raft: &state.State{}, left: c.Bounds, now: 1000 * unit, units: 1000}
	for _, cmd := range w.creation() {
		if r := w.commit(cmd); r.Err != nil {
			return nil, fmt.Errorf("begin with %s: %w", cmd.Kind(), r.Err)
		}
	}
	old := value(0)
	if c.Members < c.Replicas {
		old = missedValue
		w.removeAbsent()
	}
	if c.Missed {
		w.firstSnapshot()
	}
	w.history = newHistory(old)
	for i := range c.Replicas {
		w.replicas[i] = w.firstReplica(i, old)
	}
	w.launch()
	if c.Serving {
		for n := 0; !w.engines[0].serving && n < finishSteps; n++ {
			if !w.deliver() && !w.elapse() {
				break
			}
		}
	}
	s.images = w.replicas
	return w, w.violation
}

// creation makes the cluster and the volume.
func (w *world) creation() []state.Command {
	c := &w.setting.config
	list := []state.Command{state.Bootstrap{Cluster: clusterID, Incarnation: 1}}
	volume := state.CreateVolume{Volume: volumeID, Name: "explored", Size: w.setting.size,
		Parameters: state.Parameters{Replicas: c.Replicas, MinInSync: c.MinInSync}}
	var ready []state.Command
	for i := range c.Replicas {
		list = append(list, state.SetNode{Node: state.Node{ID: nodeID(i), Name: letter(i)}},
			state.AddDisk{Disk: state.Disk{ID: diskID(i), Node: nodeID(i), Path: "disk", Capacity: free}})
		volume.Replicas = append(volume.Replicas, state.Placement{Replica: replicaID(i), Node: nodeID(i), Disk: diskID(i)})
		ready = append(ready, state.ReplicaReady{Replica: replicaID(i), Incarnation: incarnation(first)})
	}
	return append(append(list, volume), ready...)
}

// removeAbsent takes the replicas that shall be absent out of the in-sync set, as
// an engine before the first one did.
func (w *world) removeAbsent() {
	w.must(state.Publish{Volume: volumeID, Node: nodeID(0)})
	v := w.must(state.StartEngine{Volume: volumeID, Node: nodeID(0), Start: block.StartID{ID: block.ID{5: 255}},
		Epoch: w.view().Epoch, NewAttachment: block.AttachmentID{ID: block.ID{4: 255}}}).View()
	p := block.Proposal{Volume: volumeID, Epoch: v.Epoch, Revision: v.Revision, WaitedOut: true}
	for i := w.setting.config.Members; i < w.setting.config.Replicas; i++ {
		p.Remove = append(p.Remove, replicaID(i))
	}
	w.must(state.Propose{Proposal: p})
}

// firstReplica holds value old everywhere, or, if it is absent, lacks that.
func (w *world) firstReplica(i int, old value) replica {
	r := replica{boot: first, spacing: w.setting.config.spacing()}
	member := i < w.setting.config.Members
	for b := range r.cur {
		if member {
			r.cur[b] = old
		}
		r.may[b] = 1 << r.cur[b]
	}
	if !member {
		r.kept = true
		return r
	}
	if w.setting.config.Missed {
		r.cuts[0] = cut{held: true, valid: true, cur: r.cur, shared: 1<<maxBlocks - 1}
	}
	v := w.view()
	for k := w.setting.config.Members; k < w.setting.config.Replicas; k++ {
		r.dirty[k] = dirtySet{held: true, removal: v.Member(replicaID(k)).Removed,
			regions: regionBits(block.AllRegions(w.setting.size))}
	}
	return r
}
