package socket

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/engine/frontend"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
)

const (
	// maxClients bounds the connections that use a device.
	maxClients = 32
	// maxConns bounds all of its connections: also those that wait to be clients, or
	// only ask what there is.
	maxConns = maxClients + 16
	// leaveGrace is how long clients that have hung up may take to be gone.
	leaveGrace = time.Second
)

// Device is a volume on a unix socket.
type Device struct {
	driver *Driver
	log    *slog.Logger
	socket *frontend.Listener
	// use holds a token for each client. Detach takes all there are, and never gives
	// them back.
	use chan struct{}

	mu sync.Mutex
	// visits are the connections there are, used or not.
	visits map[*visit]struct{}
	// spec's size may grow.
	spec frontend.Spec
	// detached: Detach has the tokens.
	detached bool
}

// serve listens for clients. ctx bounds only the beginning.
func serve(ctx context.Context, driver *Driver, spec frontend.Spec) (d *Device, err error) {
	d = &Device{driver: driver, spec: spec, log: spec.Log(driver.Logger), use: make(chan struct{}, maxClients), visits: map[*visit]struct{}{}}
	d.socket, err = frontend.Listen(ctx, driver.socketPath(spec.Attachment), only{d}, d.log, d.accept)
	return d, err
}

// take waits for room for a client, and for all to be gone who have left: who has hung up
// may be the one that comes, and what it sent must not follow what it will send (rule 29).
func (d *Device) take(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, leaveGrace, block.ErrInUse)
	defer cancel()
	for _, v := range d.left() {
		select {
		case <-v.gone:
		case <-ctx.Done():
			return fmt.Errorf("requests of a client that has left are under way: %w", context.Cause(ctx))
		}
	}
	select {
	case d.use <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%d clients are connected, or the volume is being detached: %w", maxClients, context.Cause(ctx))
	}
}

// takeAll waits for the device to be free.
func (d *Device) takeAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, leaveGrace, block.ErrInUse)
	defer cancel()
	for taken := range maxClients {
		select {
		case d.use <- struct{}{}:
		case <-ctx.Done():
			for range taken {
				d.giveBack()
			}
			return fmt.Errorf("clients are connected; end them first: %w", context.Cause(ctx))
		}
	}
	return nil
}

func (d *Device) giveBack() { <-d.use }

// only is the one export of a device's socket.
type only struct{ device *Device }

// List implements nbd.Exports.
func (o only) List(context.Context) []string { return []string{o.device.current().Attachment.String()} }

// Open implements nbd.Exports.
func (o only) Open(ctx context.Context, name string) (nbd.Export, error) {
	d := o.device
	if name != "" && name != d.current().Attachment.String() {
		return nil, fmt.Errorf("attachment %s: %w", name, block.ErrNotFound)
	}
	if err := d.take(ctx); err != nil {
		return nil, err
	}
	spec := d.current()
	info := spec.Export()
	// One engine answers all connections, and its flushes know of none (rule 10).
	info.MultiConn = true
	return export{Backend: spec.Backend, info: info, device: d}, nil
}

// export is the volume in the hands of a client.
type export struct {
	nbd.Backend
	info   nbd.ExportInfo
	device *Device
}

// Info implements nbd.Export.
func (e export) Info() nbd.ExportInfo { return e.info }

// Close implements nbd.Export: the backend is its owner's to close.
func (e export) Close() error {
	e.device.giveBack()
	return nil
}

// accept accepts connections until the listener is closed.
func (d *Device) accept(ctx context.Context, l *frontend.Listener) {
	tokens := make(chan struct{}, maxConns)
	for {
		select {
		case tokens <- struct{}{}:
		case <-ctx.Done():
			return
		}
		socket, err := l.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				d.log.Error("NBD socket takes no more clients", "err", err)
			}
			return
		}
		l.Go(func() {
			defer func() { <-tokens }()
			v := d.arrive(socket)
			defer d.leave(v)
			// A client may hang up without a farewell.
			if err := d.negotiate(ctx, l, socket, v); err != nil && !errors.Is(err, block.ErrClosed) && ctx.Err() == nil {
				d.log.Info("client's connection ended", "err", err)
			}
		})
	}
}

// negotiate leads a connection through the handshake and serves it, if it comes
// to that.
func (d *Device) negotiate(ctx context.Context, l *frontend.Listener, socket net.Conn, v *visit) error {
	conn, err := l.Negotiate(ctx, socket)
	if conn == nil {
		return err
	}
	d.negotiated(v, conn)
	if err == nil {
		err = l.Begin(conn)
	}
	if err != nil {
		err = errors.Join(err, conn.Close())
	} else {
		err = conn.Serve(ctx)
	}
	// It is gone, and another may come for it, only when nothing of it is in flight. If
	// that cannot be had, the device has been closed and no other comes.
	if quiesceErr := conn.Quiesce(ctx); quiesceErr != nil {
		return errors.Join(err, quiesceErr)
	}
	l.End(conn)
	d.giveBack()
	return err
}

// current is what the next client gets.
func (d *Device) current() frontend.Spec {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.spec
}

func (d *Device) identity() frontend.Identity {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.spec.Identity()
}

// Resize implements frontend.Device. NBD cannot tell a client; the next one sees it.
func (d *Device) Resize(_ context.Context, size int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.spec.Size = max(d.spec.Size, size)
	return nil
}

// Path implements frontend.Device: it is the URI of the export.
func (d *Device) Path() string { return URI(d.driver.socketPath(d.current().Attachment)) }

// Close implements frontend.Device.
func (d *Device) Close(ctx context.Context) error {
	if err := d.socket.Close(ctx); err != nil {
		return fmt.Errorf("close %s: %w", d.Path(), err)
	}
	return nil
}

// Detach implements frontend.Device.
func (d *Device) Detach(ctx context.Context) error {
	if err := d.retire(ctx); err != nil {
		return fmt.Errorf("detach %s: %w", d.Path(), err)
	}
	if err := d.driver.Remove(ctx, d.identity()); err != nil {
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
	if err := d.takeAll(ctx); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.detached = true
	return nil
}
