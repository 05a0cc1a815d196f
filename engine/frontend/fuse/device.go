package fuse

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/engine/frontend"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
)

// Device is the daemon's side of a FUSE device.
type Device struct {
	driver *Driver
	helper state
	loop   string
	log    *slog.Logger
	socket *frontend.Listener

	mu sync.Mutex
	// The sizes in config and spec may grow.
	config Config
	spec   frontend.Spec
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
func (o only) List(context.Context) []string { return []string{o.name()} }

// Open implements nbd.Exports.
func (o only) Open(_ context.Context, name string) (nbd.Export, error) {
	if name != o.name() {
		return nil, fmt.Errorf("attachment %s: %w", name, block.ErrNotFound)
	}
	_, spec := o.device.shown()
	return export{Backend: spec.Backend, info: spec.Export()}, nil
}

func (o only) name() string {
	config, _ := o.device.shown()
	return config.Attachment.String()
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
		// It may have been negotiated before the device grew.
		_, spec := d.shown()
		conn.Grow(spec.Size)
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
	for _, old := range l.Clients() {
		if err := old.Quiesce(ctx); err != nil {
			return err
		}
		l.End(old)
	}
	return l.Begin(conn)
}

// shown is what the device shows now.
func (d *Device) shown() (Config, frontend.Spec) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.config, d.spec
}

// Resize implements frontend.Device: the socket takes requests of the new size, the
// helper serves a longer file, and the loop device looks at it again.
func (d *Device) Resize(ctx context.Context, size int64) error {
	if err := d.resize(ctx, size); err != nil {
		return fmt.Errorf("resize %s: %w", d.Path(), err)
	}
	return nil
}

func (d *Device) resize(ctx context.Context, size int64) error {
	has, err := loopSize(d.loop)
	if err != nil || has >= size {
		return err
	}
	d.mu.Lock()
	d.spec.Size = max(d.spec.Size, size)
	d.config.Size = d.spec.Size
	config := d.config
	d.mu.Unlock()
	for _, conn := range d.socket.Clients() {
		conn.Grow(size)
	}
	if !d.helper.Grows {
		return fmt.Errorf("its helper is of a version that cannot; detach and attach the volume: %w", block.ErrUnavailable)
	}
	if err := writeJSON(config.path(configName), config); err != nil {
		return err
	}
	if err := d.growFile(ctx, config.path(filepath.Join(mountName, diskName)), size); err != nil {
		return err
	}
	return growLoop(d.loop)
}

// growFile tells the helper and waits until the kernel knows that the file is longer.
func (d *Device) growFile(ctx context.Context, path string, size int64) error {
	h, err := d.helper.open()
	if err != nil {
		return err
	}
	defer h.release()
	if err := h.signal(growSignal); err != nil {
		return err
	}
	for {
		var stat unix.Stat_t
		if err := unix.Stat(path, &stat); err != nil {
			return fmt.Errorf("size of %s: %w", path, err)
		}
		if stat.Size >= size {
			return nil
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("the helper serves %d bytes: %w", stat.Size, err)
		}
	}
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
	config, spec := d.shown()
	h, err := d.helper.open()
	if errors.Is(err, block.ErrNotFound) {
		// Nobody is left to be orderly with.
		return d.driver.Remove(ctx, spec.Identity())
	}
	if err != nil {
		return err
	}
	defer h.release()
	if err := detachLoop(ctx, d.loop, config.Attachment); err != nil {
		return err
	}
	for {
		err := unmount(config.path(mountName), 0)
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
	return d.driver.Remove(ctx, spec.Identity())
}
