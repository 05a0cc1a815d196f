package fuse

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"

	"github.com/holdfast-io/holdfast/engine/frontend"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
)

// Device is the daemon's side of a FUSE device.
type Device struct {
	driver   *Driver
	config   Config
	spec     frontend.Spec
	helper   state
	loop     string
	log      *slog.Logger
	listener net.Listener
	server   *nbd.Server
	cancel   context.CancelFunc
	loops    sync.WaitGroup

	mu sync.Mutex
	// conn is the connection being served, nil before the first.
	conn    *nbd.Conn
	closing bool
}

// serve listens for the helper. ctx bounds only the beginning.
func serve(ctx context.Context, driver *Driver, config Config, spec frontend.Spec) (*Device, error) {
	d := &Device{driver: driver, config: config, spec: spec, log: spec.Log(driver.Logger)}
	server, err := nbd.NewServer(nbd.ServerConfig{Exports: only{d}, HoldErrors: true, Logger: d.log})
	if err != nil {
		return nil, err
	}
	path := config.path(socketName)
	// The socket of a daemon that was killed.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	lifetime, cancel := context.WithCancel(context.WithoutCancel(ctx))
	d.server, d.listener, d.cancel = server, listener, cancel
	d.loops.Go(func() { d.accept(lifetime) })
	return d, nil
}

// only is the one export of a device's socket.
type only struct{ device *Device }

// List implements nbd.Exports.
func (o only) List(context.Context) []string { return []string{o.device.config.Attachment.String()} }

// Open implements nbd.Exports.
func (o only) Open(_ context.Context, name string) (nbd.Export, error) {
	if name != o.device.config.Attachment.String() {
		return nil, fmt.Errorf("attachment %s: %w", name, block.ErrNotFound)
	}
	return export{Backend: o.device.spec.Backend, info: o.device.spec.Export()}, nil
}

// export is the volume behind a device.
type export struct {
	nbd.Backend
	info nbd.ExportInfo
}

// Info implements nbd.Export.
func (e export) Info() nbd.ExportInfo { return e.info }

// Close implements nbd.Export: the backend is its owner's to close.
func (e export) Close() error { return nil }

// accept serves one connection after the other: the helper has only one, and
// makes a new one when it thinks the old one dead.
func (d *Device) accept(ctx context.Context) {
	for {
		socket, err := d.listener.Accept()
		if err != nil {
			return
		}
		conn, err := d.server.Negotiate(ctx, socket)
		if err != nil || conn == nil {
			d.log.Info("helper did not get through the handshake", "err", err)
			continue
		}
		if err := d.replace(ctx, conn); err != nil {
			d.log.Info("helper's connection is not served", "err", errors.Join(err, conn.Close()))
			continue
		}
		d.loops.Go(func() {
			if err := conn.Serve(ctx); err != nil {
				d.log.Info("helper's connection ended", "err", err)
			}
		})
	}
}

// replace makes conn the connection of the device, after the old one's requests
// have finished (rule 29).
func (d *Device) replace(ctx context.Context, conn *nbd.Conn) error {
	d.mu.Lock()
	old := d.conn
	d.mu.Unlock()
	if old != nil {
		if err := old.Quiesce(ctx); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closing {
		return block.ErrClosed
	}
	d.conn = conn
	return nil
}

// Path implements frontend.Device.
func (d *Device) Path() string { return d.loop }

// Close implements frontend.Device.
func (d *Device) Close(ctx context.Context) error {
	d.mu.Lock()
	conn := d.conn
	d.closing = true
	d.mu.Unlock()
	// Closing the listener also removes the socket, so that the helper does not
	// connect to a daemon that is leaving.
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
	if err := d.detach(ctx); err != nil {
		return fmt.Errorf("detach %s: %w", d.Path(), err)
	}
	return d.Close(ctx)
}

// detach takes the device down from its top, while what it still writes is
// served.
func (d *Device) detach(ctx context.Context) error {
	h, err := d.helper.open()
	if errors.Is(err, block.ErrNotFound) {
		// Nobody is left to be orderly with.
		return d.driver.Remove(ctx, d.spec.Identity())
	}
	if err != nil {
		return err
	}
	defer h.release()
	if err := detachLoop(ctx, d.loop, d.config.Attachment); err != nil {
		return err
	}
	for {
		err := unmount(d.config.path(mountName), 0)
		if err == nil {
			break
		}
		if !errors.Is(err, block.ErrInUse) {
			return err
		}
		if pauseErr := pause(ctx); pauseErr != nil {
			return errors.Join(err, pauseErr)
		}
	}
	orderly, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	if err := h.wait(orderly); err != nil {
		d.log.Warn("helper did not end with its file system", "err", err)
	}
	return d.driver.Remove(ctx, d.spec.Identity())
}
