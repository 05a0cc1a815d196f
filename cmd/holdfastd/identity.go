package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"

	"github.com/holdfast-io/holdfast/cluster"
	"github.com/holdfast-io/holdfast/internal/mtls"
)

// controlHandshakeTimeout bounds how long a control connection may take to prove itself.
const controlHandshakeTimeout = 10 * time.Second

// openIdentity reads the files for TLS, if there are to be any.
func (d *daemon) openIdentity() (err error) {
	if !d.config.tls.Given() {
		return nil
	}
	if d.identity, err = mtls.Open(d.config.tls, d.log, mtls.Node); err != nil {
		return err
	}
	return d.registry.Register(d.identity)
}

// raftListener is where Raft accepts. The handshake comes with the first read, which is
// that of the greeting and has its deadline.
func (d *daemon) raftListener() net.Listener {
	if d.identity == nil {
		return d.reserved.raft
	}
	return tls.NewListener(d.reserved.raft, d.identity.Server(mtls.Node))
}

// clusterDialers are how the cluster member reaches others; both nil for the member's own
// way, which is plain.
func (d *daemon) clusterDialers() (func(address string, timeout time.Duration) (net.Conn, error), []grpc.DialOption) {
	if d.identity == nil {
		return nil, nil
	}
	return d.dialRaft, []grpc.DialOption{grpc.WithTransportCredentials(d.identity.Credentials(mtls.Node))}
}

func (d *daemon) dialRaft(address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	raw, err := cluster.DialTCP(address, timeout)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, d.identity.Client())
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("TLS with %s: %w", address, err), raw.Close())
	}
	return conn, nil
}

// controlOptions let nodes and clients in.
func (d *daemon) controlOptions() []grpc.ServerOption {
	if d.identity == nil {
		return nil
	}
	return []grpc.ServerOption{
		grpc.Creds(d.identity.Credentials(mtls.Node, mtls.Client)),
		grpc.ConnectionTimeout(controlHandshakeTimeout),
	}
}

// dataServer is TLS for links from other nodes, nil for none.
func (d *daemon) dataServer() *tls.Config {
	if d.identity == nil {
		return nil
	}
	return d.identity.Server(mtls.Node)
}

// dataClient is TLS for the next link to another node, nil for none.
func (d *daemon) dataClient() *tls.Config {
	if d.identity == nil {
		return nil
	}
	return d.identity.Client()
}
