package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"
)

// nodeView is the JSON of a node.
type nodeView struct {
	ID             string   `json:"id"`
	Name           string   `json:"name"`
	Alive          bool     `json:"alive"`
	Leader         bool     `json:"leader"`
	Voter          bool     `json:"voter"`
	ControlAddress string   `json:"controlAddress"`
	DataAddress    string   `json:"dataAddress"`
	RaftAddress    string   `json:"raftAddress"`
	Tags           []string `json:"tags"`
}

func (a *app) nodeCommand() *cobra.Command {
	return group("node", "Look at the nodes", &cobra.Command{
		Use:   "list",
		Short: "List the nodes",
		Long: `List the nodes. STATE is alive while a node's heartbeats reach the leader. RAFT is
its part in the cluster's decisions: voters have to agree, and a majority of them
has to be up for anything to be changed; I/O goes on without.`,
		Example: `  holdfast node list -o wide
  holdfast node list -o json | jq '.[] | select(.alive | not) | .name'`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				nodes, err := s.nodes(ctx)
				if err != nil {
					return err
				}
				views := make([]nodeView, 0, len(nodes))
				for _, n := range nodes {
					views = append(views, nodeView{
						ID: n.GetId(), Name: n.GetName(), Alive: n.GetAlive(), Leader: n.GetLeader(), Voter: n.GetVoter(),
						ControlAddress: n.GetControlAddress(), DataAddress: n.GetDataAddress(), RaftAddress: n.GetRaftAddress(),
						Tags: list(n.GetTags()),
					})
				}
				return a.print(views, nodeTable(views))
			})
		},
	})
}

func nodeTable(views []nodeView) table {
	t := table{
		columns: []column{
			{title: "NAME"}, {title: "STATE"}, {title: "RAFT"}, {title: "ADDRESS"}, {title: "TAGS"},
			{title: "ID", wide: true}, {title: "DATA", wide: true}, {title: "RAFT-ADDRESS", wide: true},
		},
		empty: "The cluster has no nodes.",
	}
	for _, v := range views {
		state, raft := "down", "observer"
		if v.Alive {
			state = "alive"
		}
		switch {
		case v.Leader:
			raft = "leader"
		case v.Voter:
			raft = "voter"
		}
		t.rows = append(t.rows, []string{
			v.Name, state, raft, v.ControlAddress, strings.Join(v.Tags, ","), v.ID, v.DataAddress, v.RaftAddress,
		})
	}
	return t
}

// list is s, but [] and not null in JSON.
func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}
