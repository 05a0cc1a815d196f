package socket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/engine/frontend"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
)

const (
	// maxConns bounds the connections of a device: the client, and those that
	// wait for it to leave, or only ask what there is.
	maxConns = 16
	// leaveGrace is how long a client that has hung up may take to be gone.
	leaveGrace = time.Second
)

// Device is a volume on a unix socket.
type Device struct {
	driver   *Driver
	spec     frontend.Spec
	log      *slog.Logger
	listener net.Listener
	server   *nbd.Server
	cancel   context.CancelFunc
	loops    sync.WaitGroup
	// use holds a token while the device is in use: by its one client, or by
	// Detach, which never gives it back.
	use chan struct{}

	mu sync.Mutex
	// conn is the client being served, nil if there is none.
	conn *nbd.Conn
	// closing: no client is to follow. detached: Detach has the token.
	closing, detached bool
}

// serve listens for clients.
func serve(ctx context.Context, driver *Driver, spec frontend.Spec) (*Device, error) {
	d := &Device{driver: driver, spec: spec, log: spec.Log(driver.Logger), use: make(chan struct{}, 1)}
	server, err := nbd.NewServer(nbd.ServerConfig{Exports: only{d}, HoldErrors: true, Logger: d.log})
	if err != nil {
		return nil, err
	}
	path := driver.socketPath(spec.Attachment)
	// The socket of a daemon that was killed.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("restrict socket: %w", err), listener.Close())
	}
	// It serves until Close, which is not the end of the call that made it.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	d.server, d.listener, d.cancel = server, listener, cancel
	d.loops.Go(func() { d.accept(ctx) })
	return d, nil
}

// take waits for the device to be free.
func (d *Device) take(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, leaveGrace, block.ErrInUse)
	defer cancel()
	select {
	case d.use <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("a client is connected: %w", context.Cause(ctx))
	}
}

func (d *Device) giveBack() { <-d.use }

// only is the one export of a device's socket.
type only struct{ device *Device }

// List implements nbd.Exports.
func (o only) List(context.Context) []string { return []string{o.device.spec.Attachment.String()} }

// Open implements nbd.Exports.
func (o only) Open(ctx context.Context, name string) (nbd.Export, error) {
	d := o.device
	if name != "" && name != d.spec.Attachment.String() {
		return nil, fmt.Errorf("attachment %s: %w", name, block.ErrNotFound)
	}
	if err := d.take(ctx); err != nil {
		return nil, err
	}
	return export{Backend: d.spec.Backend, device: d}, nil
}

// export is the volume in the hands of a client.
type export struct {
	nbd.Backend
	device *Device
}

// Info implements nbd.Export.
func (e export) Info() nbd.ExportInfo { return e.device.spec.Export() }

// Close implements nbd.Export: the backend is its owner's to close.
func (e export) Close() error {
	e.device.giveBack()
	return nil
}

// accept accepts connections until the listener is closed.
func (d *Device) accept(ctx context.Context) {
	tokens := make(chan struct{}, maxConns)
	for {
		select {
		case tokens <- struct{}{}:
		case <-ctx.Done():
			return
		}
		socket, err := d.listener.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				d.log.Error("NBD socket takes no more clients", "err", err)
			}
			return
		}
		d.loops.Go(func() {
			defer func() { <-tokens }()
			// A client may hang up without a farewell.
			if err := d.negotiate(ctx, socket); err != nil && !errors.Is(err, block.ErrClosed) && ctx.Err() == nil {
				d.log.Info("client's connection ended", "err", err)
			}
		})
	}
}

// negotiate leads a connection through the handshake and serves it, if it comes
// to that.
func (d *Device) negotiate(ctx context.Context, socket net.Conn) error {
	conn, err := d.server.Negotiate(ctx, socket)
	if conn == nil {
		return err
	}
	if err == nil {
		err = d.begin(conn)
	}
	if err != nil {
		err = errors.Join(err, conn.Close())
	} else {
		err = conn.Serve(ctx)
	}
	// The next client comes only when nothing of this one is in flight. If that
	// cannot be had, the device has been closed and there is no next one.
	if quiesceErr := conn.Quiesce(ctx); quiesceErr != nil {
		return errors.Join(err, quiesceErr)
	}
	d.end(conn)
	d.giveBack()
	return err
}

// begin makes conn the client of the device.
func (d *Device) begin(conn *nbd.Conn) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closing {
		return block.ErrClosed
	}
	d.conn = conn
	return nil
}

// end is the end of what began, if it did.
func (d *Device) end(conn *nbd.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn == conn {
		d.conn = nil
	}
}

// Path implements frontend.Device: it is the URI of the export.
func (d *Device) Path() string { return URI(d.driver.socketPath(d.spec.Attachment)) }

// Close implements frontend.Device.
func (d *Device) Close(ctx context.Context) error {
	d.mu.Lock()
	conn := d.conn
	d.closing = true
	d.mu.Unlock()
	// Closing the listener also removes the socket, so that clients do not connect
	// to a daemon that is leaving.
	err := d.listener.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	if conn != nil {
		err = errors.Join(err, conn.Quiesce(ctx))
	}
	d.cancel()
	d.loops.Wait()
	if err != nil {
		return fmt.Errorf("close %s: %w", d.Path(), err)
	}
	return nil
}

// Detach implements frontend.Device.
func (d *Device) Detach(ctx context.Context) error {
	if err := d.retire(ctx); err != nil {
		return fmt.Errorf("detach %s: %w", d.Path(), err)
	}
	if err := d.driver.Remove(ctx, d.spec.Identity()); err != nil {
		return err
	}
	return d.Close(ctx)
}

// retire takes the device out of use for good.
func (d *Device) retire(ctx context.Context) error {
	d.mu.Lock()
	detached := d.detached
	d.mu.Unlock()
	if detached {
		return nil
	}
	if err := d.take(ctx); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.detached = true
	return nil
}
