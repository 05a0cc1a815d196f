package fuse

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/holdfast-io/holdfast/engine/frontend"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
)

// Device is the daemon's side of a FUSE device.
type Device struct {
	driver *Driver
	config Config
	spec   frontend.Spec
	helper state
	loop   string
	log    *slog.Logger
	socket *frontend.Listener
}

// serve listens for the helper. ctx bounds only the beginning.
func serve(ctx context.Context, driver *Driver, config Config, spec frontend.Spec) (d *Device, err error) {
	d = &Device{driver: driver, config: config, spec: spec, log: spec.Log(driver.Logger)}
	d.socket, err = frontend.Listen(ctx, config.path(socketName), only{d}, d.log, d.accept)
	return d, err
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
func (d *Device) accept(ctx context.Context, l *frontend.Listener) {
	for {
		socket, err := l.Accept()
		if err != nil {
			return
		}
		conn, err := l.Negotiate(ctx, socket)
		if err != nil || conn == nil {
			d.log.Info("helper did not get through the handshake", "err", err)
			continue
		}
		if err := replace(ctx, l, conn); err != nil {
			d.log.Info("helper's connection is not served", "err", errors.Join(err, conn.Close()))
			continue
		}
		l.Go(func() {
			if err := conn.Serve(ctx); err != nil {
				d.log.Info("helper's connection ended", "err", err)
			}
		})
	}
}

// replace makes conn the connection of the device, after the old one's requests
// have finished (rule 29).
func replace(ctx context.Context, l *frontend.Listener, conn *nbd.Conn) error {
	if old := l.Client(); old != nil {
		if err := old.Quiesce(ctx); err != nil {
			return err
		}
	}
	return l.Begin(conn)
}

// Path implements frontend.Device.
func (d *Device) Path() string { return d.loop }

// Close implements frontend.Device.
func (d *Device) Close(ctx context.Context) error {
	if err := d.socket.Close(ctx); err != nil {
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
