package fuse

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/iopath"
	"github.com/holdfast-io/holdfast/internal/nbd"
)

const (
	// readyFD is the descriptor of the pipe on which a helper says that its file
	// system is mounted, or why it is not.
	readyFD = 3
	// readyWord says that it is.
	readyWord = "ready"
	// growSignal tells a helper that its configuration names a larger size.
	growSignal = unix.SIGHUP
	// lastUserGrace is how long a helper that ends waits for the users of its
	// device.
	lastUserGrace = 500 * time.Millisecond
)

// Main is the helper process. It serves the file system until that is
// unmounted, which is the orderly end; until ctx ends, which fails all I/O; or
// until the daemon says that the export is gone, which does the same.
func Main(ctx context.Context, config Config, log *slog.Logger) error {
	log = log.With("volume", config.Volume.String(), "attachment", config.Attachment.String())
	h := &helper{config: config, log: log, ready: os.NewFile(readyFD, "ready pipe"), grown: make(chan os.Signal, 1)}
	signal.Notify(h.grown, growSignal)
	defer signal.Stop(h.grown)
	err := h.run(ctx)
	if err != nil {
		// In vain when the device was complete already; the error is returned too.
		_, _ = h.ready.WriteString(err.Error())
	}
	return err
}

// helper is the state of Main.
type helper struct {
	config Config
	log    *slog.Logger
	ready  *os.File
	grown  chan os.Signal
	disk   *disk
	server *fuse.Server
}

// run brings the file system up, says so, and waits for its end.
func (h *helper) run(ctx context.Context) error {
	iopath.Mark(h.log)
	client, err := nbd.NewResilient(nbd.ResilientConfig{
		ClientConfig: nbd.ClientConfig{Export: h.config.Attachment.String(), MaxInFlight: 2 * maxBackground},
		Size:         h.config.Size,
		Dial: func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", h.config.path(socketName))
		},
		Logger: h.log,
	})
	if err != nil {
		return err
	}
	h.disk = newDisk(client, &h.config)
	if h.server, err = fuse.NewServer(h.disk, h.config.path(mountName), mountOptions(h.config.Attachment)); err != nil {
		return fmt.Errorf("mount FUSE device: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var loops sync.WaitGroup
	defer loops.Wait()
	defer cancel()
	unmounted := make(chan struct{})
	loops.Go(func() {
		defer close(unmounted)
		h.server.Serve()
	})
	gone := make(chan struct{})
	loops.Go(func() {
		defer close(gone)
		if err := client.Run(ctx); err != nil {
			h.log.Error("volume is no longer attached here, its I/O fails", "err", err)
		}
	})
	if err := h.announce(); err != nil {
		cancel()
		return errors.Join(err, h.takeDown(unmounted))
	}
	for over := false; !over; {
		select {
		case <-h.grown:
			if err := h.grow(); err != nil {
				h.log.Error("device did not grow", "err", err)
			}
		case <-unmounted:
			h.log.Info("device was detached")
			return nil
		case <-gone:
			over = true
		case <-ctx.Done():
			h.log.Warn("helper was told to end, the device's I/O fails")
			over = true
		}
	}
	cancel()
	<-gone
	return h.takeDown(unmounted)
}

// grow takes the size over that the configuration names now.
func (h *helper) grow() error {
	config, err := LoadConfig(h.config.path(configName))
	if err != nil {
		return err
	}
	if config.Attachment != h.config.Attachment {
		return fmt.Errorf("configuration of attachment %s: %w", config.Attachment, block.ErrConflict)
	}
	h.disk.grow(config.Size)
	// A negative offset: what is known of the file is forgotten, not what is in it.
	if s := h.server.InodeNotify(diskNode, -1, 0); !s.Ok() {
		return fmt.Errorf("tell the kernel of the size: %w", syscall.Errno(s))
	}
	h.log.Info("device has grown", "size", config.Size)
	return nil
}

// announce writes down who serves the file system and tells the daemon.
func (h *helper) announce() error {
	self, err := identify(os.Getpid())
	if err != nil {
		return err
	}
	if err := writeJSON(h.config.path(stateName), state{Version: formatVersion, Grows: true, process: self}); err != nil {
		return fmt.Errorf("write state of FUSE device: %w", err)
	}
	h.log.Info("file system is mounted")
	if _, err := h.ready.WriteString(readyWord); err != nil {
		// The next daemon will find the state.
		h.log.Warn("nobody waits for the device", "err", err)
	}
	return h.ready.Close()
}

// takeDown ends a device whose I/O fails. A user of the loop device keeps it,
// dead, until he closes it.
func (h *helper) takeDown(unmounted <-chan struct{}) error {
	loop, err := findLoop(h.config.Attachment)
	if err == nil && loop != "" {
		err = forceLoop(loop, h.config.Attachment)
	}
	if unmountErr := unmount(h.config.path(mountName), unix.MNT_DETACH); unmountErr != nil {
		return errors.Join(err, unmountErr)
	}
	select {
	case <-unmounted:
	case <-time.After(lastUserGrace):
		// Somebody holds the dead device open. He and the kernel wait for the
		// end of this process, which the file system's goroutines would not let
		// come.
		h.log.Warn("device is still in use", "device", loop)
		os.Exit(1)
	}
	return err
}

// unmount unmounts a FUSE file system; one that is not mounted is not an error.
func unmount(path string, flags int) error {
	err := unix.Unmount(path, flags)
	switch {
	case err == nil, errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("unmount %s: %w", path, block.ErrInUse)
	default:
		return fmt.Errorf("unmount %s: %w", path, err)
	}
}
