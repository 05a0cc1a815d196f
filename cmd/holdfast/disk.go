package main

import (
	"context"
	"fmt"
	"path/filepath"
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
	Class            string   `json:"class"`
	Tags             []string `json:"tags"`
	CapacityBytes    int64    `json:"capacityBytes"`
	FreeBytes        int64    `json:"freeBytes"`
	ProvisionedBytes int64    `json:"provisionedBytes"`
	Replicas         int32    `json:"replicas"`
	Failure          string   `json:"failure"`
}

func (a *app) diskCommand() *cobra.Command {
	return group("disk", "Look at the disks, add some", a.diskAddCommand(), a.diskListCommand())
}

func (a *app) diskAddCommand() *cobra.Command {
	var node string
	request := &holdfastv1.AddDiskRequest{}
	cmd := &cobra.Command{
		Use:   "add PATH",
		Short: "Give a directory to the cluster",
		Long: `Give a directory to the cluster, as a disk of the node whose daemon answers or
of --node. The directory should be the root of a file system of its own (XFS):
what else lies on it competes for space and bandwidth. Its content is not
touched; a directory that holds something foreign is refused.

PATH is absolute, on that node. A directory that is a disk of this cluster already
is taken back with everything on it.`,
		Example: `  holdfast disk add /mnt/nvme0 --class nvme --tag fast
  holdfast disk add /mnt/ssd1 --node n2`,
		Args: args("PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := args[0]
			if !filepath.IsAbs(path) {
				return usageError{fmt.Errorf("PATH %q must be absolute: it is a directory of the node, which may not be this machine", path)}
			}
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				nodes, err := s.nodes(ctx)
				if err != nil {
					return err
				}
				request.Path = path
				if node != "" {
					n, err := nodes.find(node)
					if err != nil {
						return err
					}
					request.NodeId = n.GetId()
				}
				disk, err := s.cluster.AddDisk(ctx, request)
				if err != nil {
					return err
				}
				view := newDiskView(disk, nodes)
				return a.print(view, sentence("Disk "+view.ID+" of node "+view.Node+" added: "+view.Path+"."))
			})
		},
	}
	cmd.Flags().StringVar(&node, "node", "", "name of the node (default: the one that answers)")
	cmd.Flags().StringVar(&request.Class, "class", "", "nvme, ssd or hdd (default: none)")
	cmd.Flags().StringSliceVar(&request.Tags, "tag", nil, "tag that volumes may ask for; repeat for more")
	return cmd
}

func (a *app) diskListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the disks",
		Long: `List the disks of all nodes. PROVISIONED is what the replicas on a disk may grow
to; it may exceed CAPACITY, and FREE is what is left now. STATE says why a disk
does not work, in the words of its node.`,
		Example: `  holdfast disk list -o wide
  holdfast disk list -o json | jq '.[] | select(.failure != "") | .path'`,
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
				return a.print(views, diskTable(views))
			})
		},
	}
}

func newDiskView(d *holdfastv1.Disk, nodes nodes) diskView {
	return diskView{
		ID: d.GetId(), Node: nodes.name(d.GetNodeId()), NodeID: d.GetNodeId(), Path: d.GetPath(), Class: d.GetClass(),
		Tags: list(d.GetTags()), CapacityBytes: d.GetCapacityBytes(), FreeBytes: d.GetFreeBytes(),
		ProvisionedBytes: d.GetProvisionedBytes(), Replicas: d.GetReplicaCount(), Failure: d.GetFailure(),
	}
}

func diskTable(views []diskView) table {
	t := table{
		columns: []column{
			{title: "NODE"}, {title: "PATH"}, {title: "CLASS"}, {title: "CAPACITY"}, {title: "FREE"}, {title: "PROVISIONED"},
			{title: "REPLICAS"}, {title: "STATE"}, {title: "TAGS"}, {title: "ID", wide: true},
		},
		empty: "The cluster has no disks. Add one: holdfast disk add PATH",
	}
	for _, v := range views {
		state := "works"
		if v.Failure != "" {
			state = "failed: " + v.Failure
		}
		t.rows = append(t.rows, []string{
			v.Node, v.Path, v.Class, formatSize(v.CapacityBytes), formatSize(v.FreeBytes), formatSize(v.ProvisionedBytes),
			strconv.Itoa(int(v.Replicas)), state, strings.Join(v.Tags, ","), v.ID,
		})
	}
	return t
}
