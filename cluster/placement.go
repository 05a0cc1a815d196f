package cluster

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
)

// candidate is a disk as placement sees it.
type candidate struct {
	disk state.Disk
	node state.Node
	// alive: the node is within its lease.
	alive   bool
	failure string
	// capacity is that of the disk, free what is left of it, provisioned the sum of
	// the sizes of the volumes that have a replica on it, or are to have, in bytes.
	capacity    int64
	free        int64
	provisioned int64
	// trashed is the part of provisioned that belongs to volumes in the trash.
	trashed  int64
	replicas int
	// factor is how often a byte may be promised.
	factor float64
}

// reserveShare is the part of a disk that is never promised to volumes: 1/32. The
// metadata of what is promised has to fit as well.
const reserveShare = 32

// offer is what the disk can still take: what may be promised and is not yet, and no
// more than may be promised of what is really free. Volumes are thin, so that the same
// byte may be promised more than once; the second bound keeps a disk that filled up
// faster than its volumes were made from getting more of them.
func (c *candidate) offer() int64 {
	return max(min(c.promises()-c.provisioned, c.multiple(c.free)), 0) / sizeUnit * sizeUnit
}

// promises is what may be promised in all.
func (c *candidate) promises() int64 { return c.multiple(c.capacity) }

// multiple is what may be promised on the strength of so many bytes, the reserve apart.
func (c *candidate) multiple(bytes int64) int64 {
	return int64(float64(bytes-c.capacity/reserveShare) * c.factor)
}

// describe says what the disk offers, and what is short.
func (c *candidate) describe() string {
	if c.multiple(c.free) < c.promises()-c.provisioned {
		return fmt.Sprintf("offers %s, because only %s of it are free", showBytes(c.offer()), showBytes(c.free))
	}
	trashed := ""
	if c.trashed > 0 {
		trashed = fmt.Sprintf(", %s to some in the trash", showBytes(c.trashed))
	}
	return fmt.Sprintf("offers %s, because %s of %s are promised to volumes%s", showBytes(c.offer()), showBytes(c.provisioned), showBytes(c.promises()), trashed)
}

// unfit says why a disk is out of the question for a volume, empty if it is not.
func (c *candidate) unfit(p state.Parameters) string {
	switch {
	case !c.alive:
		return "its node is not reachable"
	case c.failure != "":
		return "it has failed: " + c.failure
	case c.disk.Cordoned:
		return "it is cordoned"
	case p.DiskClass != "" && c.disk.Class == "":
		return "it has no class"
	case p.DiskClass != "" && c.disk.Class != p.DiskClass:
		return fmt.Sprintf("its class is %q", c.disk.Class)
	}
	if tag := lacks(c.disk.Tags, p.DiskTags); tag != "" {
		return fmt.Sprintf("it lacks tag %q", tag)
	}
	if tag := lacks(c.node.Tags, p.NodeTags); tag != "" {
		return fmt.Sprintf("its node lacks tag %q", tag)
	}
	return ""
}

func lacks(has, wants []string) string {
	for _, tag := range wants {
		if !slices.Contains(has, tag) {
			return tag
		}
	}
	return ""
}

// place chooses a disk for each replica: on different nodes, those that offer
// most first, then those with fewer replicas. It is decided by its arguments
// alone.
func place(candidates []candidate, size int64, p state.Parameters) ([]candidate, error) {
	best := bestByNode(candidates, p)
	if len(best) >= p.Replicas && best[p.Replicas-1].offer() >= size {
		return best[:p.Replicas], nil
	}
	return nil, fmt.Errorf("%d disks with %s free on different nodes are needed; %s: %w",
		p.Replicas, showBytes(size), describe(candidates, p), block.ErrNoCapacity)
}

// bestByNode is the best fitting disk of each node, best first.
func bestByNode(candidates []candidate, p state.Parameters) []candidate {
	fit := slices.DeleteFunc(slices.Clone(candidates), func(c candidate) bool { return c.unfit(p) != "" })
	slices.SortFunc(fit, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(b.offer(), a.offer()), cmp.Compare(a.replicas, b.replicas), bytes.Compare(a.disk.ID.ID[:], b.disk.ID.ID[:]))
	})
	seen := map[block.NodeID]bool{}
	return slices.DeleteFunc(fit, func(c candidate) bool {
		again := seen[c.node.ID]
		seen[c.node.ID] = true
		return again
	})
}

// describe lists what each disk offers.
func describe(candidates []candidate, p state.Parameters) string {
	if len(candidates) == 0 {
		return "the cluster has no disks"
	}
	const shown = 12
	var parts []string
	for i := range candidates {
		c := &candidates[i]
		if i == shown {
			parts = append(parts, fmt.Sprintf("and %d more", len(candidates)-shown))
			break
		}
		what := c.describe()
		if why := c.unfit(p); why != "" {
			what = "is out: " + why
		}
		parts = append(parts, fmt.Sprintf("disk %s of node %s %s", c.disk.ID.Short(), c.node.Name, what))
	}
	return strings.Join(parts, ", ")
}

func showBytes(n int64) string {
	switch {
	case n >= 1<<40:
		return fmt.Sprintf("%.1f TiB", float64(n)/(1<<40))
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n > 0 && n < 1<<20:
		return fmt.Sprintf("%d KiB", n>>10)
	default:
		return fmt.Sprintf("%d MiB", n>>20)
	}
}

// room tells how much volumes of these parameters could take in all, and the
// largest single one. If node is set, one replica of each is on that node.
func room(candidates []candidate, p state.Parameters, node block.NodeID) (total, largest int64) {
	best := bestByNode(candidates, p)
	sums := map[block.NodeID]int64{}
	for i := range candidates {
		if candidates[i].unfit(p) == "" {
			sums[candidates[i].node.ID] += candidates[i].offer()
		}
	}
	needed := p.Replicas
	ceiling := int64(-1)
	if !node.IsZero() {
		i := slices.IndexFunc(best, func(c candidate) bool { return c.node.ID == node })
		if i < 0 {
			return 0, 0
		}
		ceiling, largest = sums[node], best[i].offer()
		best = slices.Delete(best, i, i+1)
		delete(sums, node)
		needed--
	}
	if needed > len(best) {
		return 0, 0
	}
	if needed == 0 {
		return ceiling, largest
	}
	if o := best[needed-1].offer(); ceiling < 0 || o < largest {
		largest = o
	}
	total = spread(sums, needed)
	if ceiling >= 0 {
		total = min(total, ceiling)
	}
	return total, largest
}

// spread is the largest t such that n copies of t bytes fit into the rooms, no
// room taking more than one copy of any byte: the sum of min(room, t) is at least
// n times t.
func spread(rooms map[block.NodeID]int64, n int) int64 {
	var low, high int64
	for _, r := range rooms {
		high += r / int64(n)
	}
	for low < high {
		t := low + (high-low+1)/2
		var sum int64
		for _, r := range rooms {
			sum += min(r, t)
		}
		if sum/int64(n) >= t {
			low = t
		} else {
			high = t - 1
		}
	}
	return low / sizeUnit * sizeUnit
}

// candidates are the disks of the cluster as this leader knows them.
func (c *Cluster) candidates(s *state.State) []candidate {
	used := map[block.DiskID]*candidate{}
	for d := range s.Disks() {
		used[d.ID] = &candidate{disk: d}
	}
	for v := range s.Volumes() {
		add := func(disk block.DiskID) {
			u, known := used[disk]
			if !known {
				return
			}
			u.provisioned += max(v.View.Size, v.GrowTo)
			u.replicas++
			if v.InTrash() {
				u.trashed += max(v.View.Size, v.GrowTo)
			}
		}
		for _, m := range v.View.Replicas {
			add(m.Disk)
		}
		for _, p := range v.Elsewhere() {
			add(p.Disk)
		}
	}
	var list []candidate
	for d := range s.Disks() {
		k := used[d.ID]
		k.capacity, k.free, k.factor = d.Capacity, d.Capacity, c.options.OverProvisioning
		k.node, _ = s.Node(d.Node)
		k.alive = c.leases.alive(d.Node)
		if r, ok := c.leases.disk(d.ID); ok {
			k.capacity, k.free, k.failure = r.Capacity, r.Free, r.Failure
		}
		list = append(list, *k)
	}
	return list
}
