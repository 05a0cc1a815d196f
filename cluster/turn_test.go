package cluster

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/clock"
)

// crowd is a state of six nodes with two disks each, and many volumes of three replicas
// that are all well and detached.
type crowd struct {
	tb      testing.TB
	state   *state.State
	disks   []DiskReport
	volumes int
}

const crowdNodes, crowdDisks = 6, 12

// crowdID spreads over the buckets of a table, as random IDs do.
func crowdID(kind byte, n int) block.ID {
	id := block.ID{byte(n * 37), kind}
	binary.BigEndian.PutUint64(id[8:], uint64(n))
	return id
}

func newCrowd(tb testing.TB, volumes int) *crowd {
	c := &crowd{tb: tb, state: &state.State{}}
	c.must(state.Bootstrap{Cluster: block.ClusterID{ID: crowdID('c', 1)}, Incarnation: 1})
	for n := range crowdNodes {
		c.must(state.SetNode{Node: state.Node{ID: block.NodeID{ID: crowdID('n', n)}, Name: fmt.Sprintf("node-%d", n)}})
	}
	for d := range crowdDisks {
		k := state.Disk{ID: block.DiskID{ID: crowdID('d', d)}, Node: block.NodeID{ID: crowdID('n', d%crowdNodes)}, Path: "/disk", Capacity: 1 << 50}
		c.must(state.AddDisk{Disk: k})
		c.disks = append(c.disks, DiskReport{ID: k.ID, Capacity: k.Capacity, Free: k.Capacity})
	}
	for range volumes {
		c.add()
	}
	return c
}

func (c *crowd) must(command state.Command) {
	c.tb.Helper()
	next, r := c.state.Apply(c.state.Index()+1, command)
	if r.Err != nil {
		c.tb.Fatal(r.Err)
	}
	c.state = next
}

// replica is the i-th one of the n-th volume.
func (c *crowd) replica(n, i int) block.ReplicaID {
	return block.ReplicaID{ID: crowdID('r', 3*n+i)}
}

func (c *crowd) add() {
	n := c.volumes
	c.volumes++
	command := state.CreateVolume{
		Volume: block.VolumeID{ID: crowdID('v', n)}, Name: fmt.Sprintf("volume-%d", n), Size: 1 << 30,
		Parameters: state.Parameters{Replicas: 3, MinInSync: 1}, DecidedAt: c.state.Index(),
	}
	for i := range 3 {
		d, _ := c.state.Disk(c.disks[(n+i)%crowdDisks].ID)
		command.Replicas = append(command.Replicas, state.Placement{Replica: c.replica(n, i), Node: d.Node, Disk: d.ID})
	}
	c.must(command)
	for i := range 3 {
		c.must(state.ReplicaReady{Replica: c.replica(n, i)})
	}
}

// leader is a member that leads this state, and has heard of every node.
func (c *crowd) leader() *Cluster {
	k := &Cluster{
		options: Options{Clock: clock.System{}, OverProvisioning: DefaultOverProvisioning},
		logger:  slog.New(slog.DiscardHandler), fsm: newFSM(nil), id: identity{Node: block.NodeID{ID: crowdID('n', 0)}},
	}
	k.options.Timing.setDefaults()
	k.options.Timing.NodeLease = time.Hour
	k.leases = newLeases(k.options.Clock, k.options.Timing.NodeLease)
	for n := range crowdNodes {
		k.leases.heard(block.NodeID{ID: crowdID('n', n)}, c.state.Index(), c.disks)
	}
	k.fsm.publish(c.state)
	return k
}

// TestUnsettledVolumes: what the loops look at are all volumes that any of them has
// something to do about, found here among all, and no others.
func TestUnsettledVolumes(t *testing.T) {
	b := newBoard(t)
	b.volume(1, 1, 2, 3)
	well := b.volume(9, 1, 2, 3)
	one := block.VolumeID{ID: placeID('v', 1)}
	replica := boardReplica(1, 1)
	keep := int64(3600)
	for _, step := range []struct {
		name string
		do   func()
		// work: there is something to be done about volume 1.
		work bool
	}{
		{"made", func() {}, false},
		{"to grow", func() { b.must(state.GrowVolume{Volume: one, Size: 2 << 30}) }, true},
		{"grown", func() { b.propose(1, block.Proposal{Size: 2 << 30}) }, false},
		{"out of sync", func() { b.propose(1, block.Proposal{Remove: []block.ReplicaID{replica}}) }, true},
		{"in sync", func() { b.propose(1, block.Proposal{Admit: []block.ReplicaID{replica}}) }, false},
		{"published", func() { b.must(state.Publish{Volume: one, Node: b.disks[0].node.ID}) }, false},
		{"unpublished", func() { b.must(state.Unpublish{Volume: one, Node: b.disks[0].node.ID}) }, false},
		{"to be replaced", func() {
			b.must(state.ReplaceReplica{Volume: one, Old: replica, New: state.Placement{Replica: boardReplica(1, 4), Node: b.disks[3].node.ID, Disk: b.disks[3].disk.ID}, DecidedAt: b.state.Index()})
		}, true},
		{"given up", func() { b.must(state.AbandonReplacement{Volume: one, Replica: boardReplica(1, 4)}) }, true},
		{"gone", func() { b.must(state.ReplicaGone{Replica: boardReplica(1, 4)}) }, false},
		{"in the trash", func() {
			b.must(state.SetSettings{TrashKeep: &keep})
			b.must(state.DeleteVolume{Volume: one, At: 1})
		}, true},
		{"restored", func() { b.must(state.RestoreVolume{Volume: one}) }, false},
		{"deleted", func() { b.must(state.DeleteVolume{Volume: one, Purge: true}) }, true},
		{"dropped", func() {
			for _, disk := range []byte{1, 2, 3} {
				b.must(state.ReplicaGone{Replica: boardReplica(1, disk)})
			}
		}, false},
	} {
		step.do()
		var found, want []block.VolumeID
		for v := range b.state.UnsettledVolumes() {
			found = append(found, v.ID)
		}
		for v := range b.state.Volumes() {
			if v.GrowTo != 0 || v.InTrash() || incomplete(&v) || slices.ContainsFunc(replicasOf(&v), func(id block.ReplicaID) bool { return fateOf(&v, id) != keepReplica }) {
				want = append(want, v.ID)
			}
		}
		if !slices.Equal(found, want) || slices.Contains(want, one) != step.work || slices.Contains(want, well) {
			t.Errorf("%s: %v are looked at, %v are to be", step.name, found, want)
		}
	}
}

// replicasOf are the replicas of a volume, wherever they are.
func replicasOf(v *state.Volume) (list []block.ReplicaID) {
	for _, m := range v.View.Replicas {
		list = append(list, m.ID)
	}
	for _, p := range v.Elsewhere() {
		list = append(list, p.Replica)
	}
	return list
}

// cleanReplicas are replicas without cuts.
type cleanReplicas struct {
	ReplicaHost
	held []HeldReplica
}

func (c cleanReplicas) Replicas() []HeldReplica       { return c.held }
func (c cleanReplicas) Cuts(block.ReplicaID) HeldCuts { return HeldCuts{} }

// BenchmarkLeaderTurn is what it costs to look for what is to be done where there is
// nothing: the leader's loops (move and fence twice a second, the others every five
// seconds), the plan while a disk is drained, and each node's agent, at every change.
func BenchmarkLeaderTurn(b *testing.B) {
	ctx := context.Background()
	for _, volumes := range []int{10, 1000, 10000} {
		crowd := newCrowd(b, volumes)
		k := crowd.leader()
		m := &mover{cluster: k, rests: map[block.VolumeID]*rest{}}
		draining := newCrowd(b, 0)
		draining.state = crowd.state
		draining.must(state.DrainDisk{Disk: crowd.disks[0].ID})
		d := draining.leader()
		held := []HeldReplica{}
		for n := range volumes {
			for i := range 3 {
				if (n+i)%crowdNodes == 0 {
					held = append(held, HeldReplica{Replica: crowd.replica(n, i), Volume: block.VolumeID{ID: crowdID('v', n)}})
				}
			}
		}
		k.options.Replicas = cleanReplicas{held: held}
		memory := newAgentMemory()
		for _, turn := range []struct {
			name string
			do   func()
		}{
			{"move", func() { m.look(ctx) }},
			{"purge", func() { k.purgeExpired(ctx, time.Now()) }},
			{"grow", func() { k.finishGrowth(ctx, 0) }},
			{"fence", func() { k.fenceBorrowers(ctx) }},
			{"sweep", func() { k.sweepMeans(ctx, time.Now()) }},
			{"drain-plan", func() { d.planMoves(d.State(), d.candidates(d.State())) }},
			{"candidates", func() { k.candidates(k.State()) }},
			{"agent", func() {
				FindAgentWork(k.State(), block.NodeID{ID: crowdID('n', 0)}, []DiskReport{crowd.disks[0], crowd.disks[6]}, held, nil)
			}},
			{"strays", func() { k.strays(memory) }},
			{"scrub", func() { k.ScrubDetached(time.Hour, false, func(block.VolumeID) bool { return false }) }},
		} {
			b.Run(fmt.Sprintf("%s/volumes=%d", turn.name, volumes), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					turn.do()
				}
			})
		}
	}
}
