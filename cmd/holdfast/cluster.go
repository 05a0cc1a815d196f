package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// clusterView is the JSON of cluster status.
type clusterView struct {
	ID            string `json:"id"`
	Incarnation   uint64 `json:"incarnation"`
	Leader        string `json:"leader"`
	Term          uint64 `json:"term"`
	AppliedIndex  uint64 `json:"appliedIndex"`
	AnsweredBy    string `json:"answeredBy"`
	Nodes         int    `json:"nodes"`
	NodesAlive    int    `json:"nodesAlive"`
	Disks         int    `json:"disks"`
	DisksFailed   int    `json:"disksFailed"`
	CapacityBytes int64  `json:"capacityBytes"`
	FreeBytes     int64  `json:"freeBytes"`
	Volumes       int    `json:"volumes"`
}

func (a *app) clusterCommand() *cobra.Command {
	return group("cluster", "Look at the cluster and its settings", a.clusterStatusCommand(), a.clusterSettingsCommand())
}

func (a *app) clusterStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the cluster at a glance",
		Long: `Show how many nodes and disks work, what space there is, and who leads. Without a
leader nothing can be changed; volumes that are attached go on.`,
		Example: `  holdfast cluster status
  holdfast cluster status -o json | jq -e '.nodesAlive == .nodes and .disksFailed == 0'`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				view, err := s.clusterStatus(ctx)
				if err != nil {
					return err
				}
				return a.print(view, view)
			})
		},
	}
}

func (s *session) clusterStatus(ctx context.Context) (clusterView, error) {
	info, err := s.cluster.GetCluster(ctx, &holdfastv1.GetClusterRequest{})
	if err != nil {
		return clusterView{}, err
	}
	nodes, err := s.nodes(ctx)
	if err != nil {
		return clusterView{}, err
	}
	disks, err := s.cluster.ListDisks(ctx, &holdfastv1.ListDisksRequest{})
	if err != nil {
		return clusterView{}, err
	}
	view := clusterView{
		ID: info.GetId(), Incarnation: info.GetIncarnation(), Term: info.GetRaftTerm(), AppliedIndex: info.GetRaftAppliedIndex(),
		Leader: nodes.name(info.GetLeaderNodeId()), AnsweredBy: nodes.name(info.GetAnsweringNodeId()),
		Nodes: len(nodes), Disks: len(disks.GetDisks()), Volumes: int(info.GetVolumeCount()),
	}
	for _, node := range nodes {
		if node.GetAlive() {
			view.NodesAlive++
		}
	}
	for _, disk := range disks.GetDisks() {
		view.CapacityBytes += disk.GetCapacityBytes()
		view.FreeBytes += disk.GetFreeBytes()
		if disk.GetFailure() != "" {
			view.DisksFailed++
		}
	}
	return view, nil
}

func (v clusterView) text(wide bool) string {
	leader := v.Leader
	if leader == "" {
		leader = "none: nothing can be changed until a majority of the voters is up"
	}
	lines := details{
		{"Cluster", v.ID},
		{"Leader", leader},
		{"Nodes", fmt.Sprintf("%d of %d alive", v.NodesAlive, v.Nodes)},
		{"Disks", fmt.Sprintf("%d, %d failed", v.Disks, v.DisksFailed)},
		{"Capacity", formatSize(v.FreeBytes) + " free of " + formatSize(v.CapacityBytes)},
		{"Volumes", strconv.Itoa(v.Volumes)},
	}
	if wide {
		lines = append(lines,
			[2]string{"Incarnation", strconv.FormatUint(v.Incarnation, 10)},
			[2]string{"Term", strconv.FormatUint(v.Term, 10)},
			[2]string{"Applied", strconv.FormatUint(v.AppliedIndex, 10)},
			[2]string{"Answered by", v.AnsweredBy})
	}
	return lines.text(wide)
}
