// Package nbd shows a volume through the NBD client of the Linux kernel. The
// device has one socket (rule 29), a unix socket pair whose other half this
// process serves; its backend identifier is the node and the device's Identity.
// The node is in it because daemons may share a kernel, as nodes in containers
// do: each touches its own devices only.
//
// Goroutines: a Device has one, which serves the socket and, when the socket
// ended though nobody asked (a request was left unanswered), quiesces it and
// gives the kernel a new one. Close and Detach join it.
package nbd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/engine/frontend"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
	"github.com/holdfast-io/holdfast/internal/nbd/kernel"
)

// The pause before a socket that ended by itself is replaced.
const (
	replacePauseMin = 10 * time.Millisecond
	replacePauseMax = time.Second
)

// Driver makes kernel NBD devices.
type Driver struct {
	// Node is whose devices they are.
	Node block.NodeID
	// NetNS is the path of the host's network namespace, "" when the process is
	// in it.
	NetNS string
	// Sysfs is where sysfs is mounted; "" is "/sys".
	Sysfs kernel.Sysfs
	// Logger may be nil.
	Logger *slog.Logger
}

var _ frontend.Driver = (*Driver)(nil)

// Name implements frontend.Driver.
func (d *Driver) Name() string { return "nbd" }

func (d *Driver) sysfs() kernel.Sysfs {
	if d.Sysfs == "" {
		return kernel.DefaultSysfs
	}
	return d.Sysfs
}

// Available implements frontend.Driver.
func (d *Driver) Available(context.Context) error {
	client, err := kernel.Dial(d.NetNS)
	if err != nil {
		return err
	}
	return errors.Join(frontend.Privileged(), client.Close())
}

// identifier is what the kernel keeps of a device.
func (d *Driver) identifier(id frontend.Identity) string {
	return d.Node.String() + "/" + id.String()
}

// find returns the index of the device with an identity, or AnyIndex.
func (d *Driver) find(id frontend.Identity) (int, error) {
	found, err := d.sysfs().Identifiers()
	if err != nil {
		return 0, err
	}
	for index, identifier := range found {
		if identifier == d.identifier(id) {
			return index, nil
		}
	}
	return kernel.AnyIndex, nil
}

// Attach implements frontend.Driver.
func (d *Driver) Attach(ctx context.Context, spec frontend.Spec) (frontend.Device, error) {
	device, err := d.open(&spec, func(client *kernel.Client, index, socket int) (int, error) {
		if index != kernel.AnyIndex {
			return 0, fmt.Errorf("NBD device %d has it: %w", index, block.ErrExists)
		}
		info := spec.Export()
		return client.Connect(kernel.Config{
			Index: kernel.AnyIndex, Size: spec.Size, BlockSize: spec.LogicalBlockSize,
			Flags: info.Flags(), Identifier: d.identifier(spec.Identity()),
		}, socket)
	})
	if err != nil {
		return nil, err
	}
	// A change of the queue waits for the requests in it, which udev may have
	// made already: they must be served. For the same reason a device that is
	// adopted keeps the settings it has.
	if err := d.sysfs().Tune(device.index); err != nil {
		return nil, errors.Join(err, device.Detach(ctx))
	}
	return device, nil
}

// Adopt implements frontend.Driver.
func (d *Driver) Adopt(ctx context.Context, spec frontend.Spec) (frontend.Device, error) {
	device, err := d.open(&spec, func(client *kernel.Client, index, socket int) (int, error) {
		if index == kernel.AnyIndex {
			return 0, block.ErrNotFound
		}
		size, err := d.sysfs().Size(index)
		if err != nil {
			return 0, err
		}
		if size > spec.Size {
			return 0, fmt.Errorf("NBD device %d has %d bytes, the volume %d: %w", index, size, spec.Size, block.ErrConflict)
		}
		return index, client.Reconfigure(ctx, index, d.identifier(spec.Identity()), socket)
	})
	if err != nil {
		return nil, err
	}
	// An earlier daemon may have ended between the volume's growth and the device's.
	if err := device.Resize(ctx, spec.Size); err != nil {
		return nil, errors.Join(err, device.Close(ctx))
	}
	return device, nil
}

// List implements frontend.Driver.
func (d *Driver) List(context.Context) ([]frontend.Identity, error) {
	found, err := d.sysfs().Identifiers()
	if err != nil {
		return nil, err
	}
	var list []frontend.Identity
	for _, identifier := range found {
		node, rest, _ := strings.Cut(identifier, "/")
		if node != d.Node.String() {
			continue // another node's, or not of Holdfast
		}
		if id, err := frontend.ParseIdentity(rest); err == nil {
			list = append(list, id)
		}
	}
	return list, nil
}

// Remove implements frontend.Driver.
func (d *Driver) Remove(_ context.Context, id frontend.Identity) error {
	index, err := d.find(id)
	if err != nil || index == kernel.AnyIndex {
		return err
	}
	client, err := kernel.Dial(d.NetNS)
	if err != nil {
		return err
	}
	return errors.Join(client.Disconnect(index), client.Close())
}

// open fills in the defaults of spec, gives the kernel a socket in the way of give, and serves the other half.
func (d *Driver) open(spec *frontend.Spec, give func(client *kernel.Client, index, socket int) (int, error)) (*Device, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	index, err := d.find(spec.Identity())
	if err != nil {
		return nil, err
	}
	client, err := kernel.Dial(d.NetNS)
	if err != nil {
		return nil, err
	}
	device := &Device{driver: d, spec: *spec, client: client, log: spec.Log(d.Logger), resizing: make(chan struct{}, 1)}
	conn, err := device.pair(func(socket int) error {
		device.index, err = give(client, index, socket)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("attach volume %s: %w", spec.Volume, err), client.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	device.cancel, device.conn = cancel, conn
	device.loop.Go(func() { device.serve(ctx) })
	return device, nil
}

// Device is a kernel NBD device.
type Device struct {
	driver *Driver
	client *kernel.Client
	index  int
	log    *slog.Logger
	cancel context.CancelFunc
	loop   sync.WaitGroup

	// resizing holds a token while the kernel resizes the device, for which it needs
	// the socket.
	resizing chan struct{}

	mu sync.Mutex
	// spec's size may grow.
	spec frontend.Spec
	// conn is the socket being served; it is replaced by serve only.
	conn *nbd.Conn
	// stopping: no socket is to follow.
	stopping bool
	// closed: the netlink socket is closed.
	closed bool
}

// pair makes a socket pair, gives one half away and wraps the other.
func (d *Device) pair(give func(socket int) error) (*nbd.Conn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket pair: %w", err)
	}
	// The kernel takes a reference of its own to the half it is given.
	theirs := os.NewFile(uintptr(fds[1]), "kernel's half")
	defer theirs.Close()
	half := os.NewFile(uintptr(fds[0]), "server's half")
	ours, err := net.FileConn(half)
	if err := errors.Join(err, half.Close()); err != nil {
		return nil, fmt.Errorf("wrap socket: %w", err)
	}
	d.mu.Lock()
	spec := d.spec
	d.mu.Unlock()
	conn, err := nbd.NewConn(ours, nbd.ConnConfig{
		Info: spec.Export(), Backend: spec.Backend, HoldErrors: true, Logger: d.log,
	})
	if err == nil {
		err = give(fds[1])
	}
	if err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	return conn, nil
}

// serve serves sockets until the device is closed.
func (d *Device) serve(ctx context.Context) {
	pause := replacePauseMin
	for {
		began := time.Now()
		err := d.current().Serve(ctx)
		if d.stopped() || ctx.Err() != nil {
			return
		}
		d.log.Warn("NBD socket ended, giving the kernel a new one", "device", d.Path(), "err", err)
		if time.Since(began) > replacePauseMax {
			pause = replacePauseMin
		}
		if err := d.replace(ctx, pause); err != nil {
			if ctx.Err() == nil {
				d.log.Error("NBD device lost its server", "device", d.Path(), "err", err)
			}
			return
		}
		pause = min(2*pause, replacePauseMax)
	}
}

// replace quiesces the old socket (rule 29) and gives the kernel a new one.
func (d *Device) replace(ctx context.Context, pause time.Duration) error {
	if err := d.current().Quiesce(ctx); err != nil {
		return err
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	conn, err := d.pair(func(socket int) error {
		return d.client.Reconfigure(ctx, d.index, d.driver.identifier(d.identity()), socket)
	})
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	conn.Grow(d.spec.Size)
	d.conn = conn
	if d.stopping {
		// Close has quiesced the old socket and does not know of this one.
		return errors.Join(block.ErrClosed, conn.Close())
	}
	return nil
}

func (d *Device) current() *nbd.Conn {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.conn
}

func (d *Device) stopped() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stopping
}

// identity never changes.
func (d *Device) identity() frontend.Identity {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.spec.Identity()
}

// Resize implements frontend.Device.
func (d *Device) Resize(ctx context.Context, size int64) error {
	release, err := d.holdSize(ctx)
	if err != nil {
		return fmt.Errorf("resize %s: %w", d.Path(), err)
	}
	defer release()
	d.mu.Lock()
	d.spec.Size = max(d.spec.Size, size)
	d.conn.Grow(size)
	stopping := d.stopping
	d.mu.Unlock()
	if stopping {
		return fmt.Errorf("resize %s: %w", d.Path(), block.ErrClosed)
	}
	has, err := d.driver.sysfs().Size(d.index)
	if err != nil || has >= size {
		return err
	}
	if err := d.client.Resize(d.index, d.driver.identifier(d.identity()), size); err != nil {
		return err
	}
	if has, err = d.driver.sysfs().Size(d.index); err == nil && has < size {
		err = fmt.Errorf("resize %s: the kernel left it at %d bytes, it is too old for that: %w", d.Path(), has, block.ErrUnavailable)
	}
	return err
}

// holdSize waits until nobody resizes the device, and keeps it so until release.
func (d *Device) holdSize(ctx context.Context) (release func(), err error) {
	select {
	case d.resizing <- struct{}{}:
		return func() { <-d.resizing }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("the kernel is resizing it: %w", ctx.Err())
	}
}

// Path implements frontend.Device.
func (d *Device) Path() string { return kernel.DevicePath(d.index) }

// Close implements frontend.Device.
func (d *Device) Close(ctx context.Context) error {
	// Without a socket a resizing would never end, and the device with it.
	release, err := d.holdSize(ctx)
	if err != nil {
		d.log.Error("NBD device is closed while the kernel resizes it", "device", d.Path(), "err", err)
		release = func() {}
	}
	defer release()
	d.mu.Lock()
	conn := d.conn
	first := !d.closed
	d.stopping, d.closed = true, true
	d.mu.Unlock()
	err = conn.Quiesce(ctx)
	d.cancel()
	d.loop.Wait()
	if err != nil {
		err = fmt.Errorf("close %s: %w", d.Path(), err)
	}
	if first {
		err = errors.Join(err, d.client.Close())
	}
	return err
}

// Detach implements frontend.Device. The kernel tells nobody whether the device
// is in use; its I/O fails then.
func (d *Device) Detach(ctx context.Context) error {
	d.mu.Lock()
	d.stopping = true
	d.mu.Unlock()
	// The socket is served until the kernel has let go, so that what it still
	// writes arrives.
	if err := d.driver.Remove(ctx, d.identity()); err != nil {
		return fmt.Errorf("detach %s: %w", d.Path(), err)
	}
	return d.Close(ctx)
}
