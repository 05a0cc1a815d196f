package main

import (
	"context"
	"crypto/tls"
	"fmt"

	"github.com/holdfast-io/holdfast/cluster"
	"github.com/holdfast-io/holdfast/engine"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/wire"
)

// truth shows the cluster member to the engines.
type truth struct{ *cluster.Cluster }

var _ engine.Truth = truth{}

// StartEngine implements engine.Truth.
func (t truth) StartEngine(ctx context.Context, volume block.VolumeID, attachment block.AttachmentID, start block.StartID) (engine.Started, error) {
	v, err := t.Cluster.StartEngine(ctx, volume, attachment, start)
	if err != nil {
		return engine.Started{}, err
	}
	return engine.Started{View: v.View, MinInSync: v.Parameters.MinInSync}, nil
}

// BorrowVolume implements engine.Truth.
func (t truth) BorrowVolume(ctx context.Context, volume block.VolumeID, start block.StartID, yields bool) (engine.Started, error) {
	v, err := t.Cluster.BorrowVolume(ctx, volume, start, yields)
	if err != nil {
		return engine.Started{}, err
	}
	started := engine.Started{View: v.View, MinInSync: v.Parameters.MinInSync}
	if v.RevertBegun() {
		started.Reverting = v.Revert.To
	}
	return started, nil
}

// Growing implements engine.Truth.
func (t truth) Growing(volume block.VolumeID) int64 {
	v, _ := t.State().Volume(volume)
	return v.GrowTo
}

// Retiring implements engine.Truth.
func (t truth) Retiring(volume block.VolumeID) (old, next block.ReplicaID) {
	v, _ := t.State().Volume(volume)
	leaving, _ := v.Retiring()
	return leaving.Old, leaving.New.Replica
}

// Attachments implements engine.Truth.
func (t truth) Attachments(ctx context.Context) ([]engine.Attachment, error) {
	volumes, err := t.Attached(ctx)
	if err != nil {
		return nil, err
	}
	var all []engine.Attachment
	for _, v := range volumes {
		all = append(all, engine.Attachment{Volume: v.ID, ID: v.View.Attachment})
	}
	return all, nil
}

// View implements engine.Truth.
func (t truth) View(volume block.VolumeID) (block.View, bool) {
	v, ok := t.State().Volume(volume)
	if !ok {
		return block.View{}, false
	}
	return v.View, true
}

// Changed implements engine.Truth.
func (t truth) Changed() <-chan struct{} { return t.Changes() }

// dialer links engines to replicas: by direct call on this node, else by the
// data address of the other.
type dialer struct {
	cluster *cluster.Cluster
	local   wire.Acceptor
	// tls is asked for each link, and answers nil where the nodes trust their network.
	tls func() *tls.Config
}

// Dial implements engine.Dialer.
func (d dialer) Dial(ctx context.Context, member block.Member, recv wire.Receiver) (wire.Link, error) {
	if member.Node == d.cluster.NodeID() {
		return wire.Local(d.local, recv), nil
	}
	address, err := d.cluster.DataAddress(member.Node)
	if err != nil {
		return nil, fmt.Errorf("find node of replica %s: %w", member.ID, err)
	}
	return wire.Dial(ctx, wire.DialConfig{
		Addr:    address,
		Cluster: d.cluster.ClusterID(),
		Node:    d.cluster.NodeID(),
		Peer:    member.Node,
		Replica: member.ID,
		TLS:     d.tls(),
	}, recv)
}
