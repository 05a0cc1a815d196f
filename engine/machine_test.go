package engine

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/engine/frontend"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/clock"
	"github.com/holdfast-io/holdfast/internal/nbd"
)

// machine is what outlives daemons: its devices. Each is an NBD client that keeps
// what is not answered for the next server, as the kernel's does, in front of the
// NBD server of production.
type machine struct {
	t *testing.T

	mu      sync.Mutex
	devices map[frontend.Identity]*device
	// refuse, if set, is what the driver's calls fail with; removing, if set, is
	// called when a device is about to be removed.
	refuse   error
	removing func()
	// most is the highest number of devices that a volume has had at once.
	most int
}

// device is a block device.
type device struct {
	machine *machine
	id      frontend.Identity
	client  *nbd.Resilient
	end     func()

	mu     sync.Mutex
	server *deviceServer
	size   int64 // what its users see
}

// show makes it at least so large.
func (d *device) show(size int64) {
	d.client.Grow(size)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.size = max(d.size, size)
}

// shows is what its users see.
func (d *device) shows() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.size
}

// deviceServer is the daemon's side of a device.
type deviceServer struct {
	device *device
	spec   frontend.Spec
	nbd    *nbd.Server
	end    context.CancelFunc
	life   <-chan struct{}
	loops  sync.WaitGroup

	mu      sync.Mutex
	conn    *nbd.Conn
	closing bool
}

func newMachine(t *testing.T) *machine {
	m := &machine{t: t, devices: map[frontend.Identity]*device{}}
	t.Cleanup(func() {
		for _, d := range m.all() {
			d.end()
		}
	})
	return m
}

func (m *machine) all() []*device {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []*device
	for _, d := range m.devices {
		all = append(all, d)
	}
	return all
}

func (m *machine) setRefuse(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refuse = err
}

// the is the device of a volume.
func (m *machine) the(volume block.VolumeID) *device {
	m.t.Helper()
	for _, d := range m.all() {
		if d.id.Volume == volume {
			return d
		}
	}
	m.t.Fatal("the volume has no device")
	return nil
}

func (m *machine) Attach(_ context.Context, spec frontend.Spec) (frontend.Device, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refuse != nil {
		return nil, m.refuse
	}
	if m.devices[spec.Identity()] != nil {
		return nil, block.ErrExists
	}
	d := &device{machine: m, id: spec.Identity()}
	var err error
	d.client, err = nbd.NewResilient(nbd.ResilientConfig{
		ClientConfig: nbd.ClientConfig{Export: "device", MaxInFlight: 64}, Size: spec.Size, Dial: d.dial,
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = d.client.Run(ctx) })
	d.end = func() { cancel(); running.Wait() }
	m.devices[d.id] = d
	n := 0
	for id := range m.devices {
		if id.Volume == d.id.Volume {
			n++
		}
	}
	m.most = max(m.most, n)
	return d.serve(spec)
}

func (m *machine) Adopt(_ context.Context, spec frontend.Spec) (frontend.Device, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refuse != nil {
		return nil, m.refuse
	}
	d := m.devices[spec.Identity()]
	if d == nil {
		return nil, block.ErrNotFound
	}
	return d.serve(spec)
}

func (m *machine) List(context.Context) ([]frontend.Identity, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refuse != nil {
		return nil, m.refuse
	}
	var list []frontend.Identity
	for id := range m.devices {
		list = append(list, id)
	}
	return list, nil
}

func (m *machine) Remove(_ context.Context, id frontend.Identity) error {
	m.mu.Lock()
	removing := m.removing
	m.mu.Unlock()
	if removing != nil {
		removing()
	}
	m.mu.Lock()
	d, refuse := m.devices[id], m.refuse
	if refuse == nil {
		delete(m.devices, id)
	}
	m.mu.Unlock()
	if refuse == nil && d != nil {
		d.end()
	}
	return refuse
}

func (d *device) serve(spec frontend.Spec) (*deviceServer, error) {
	ctx, cancel := context.WithCancel(context.Background())
	s := &deviceServer{device: d, spec: spec, end: cancel, life: ctx.Done()}
	var err error
	if s.nbd, err = nbd.NewServer(nbd.ServerConfig{Exports: s, HoldErrors: true}); err != nil {
		cancel()
		return nil, err
	}
	d.show(spec.Size)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.server = s
	return s, nil
}

// dial connects the client to whoever serves the device.
func (d *device) dial(context.Context) (net.Conn, error) {
	d.mu.Lock()
	s := d.server
	d.mu.Unlock()
	if s == nil {
		return nil, block.ErrUnavailable
	}
	return s.connect()
}

func (s *deviceServer) connect() (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return nil, block.ErrUnavailable
	}
	ours, theirs := net.Pipe()
	s.loops.Go(func() {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		s.loops.Go(func() {
			select {
			case <-s.life:
			case <-ctx.Done():
			}
			cancel()
		})
		conn, err := s.nbd.Negotiate(ctx, ours)
		if err != nil || conn == nil {
			return
		}
		s.mu.Lock()
		old, closing := s.conn, s.closing
		s.mu.Unlock()
		if old != nil && old.Quiesce(ctx) != nil || closing {
			conn.Close()
			return
		}
		s.mu.Lock()
		s.conn = conn
		conn.Grow(s.spec.Size) // it may have been negotiated before the device grew
		closing = s.closing
		s.mu.Unlock()
		if closing {
			conn.Close()
			return
		}
		_ = conn.Serve(ctx)
	})
	return theirs, nil
}

func (s *deviceServer) List(context.Context) []string { return []string{"device"} }

func (s *deviceServer) Open(context.Context, string) (nbd.Export, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return deviceExport{Backend: s.spec.Backend, info: s.spec.Export()}, nil
}

type deviceExport struct {
	nbd.Backend
	info nbd.ExportInfo
}

func (e deviceExport) Info() nbd.ExportInfo { return e.info }
func (e deviceExport) Close() error         { return nil }

func (s *deviceServer) Path() string { return "/dev/" + s.device.id.Attachment.Short() }

// Resize is refused as long as the machine refuses.
func (s *deviceServer) Resize(_ context.Context, size int64) error {
	m := s.device.machine
	m.mu.Lock()
	refuse := m.refuse
	m.mu.Unlock()
	if refuse != nil {
		return refuse
	}
	s.mu.Lock()
	s.spec.Size = max(s.spec.Size, size)
	if s.conn != nil {
		s.conn.Grow(size)
	}
	s.mu.Unlock()
	s.device.show(size)
	return nil
}

func (s *deviceServer) Close(ctx context.Context) error {
	s.device.mu.Lock()
	if s.device.server == s {
		s.device.server = nil
	}
	s.device.mu.Unlock()
	s.mu.Lock()
	s.closing = true
	conn := s.conn
	s.mu.Unlock()
	var err error
	if conn != nil {
		err = conn.Quiesce(ctx)
		conn.Close()
	}
	s.end()
	s.loops.Wait()
	return err
}

func (s *deviceServer) Detach(ctx context.Context) error {
	if err := s.device.machine.Remove(ctx, s.device.id); err != nil {
		return err
	}
	return s.Close(ctx)
}

// daemon is a host on the first node of a world, as a daemon runs it.
type daemon struct {
	*Host
	stop func() error
}

func (w *world) startDaemon(m *machine, change ...func(*HostConfig)) *daemon {
	w.t.Helper()
	n := w.nodes[0]
	config := HostConfig{
		Node: n.id, Cluster: w.id, Timing: testTiming(), Limits: core.Limits{}.Default(),
		Truth: nodeTruth{w.truth, n.id}, Dialer: n, Devices: m, Clock: clock.System{}, Logger: w.log,
	}
	for _, c := range change {
		c(&config)
	}
	host, err := NewHost(config)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	var running sync.WaitGroup
	running.Go(func() { ended <- host.Run(ctx) })
	d := &daemon{Host: host}
	d.stop = sync.OnceValue(func() error {
		cancel()
		running.Wait()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	})
	w.t.Cleanup(func() {
		if err := d.stop(); err != nil {
			w.t.Error(err)
		}
	})
	return d
}
