package cluster

import (
	"errors"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
)

func placeID(kind, n byte) block.ID { return block.ID{kind, 15: n} }

// onNode is a disk with 32 GiB, of which one is reserved.
func onNode(node, disk byte, change func(*candidate)) candidate {
	c := candidate{
		disk: state.Disk{ID: block.DiskID{ID: placeID('d', disk)}, Node: block.NodeID{ID: placeID('n', node)}, Class: "ssd", Tags: []string{"fast"}},
		node: state.Node{ID: block.NodeID{ID: placeID('n', node)}, Name: "node", Tags: []string{"rack-1"}}, alive: true, capacity: 32 << 30, free: 32 << 30, factor: 1,
	}
	if change != nil {
		change(&c)
	}
	return c
}

func used(gib int64) func(*candidate) {
	return func(c *candidate) { c.provisioned, c.replicas = gib<<30, int(gib) }
}

func TestPlace(t *testing.T) {
	three := []candidate{onNode(1, 1, nil), onNode(2, 2, used(4)), onNode(3, 3, used(2))}
	for name, c := range map[string]struct {
		candidates []candidate
		size       int64
		p          state.Parameters
		want       []byte // disks, in order
		says       string
	}{
		"most free first":     {candidates: three, size: 1 << 30, p: state.Parameters{Replicas: 2}, want: []byte{1, 3}},
		"promised twice":      {candidates: []candidate{onNode(1, 1, func(c *candidate) { used(50)(c); c.factor = 2 })}, size: 12 << 30, p: state.Parameters{Replicas: 1}, want: []byte{1}},
		"promised too often":  {candidates: []candidate{onNode(1, 1, func(c *candidate) { used(50)(c); c.factor = 2 })}, size: 12<<30 + 1, p: state.Parameters{Replicas: 1}, says: "offers 12.0 GiB, because 50.0 GiB of 62.0 GiB are promised"},
		"really full":         {candidates: []candidate{onNode(1, 1, func(c *candidate) { c.free, c.factor = 3<<30, 2 })}, size: 4<<30 + 1, p: state.Parameters{Replicas: 1}, says: "offers 4.0 GiB, because only 3.0 GiB of it are free"},
		"less than nothing":   {candidates: []candidate{onNode(1, 1, func(c *candidate) { c.free, c.factor = 0, 2 })}, size: 1, p: state.Parameters{Replicas: 1}, says: "offers 0 MiB, because only 0 MiB"},
		"all":                 {candidates: three, size: 27 << 30, p: state.Parameters{Replicas: 3}, want: []byte{1, 3, 2}},
		"one too full":        {candidates: three, size: 27<<30 + 1, p: state.Parameters{Replicas: 3}, says: "offers 27.0 GiB"},
		"reserve":             {candidates: three[:1], size: 31<<30 + 1, p: state.Parameters{Replicas: 1}, says: "1 disks with 31.0 GiB free"},
		"one node, two disks": {candidates: []candidate{onNode(1, 1, nil), onNode(1, 2, nil)}, size: 1, p: state.Parameters{Replicas: 2}, says: "different nodes"},
		"best disk of a node": {candidates: []candidate{onNode(1, 1, used(9)), onNode(1, 2, nil), onNode(2, 3, used(20))}, size: 1, p: state.Parameters{Replicas: 2}, want: []byte{2, 3}},
		"fewer replicas":      {candidates: []candidate{onNode(1, 1, func(c *candidate) { c.replicas = 2 }), onNode(2, 2, nil)}, size: 1, p: state.Parameters{Replicas: 1}, want: []byte{2}},
		"by ID":               {candidates: []candidate{onNode(2, 2, nil), onNode(1, 1, nil)}, size: 1, p: state.Parameters{Replicas: 1}, want: []byte{1}},
		"dead":                {candidates: []candidate{onNode(1, 1, func(c *candidate) { c.alive = false })}, size: 1, p: state.Parameters{Replicas: 1}, says: "not reachable"},
		"failed":              {candidates: []candidate{onNode(1, 1, func(c *candidate) { c.failure = "smoke" })}, size: 1, p: state.Parameters{Replicas: 1}, says: "smoke"},
		"class":               {candidates: three, size: 1, p: state.Parameters{Replicas: 1, DiskClass: "nvme"}, says: `class is "ssd"`},
		"right class":         {candidates: three, size: 1, p: state.Parameters{Replicas: 1, DiskClass: "ssd", DiskTags: []string{"fast"}, NodeTags: []string{"rack-1"}}, want: []byte{1}},
		"disk tag":            {candidates: three, size: 1, p: state.Parameters{Replicas: 1, DiskTags: []string{"red"}}, says: `lacks tag "red"`},
		"node tag":            {candidates: three, size: 1, p: state.Parameters{Replicas: 1, NodeTags: []string{"rack-2"}}, says: `its node lacks tag "rack-2"`},
		"no disks":            {size: 1, p: state.Parameters{Replicas: 1}, says: "no disks"},
	} {
		t.Run(name, func(t *testing.T) {
			chosen, err := place(c.candidates, c.size, c.p)
			if c.says != "" {
				if !errors.Is(err, block.ErrNoCapacity) || !strings.Contains(err.Error(), c.says) {
					t.Fatalf("%v, want words %q", err, c.says)
				}
				return
			}
			var got []byte
			for _, k := range chosen {
				got = append(got, k.disk.ID.ID[15])
			}
			if err != nil || string(got) != string(c.want) {
				t.Fatalf("disks %v, %v, want %v", got, err, c.want)
			}
		})
	}
}

func TestRoom(t *testing.T) {
	disks := []candidate{onNode(1, 1, nil), onNode(1, 2, used(11)), onNode(2, 3, used(1)), onNode(3, 4, used(21))} // 31+20, 30, 10
	first, third := block.NodeID{ID: placeID('n', 1)}, block.NodeID{ID: placeID('n', 3)}
	for name, c := range map[string]struct {
		replicas       int
		node           block.NodeID
		total, largest int64
	}{
		"one replica":             {1, block.NodeID{}, 91, 31},
		"two replicas":            {2, block.NodeID{}, 40, 30},
		"three replicas":          {3, block.NodeID{}, 10, 10},
		"more replicas":           {4, block.NodeID{}, 0, 0},
		"on a node":               {1, first, 51, 31},
		"on a node and another":   {2, first, 40, 30},
		"on the fullest":          {2, third, 10, 10},
		"on a node that has none": {1, block.NodeID{ID: placeID('n', 9)}, 0, 0},
	} {
		total, largest := room(disks, state.Parameters{Replicas: c.replicas}, c.node)
		if total != c.total<<30 || largest != c.largest<<30 {
			t.Errorf("%s: %.2f and %.2f GiB, want %d and %d", name, float64(total)/(1<<30), float64(largest)/(1<<30), c.total, c.largest)
		}
	}
}

func TestChoosePromotions(t *testing.T) {
	server := func(n byte, suffrage raft.ServerSuffrage) raft.Server {
		id := block.NodeID{ID: placeID('n', n)}
		return raft.Server{ID: serverID(id), Address: raftAddress(id, "host:1"), Suffrage: suffrage}
	}
	for name, c := range map[string]struct {
		voters, others int
		follow         bool
		want           int
	}{
		"one of two":        {1, 1, true, 0},
		"two of three":      {1, 2, true, 2},
		"an even number":    {2, 1, true, 1},
		"four nodes":        {3, 1, true, 0},
		"five nodes":        {3, 2, true, 2},
		"seven nodes":       {5, 2, true, 0},
		"seven at once":     {1, 6, true, 4},
		"nobody follows":    {1, 4, false, 0},
		"two voters, three": {2, 3, true, 3},
	} {
		var servers []raft.Server
		for i := range c.voters + c.others {
			suffrage := raft.Voter
			if i >= c.voters {
				suffrage = raft.Nonvoter
			}
			servers = append(servers, server(byte(i), suffrage))
		}
		if got := choosePromotions(servers, func(block.NodeID) bool { return c.follow }); len(got) != c.want {
			t.Errorf("%s: %d promotions, want %d", name, len(got), c.want)
		}
	}
}
