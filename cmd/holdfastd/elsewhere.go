package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/holdfast-io/holdfast/cluster"
	"github.com/holdfast-io/holdfast/engine"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
	"github.com/holdfast-io/holdfast/replica/server"
)

// elsewhereTimeout bounds the attempt to read from one other node.
const elsewhereTimeout = 5 * time.Second

// elsewhere reads snapshots that a disk of this node has lost from other nodes.
type elsewhere struct {
	cluster *cluster.Cluster
	metrics *engine.Metrics
	// tls is that of dialer.
	tls func() *tls.Config
	log *slog.Logger
}

var _ server.Elsewhere = elsewhere{}

// ReadSnapshot implements server.Elsewhere.
func (e elsewhere) ReadSnapshot(ctx context.Context, volume block.VolumeID, other block.ReplicaID, snapshot block.SnapshotID, span block.Span) ([]byte, error) {
	v, ok := e.cluster.State().Volume(volume)
	if !ok {
		return nil, fmt.Errorf("read snapshot %s elsewhere: volume %s: %w", snapshot, volume, block.ErrNotFound)
	}
	err := fmt.Errorf("no other replica is in sync: %w", block.ErrUnavailable)
	for _, m := range v.View.Replicas {
		if m.ID == other || !m.InSync {
			continue
		}
		data, failed := e.readFrom(ctx, m.Node, snapshot, span)
		if failed == nil {
			return data, nil
		}
		err = errors.Join(err, fmt.Errorf("node %s: %w", m.Node, failed))
	}
	return nil, fmt.Errorf("read snapshot %s elsewhere: %w", snapshot, err)
}

func (e elsewhere) readFrom(ctx context.Context, node block.NodeID, snapshot block.SnapshotID, span block.Span) (data []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, elsewhereTimeout)
	defer cancel()
	address, err := e.cluster.DataAddress(node)
	if err != nil {
		return nil, err
	}
	var dialer net.Dialer
	socket, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", block.ErrUnavailable, err)
	}
	// A read that hangs ends with the connection.
	stop := context.AfterFunc(ctx, func() { _ = socket.Close() })
	defer stop()
	client, err := nbd.Connect(ctx, socket, nbd.ClientConfig{Export: server.AloneExport(snapshot), TLS: e.tls()})
	if err != nil {
		return nil, err
	}
	data = make([]byte, span.Length)
	_, err = client.ReadAt(data, span.Offset)
	return data, errors.Join(err, client.Close())
}

// Repaired implements server.Elsewhere.
func (e elsewhere) Repaired(r server.Repaired) {
	e.metrics.DiskRepaired(r.Disk, r.Span.Length)
	e.log.Warn("damage on a disk repaired from a peer", "volume", r.Volume.String(), "replica", r.Replica.String(),
		"disk", r.Disk.String(), "snapshot", r.Snapshot.String(), "offset", r.Span.Offset, "bytes", r.Span.Length)
}
