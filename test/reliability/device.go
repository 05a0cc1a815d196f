package main

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/internal/nbd"
)

const (
	// reconnectPause is how long to wait before another attempt to connect.
	reconnectPause = 5 * time.Millisecond
	connectLimit   = 5 * time.Second
	inFlightMax    = 64
)

// dialer reaches a volume where it is attached.
type dialer func(ctx context.Context) (net.Conn, error)

// device is the connection to a volume, made again when it ends and when the volume
// has moved. It is safe for concurrent use.
type device struct {
	mu   sync.Mutex
	dial dialer
	// changed is closed when dial changes.
	changed chan struct{}
	client  *nbd.Client
}

func newDevice() *device { return &device{changed: make(chan struct{})} }

// use takes the volume at another place; nil: it is nowhere.
func (d *device) use(dial dialer) {
	d.mu.Lock()
	old := d.client
	d.dial, d.client = dial, nil
	close(d.changed)
	d.changed = make(chan struct{})
	d.mu.Unlock()
	if old != nil {
		_ = old.Close() // it is of no use any more
	}
}

// lost forgets a connection that has ended.
func (d *device) lost(failed *nbd.Client) {
	d.mu.Lock()
	if d.client == failed {
		d.client = nil
	}
	d.mu.Unlock()
	_ = failed.Close() // it has ended already
}

// get is the connection; it waits until there is one.
func (d *device) get(ctx context.Context) (*nbd.Client, error) {
	for {
		d.mu.Lock()
		client, dial, changed := d.client, d.dial, d.changed
		d.mu.Unlock()
		if client != nil {
			return client, nil
		}
		if dial != nil {
			made, err := connect(ctx, dial)
			if err == nil {
				d.keep(made, changed)
				continue
			}
		}
		timer := time.NewTimer(reconnectPause)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
		timer.Stop()
	}
}

// keep takes a new connection, unless another is there or the volume has moved.
func (d *device) keep(made *nbd.Client, since chan struct{}) {
	d.mu.Lock()
	if d.client == nil && d.changed == since {
		d.client, made = made, nil
	}
	d.mu.Unlock()
	if made != nil {
		_ = made.Close() // nobody has used it
	}
}

func connect(ctx context.Context, dial dialer) (*nbd.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	socket, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	return nbd.Connect(ctx, socket, nbd.ClientConfig{MaxInFlight: inFlightMax})
}
