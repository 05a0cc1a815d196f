package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/control"
	"github.com/holdfast-io/holdfast/internal/mtls"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// session is a connection to one daemon.
type session struct {
	conn      *grpc.ClientConn
	volumes   holdfastv1.VolumesClient
	snapshots holdfastv1.SnapshotsClient
	cluster   holdfastv1.ClusterClient
	agent     holdfastv1.NodeAgentClient
	// named is that of the app.
	named map[string]string
	// identity is proved to daemons over TCP; nil for plain connections.
	identity *mtls.Identity
}

func dial(identity *mtls.Identity, address string) (*session, error) {
	conn, err := control.DialAs(identity, address)
	if err != nil {
		return nil, usageError{err}
	}
	return &session{
		conn:      conn,
		volumes:   holdfastv1.NewVolumesClient(conn),
		snapshots: holdfastv1.NewSnapshotsClient(conn),
		cluster:   holdfastv1.NewClusterClient(conn),
		agent:     holdfastv1.NewNodeAgentClient(conn),
		named:     map[string]string{},
		identity:  identity,
	}, nil
}

// close closes the connection, which has nothing left to tell.
func (s *session) close() { io.Closer(s.conn).Close() }

// with runs do with a connection to --server, for at most --timeout.
func (a *app) with(ctx context.Context, do func(ctx context.Context, s *session) error) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	return a.connected(ctx, do)
}

// patiently is with for what takes as long as it takes, unless --timeout was given.
func (a *app) patiently(cmd *cobra.Command, do func(ctx context.Context, s *session) error) error {
	if cmd.Flags().Changed("timeout") {
		return a.with(cmd.Context(), do)
	}
	return a.connected(cmd.Context(), do)
}

// connected runs do with a connection to --server.
func (a *app) connected(ctx context.Context, do func(ctx context.Context, s *session) error) error {
	identity, err := a.identity()
	if err != nil {
		return err
	}
	s, err := dial(identity, a.server)
	if err != nil {
		return err
	}
	defer s.close()
	s.named = a.named
	return do(ctx, s)
}

// identity is what the flags for TLS say, nil without them.
func (a *app) identity() (*mtls.Identity, error) {
	if !a.tls.Given() {
		return nil, nil
	}
	return mtls.Open(a.tls, slog.New(slog.DiscardHandler), mtls.Client, mtls.Node)
}

// findVolume finds a volume by name or, if it is no name, by ID.
func (s *session) findVolume(ctx context.Context, name string) (*holdfastv1.Volume, error) {
	volume, err := s.volumes.GetVolume(ctx, &holdfastv1.GetVolumeRequest{Name: name})
	if _, badID := block.ParseID(name); status.Code(err) == codes.NotFound && badID == nil {
		volume, err = s.volumes.GetVolume(ctx, &holdfastv1.GetVolumeRequest{Id: name})
	}
	if err == nil {
		s.named[volume.GetId()] = volume.GetName()
	}
	if status.Code(err) != codes.NotFound {
		return volume, err
	}
	return nil, failure{code: codes.NotFound, message: fmt.Sprintf("volume %q does not exist", name), hint: "holdfast volume list shows the volumes"}
}

// findSnapshot finds a snapshot by name or, if it is no name, by ID.
func (s *session) findSnapshot(ctx context.Context, name string, withUsage bool) (*holdfastv1.Snapshot, error) {
	snapshot, err := s.snapshots.GetSnapshot(ctx, &holdfastv1.GetSnapshotRequest{Name: name, WithUsage: withUsage})
	if _, badID := block.ParseID(name); status.Code(err) == codes.NotFound && badID == nil {
		snapshot, err = s.snapshots.GetSnapshot(ctx, &holdfastv1.GetSnapshotRequest{Id: name, WithUsage: withUsage})
	}
	if err == nil {
		s.named[snapshot.GetId()] = snapshot.GetName()
	}
	if status.Code(err) != codes.NotFound {
		return snapshot, err
	}
	return nil, failure{code: codes.NotFound, message: fmt.Sprintf("snapshot %q does not exist", name), hint: "holdfast snapshot list shows the snapshots"}
}

// nodes are the nodes of the cluster.
type nodes []*holdfastv1.Node

func (s *session) nodes(ctx context.Context) (nodes, error) {
	response, err := s.cluster.ListNodes(ctx, &holdfastv1.ListNodesRequest{})
	return response.GetNodes(), err
}

// find finds a node by name or ID.
func (n nodes) find(name string) (*holdfastv1.Node, error) {
	for _, node := range n {
		if node.GetName() == name || node.GetId() == name {
			return node, nil
		}
	}
	return nil, failure{code: codes.NotFound, message: fmt.Sprintf("node %q does not exist", name), hint: "holdfast node list shows the nodes"}
}

// name is the name of the node with that ID, or the ID if it is not known.
func (n nodes) name(id string) string {
	for _, node := range n {
		if node.GetId() == id {
			return node.GetName()
		}
	}
	return id
}

// onNode runs do with a connection to the daemon of a node: the session's own, if
// that is its node.
func (s *session) onNode(ctx context.Context, node *holdfastv1.Node, do func(on *session) error) error {
	self, err := s.agent.GetNode(ctx, &holdfastv1.GetNodeRequest{})
	if err == nil && self.GetId() == node.GetId() {
		return do(s)
	}
	if err != nil {
		return err
	}
	remote, err := dial(s.identity, node.GetControlAddress())
	if err != nil {
		return err
	}
	defer remote.close()
	switch err := do(remote); {
	case status.Code(err) == codes.Unavailable:
		return failure{
			code:    codes.Unavailable,
			message: fmt.Sprintf("node %s does not answer at %s", node.GetName(), node.GetControlAddress()),
			hint:    "holdfast node list shows which nodes are up",
		}
	case err != nil:
		return fmt.Errorf("on node %s: %w", node.GetName(), err)
	}
	return nil
}
