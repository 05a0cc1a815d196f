package frontend

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
)

// Listener is the unix socket on which a device serves its NBD clients. Who the next
// client is, when it is let in, and how many there are, is for the device to say.
type Listener struct {
	*nbd.Server
	listener net.Listener
	cancel   context.CancelFunc
	loops    sync.WaitGroup

	mu sync.Mutex
	// clients are the connections being served.
	clients []*nbd.Conn
	// closing: no client is to follow.
	closing bool
}

// Listen makes the socket at path, which root alone may use, in the place of one that a
// killed daemon left. accept is called in a goroutine of its own and is to return when
// Accept fails. ctx bounds only the beginning.
func Listen(ctx context.Context, path string, exports nbd.Exports, log *slog.Logger,
	accept func(ctx context.Context, l *Listener)) (*Listener, error) {
	server, err := nbd.NewServer(nbd.ServerConfig{Exports: exports, HoldErrors: true, Logger: log})
	if err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("restrict socket: %w", err), listener.Close())
	}
	l := &Listener{Server: server, listener: listener}
	// It serves until Close, which is not the end of the call that made it.
	ctx, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	l.loops.Go(func() { accept(ctx, l) })
	return l, nil
}

// Accept waits for the next connection; net.ErrClosed after Close.
func (l *Listener) Accept() (net.Conn, error) { return l.listener.Accept() }

// Go runs f in a goroutine that Close waits for.
func (l *Listener) Go(f func()) { l.loops.Go(f) }

// Clients are the connections being served.
func (l *Listener) Clients() []*nbd.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.clients)
}

// Begin makes conn a client; block.ErrClosed if none is to follow.
func (l *Listener) Begin(conn *nbd.Conn) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing {
		return block.ErrClosed
	}
	l.clients = append(l.clients, conn)
	return nil
}

// End is the end of conn's time as a client, if it had any.
func (l *Listener) End(conn *nbd.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clients = slices.DeleteFunc(l.clients, func(c *nbd.Conn) bool { return c == conn })
}

// Close removes the socket, so that nobody connects to a daemon that is leaving, ends
// the clients when their requests are answered or ctx is over, and waits for all
// goroutines. It is idempotent.
func (l *Listener) Close(ctx context.Context) error {
	l.mu.Lock()
	clients := slices.Clone(l.clients)
	l.closing = true
	l.mu.Unlock()
	err := l.listener.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	for _, client := range clients {
		err = errors.Join(err, client.Quiesce(ctx))
	}
	l.cancel()
	l.loops.Wait()
	return err
}
