package cluster

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/holdfast-io/holdfast/cluster/rpcerr"
	"github.com/holdfast-io/holdfast/internal/block"
)

// peers keeps one gRPC connection for each control address that was called.
type peers struct {
	options []grpc.DialOption

	mu     sync.Mutex
	conns  map[string]*grpc.ClientConn
	closed bool
}

func newPeers(options []grpc.DialOption) *peers {
	if len(options) == 0 {
		options = []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	}
	const reconnectMax = time.Second
	return &peers{
		conns: map[string]*grpc.ClientConn{},
		options: append([]grpc.DialOption{
			grpc.WithUnaryInterceptor(rpcerr.UnaryClientInterceptor),
			grpc.WithNoProxy(),
			grpc.WithContextDialer(dialPeer),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: reconnectMax},
				MinConnectTimeout: reconnectMax,
			}),
		}, options...),
	}
}

// to is the connection to an address; the first call on it connects.
func (p *peers) to(address string) (*grpc.ClientConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, fmt.Errorf("connect to %s: %w", address, block.ErrClosed)
	}
	if conn, ok := p.conns[address]; ok {
		return conn, nil
	}
	conn, err := grpc.NewClient("passthrough:///"+address, p.options...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w: %w", address, err, block.ErrInvalid)
	}
	p.conns[address] = conn
	return conn, nil
}

func (p *peers) close() (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, conn := range p.conns {
		err = errors.Join(err, conn.Close())
	}
	clear(p.conns)
	return err
}
