package main

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// diskView is the JSON of a disk.
type diskView struct {
	ID               string   `json:"id"`
	Node             string   `json:"node"`
	NodeID           string   `json:"nodeId"`
	Path             string   `json:"path"`
	Device           string   `json:"device"`
	Class            string   `json:"class"`
	Tags             []string `json:"tags"`
	CapacityBytes    int64    `json:"capacityBytes"`
	FreeBytes        int64    `json:"freeBytes"`
	ProvisionedBytes int64    `json:"provisionedBytes"`
	Replicas         int32    `json:"replicas"`
	Cordoned         bool     `json:"cordoned"`
	Failure          string   `json:"failure"`
	Warning          string   `json:"warning"`
	// Draining: everything is to leave it, for Successor if that is set; Moves are what
	// is still to.
	Draining  bool       `json:"draining"`
	Successor string     `json:"successor"`
	Moves     []moveView `json:"moves"`
}

func newDiskView(d *holdfastv1.Disk, nodes nodes) diskView {
	return diskView{
		ID: d.GetId(), Node: nodes.name(d.GetNodeId()), NodeID: d.GetNodeId(), Path: d.GetPath(), Device: d.GetDevice(), Class: d.GetClass(),
		Tags: list(d.GetTags()), CapacityBytes: d.GetCapacityBytes(), FreeBytes: d.GetFreeBytes(), ProvisionedBytes: d.GetProvisionedBytes(),
		Replicas: d.GetReplicaCount(), Cordoned: d.GetCordoned(), Failure: d.GetFailure(), Warning: d.GetWarning(),
		Draining: d.GetDraining(), Successor: d.GetSuccessorId(), Moves: newMoveViews(d.GetMoves()),
	}
}

// state is how a disk is, in words.
func (v *diskView) state() string {
	words := []string{"works"}
	if v.Failure != "" {
		words = []string{"failed: " + v.Failure}
	}
	if v.Warning != "" {
		words = append(words, v.Warning)
	}
	switch {
	case v.Draining:
		words = append(words, v.drained())
	case v.Cordoned:
		words = append(words, "cordoned")
	}
	return strings.Join(words, "; ")
}

func (a *app) diskListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the disks",
		Long: `List the disks of all nodes, and what they have in all, by class and by tag.
PROVISIONED is what the replicas on a disk may grow to; FREE is what is left now.
STATE says why a disk does not work, in the words of its node, and what is going to
be a problem: a disk that is nearly full, or slow to answer. Of a disk that is drained it
tells how many replicas are left; disk show has them all. A device is shown by
its present name; -o wide also shows where it is mounted.`,
		Example: `  holdfast disk list -o wide
  holdfast disk list -o json | jq '.[] | select(.failure != "" or .warning != "") | .path'`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				nodes, err := s.nodes(ctx)
				if err != nil {
					return err
				}
				response, err := s.cluster.ListDisks(ctx, &holdfastv1.ListDisksRequest{})
				if err != nil {
					return err
				}
				views := make([]diskView, 0, len(response.GetDisks()))
				for _, d := range response.GetDisks() {
					views = append(views, newDiskView(d, nodes))
				}
				people := sections{diskTable(views)}
				if len(views) > 0 {
					people = append(people, totalsTable(views))
				}
				return a.print(views, people)
			})
		},
	}
}

func diskTable(views []diskView) table {
	t := table{
		columns: []column{
			{title: "NODE"}, {title: "PATH"}, {title: "CLASS"}, {title: "CAPACITY"}, {title: "FREE"}, {title: "PROVISIONED"},
			{title: "REPLICAS"}, {title: "STATE"}, {title: "TAGS"}, {title: "ID", wide: true}, {title: "DIRECTORY", wide: true},
		},
		empty: "The cluster has no disks. Add one: holdfast disk add PATH",
	}
	for _, v := range views {
		t.rows = append(t.rows, []string{
			v.Node, cmp.Or(v.Device, v.Path), v.Class, formatSize(v.CapacityBytes), formatSize(v.FreeBytes), formatSize(v.ProvisionedBytes),
			strconv.Itoa(int(v.Replicas)), v.state(), strings.Join(v.Tags, ","), v.ID, v.Path,
		})
	}
	return t
}

// totals are sums over disks.
type totals struct {
	disks, failed               int
	capacity, free, provisioned int64
}

func (t *totals) add(v *diskView) {
	t.disks++
	t.provisioned += v.ProvisionedBytes
	if v.Failure != "" {
		t.failed++
		return
	}
	t.capacity += v.CapacityBytes
	t.free += v.FreeBytes
}

// totalsTable sums up all disks, those of each class and those of each tag. A disk that
// has failed offers no capacity.
func totalsTable(views []diskView) table {
	var all totals
	classes, tags := map[string]*totals{}, map[string]*totals{}
	count := func(of map[string]*totals, key string, v *diskView) {
		if of[key] == nil {
			of[key] = &totals{}
		}
		of[key].add(v)
	}
	for i := range views {
		v := &views[i]
		all.add(v)
		if v.Class != "" {
			count(classes, v.Class, v)
		}
		for _, tag := range v.Tags {
			count(tags, tag, v)
		}
	}
	t := table{columns: []column{{title: "TOTAL"}, {title: "DISKS"}, {title: "FAILED"}, {title: "CAPACITY"}, {title: "FREE"}, {title: "PROVISIONED"}}}
	row := func(what string, s *totals) {
		t.rows = append(t.rows, []string{what, strconv.Itoa(s.disks), strconv.Itoa(s.failed), formatSize(s.capacity), formatSize(s.free), formatSize(s.provisioned)})
	}
	row("all", &all)
	for _, class := range slices.Sorted(maps.Keys(classes)) {
		row("class "+class, classes[class])
	}
	for _, tag := range slices.Sorted(maps.Keys(tags)) {
		row("tag "+tag, tags[tag])
	}
	return t
}
