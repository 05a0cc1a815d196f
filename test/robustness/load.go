package robustness

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
	"github.com/holdfast-io/holdfast/test/harness/stamp"
)

const (
	// writers put requests on the volume at once, each at most every pace.
	writers = 8
	pace    = 8 * time.Millisecond
	// reconnectPause is how long a client waits before it tries to connect again.
	reconnectPause = 20 * time.Millisecond
	connectLimit   = 5 * time.Second
)

// errRefused: a request was answered with an error, where it should have waited.
var errRefused = errors.New("request was answered with an error")

// load is a set of clients of one volume that share its one connection. What they
// ask and are answered goes into a history.
type load struct {
	history *history
	layout  layout
	seed    uint64

	cancel context.CancelFunc
	loops  sync.WaitGroup

	mu sync.Mutex
	// changed is closed when any of the following changes.
	changed chan struct{}
	// dial reaches the volume where it is attached now; nil while it is nowhere.
	dial func(ctx context.Context) (net.Conn, error)
	// link is the connection; nil while there is none.
	link *link
	// connections counts those made so far.
	connections int
	// held: no request begins; running counts those that have not ended.
	held    bool
	running int
	// err is the first thing seen that must never be.
	err error
}

// link is one connection, by its number.
type link struct {
	client *nbd.Client
	number int
}

// startLoad starts clients, which wait until there is a volume to use.
func startLoad(ctx context.Context, seed uint64, where layout) *load {
	ctx, cancel := context.WithCancel(ctx)
	l := &load{history: newHistory(), layout: where, seed: seed, cancel: cancel, changed: make(chan struct{})}
	l.loops.Go(func() { l.keepConnected(ctx) })
	for i := range writers {
		l.loops.Go(func() { l.work(ctx, i) })
	}
	return l
}

// stop ends the clients; requests without an answer stay unknown.
func (l *load) stop() error {
	l.cancel()
	l.drop(nil)
	l.loops.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// update changes the state under the lock and wakes who waits for it.
func (l *load) update(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
	close(l.changed)
	l.changed = make(chan struct{})
}

// await waits until ready, which looks at the state under the lock.
func (l *load) await(ctx context.Context, ready func() bool) error {
	for {
		l.mu.Lock()
		ok, changed := ready(), l.changed
		l.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// use lets the clients use the volume at the place that dial reaches; nil takes it
// away from them. An older connection ends.
func (l *load) use(dial func(ctx context.Context) (net.Conn, error)) {
	l.update(func() { l.dial = dial })
	l.drop(nil)
}

// hold lets no request begin and waits until none is under way.
func (l *load) hold(ctx context.Context) error {
	l.update(func() { l.held = true })
	if err := l.await(ctx, func() bool { return l.running == 0 }); err != nil {
		l.release()
		return fmt.Errorf("wait for the answers to all requests: %w", err)
	}
	return nil
}

// release takes hold back.
func (l *load) release() { l.update(func() { l.held = false }) }

// drop ends a connection that has failed; nil means the present one.
func (l *load) drop(failed *link) {
	var old *link
	l.update(func() {
		if failed == nil || l.link == failed {
			old, l.link = l.link, nil
		}
	})
	if old != nil {
		_ = old.client.Close() // it is of no use any more
	}
}

// broken notes something that must never be.
func (l *load) broken(err error) {
	l.update(func() {
		if l.err == nil {
			l.err = err
		}
	})
}

func (l *load) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// keepConnected connects whenever there is no connection.
func (l *load) keepConnected(ctx context.Context) {
	for {
		if l.await(ctx, func() bool { return l.link == nil && l.dial != nil }) != nil {
			return
		}
		if err := l.connect(ctx); err != nil && !pause(ctx, reconnectPause) {
			return
		}
	}
}

func (l *load) connect(ctx context.Context) error {
	l.mu.Lock()
	dial := l.dial
	l.mu.Unlock()
	if dial == nil {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	socket, err := dial(bounded)
	if err != nil {
		return err
	}
	client, err := nbd.Connect(bounded, socket, nbd.ClientConfig{MaxInFlight: 4 * writers})
	if err != nil {
		return err
	}
	l.update(func() {
		l.connections++
		l.history.connected(l.connections)
		l.link = &link{client: client, number: l.connections}
	})
	if ctx.Err() != nil {
		l.drop(nil)
	}
	return nil
}

// enter waits until a request may begin, and counts it.
func (l *load) enter(ctx context.Context, evenHeld bool) (*link, error) {
	var now *link
	err := l.await(ctx, func() bool {
		if l.link == nil || l.held && !evenHeld {
			return false
		}
		now = l.link
		l.running++
		return true
	})
	return now, err
}

// do carries out one request and notes what became of it. buf is what a write
// sends, stamped here, or where a read goes.
func (l *load) do(ctx context.Context, o op, fua, evenHeld bool, buf []byte) error {
	on, err := l.enter(ctx, evenHeld)
	if err != nil {
		return err
	}
	defer l.update(func() { l.running-- })
	o.connection = on.number
	if o.kind == nbd.KindWrite {
		stamp.Put(buf, o.span.Offset, o.wrote)
	}
	noted := l.history.begin(o)
	switch o.kind {
	case nbd.KindRead:
		_, err = on.client.ReadAt(buf, o.span.Offset)
	case nbd.KindWrite:
		if fua {
			_, err = on.client.WriteDurably(buf, o.span.Offset)
		} else {
			_, err = on.client.WriteAt(buf, o.span.Offset)
		}
	case nbd.KindZero:
		err = on.client.WriteZeroes(o.span)
	case nbd.KindTrim:
		err = on.client.Trim(o.span)
	case nbd.KindFlush:
		err = on.client.Flush()
	}
	if errors.Is(err, block.ErrClosed) {
		l.drop(on)
		return err
	}
	var saw []value
	if err == nil && o.kind == nbd.KindRead {
		if saw, err = stamp.Read(buf, o.span.Offset); err != nil {
			l.broken(fmt.Errorf("client %d reads %d bytes at %d: %w", o.client, o.span.Length, o.span.Offset, err))
			return err
		}
	}
	l.history.answer(noted, saw, err)
	if err != nil {
		l.broken(fmt.Errorf("%w: %s", errRefused, noted))
	}
	return err
}

// work is one client: requests drawn from the seed, one after the other.
func (l *load) work(ctx context.Context, client int) {
	draw := rand.New(rand.NewPCG(l.seed, uint64(client)))
	buf := make([]byte, maxRequest)
	ticker := time.NewTicker(pace)
	defer ticker.Stop()
	for n := uint64(1); ctx.Err() == nil; n++ {
		o, fua := l.layout.draw(draw)
		o.client = client
		if o.kind == nbd.KindWrite {
			o.wrote = valueOf(client, n)
		}
		length := int64(0)
		if o.kind == nbd.KindRead || o.kind == nbd.KindWrite {
			length = o.span.Length
		}
		// What went wrong is in the history, or in broken.
		_ = l.do(ctx, o, fua, false, buf[:length])
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
}

// valueOf is the value of a client's n-th write.
func valueOf(client int, n uint64) value { return value(uint64(client+1)<<48 | n) }

// fill writes all of an area, piece by piece, until done or ctx ends. client tells
// it from others; it must not fill twice.
func (l *load) fill(ctx context.Context, area block.Span, client int) error {
	buf := make([]byte, maxRequest)
	n := uint64(1)
	for at := area.Offset; at < area.End(); n++ {
		length := min(maxRequest, area.End()-at)
		o := op{client: client, kind: nbd.KindWrite, span: block.Span{Offset: at, Length: length}, wrote: valueOf(client, n)}
		err := l.do(ctx, o, false, true, buf[:length])
		if errors.Is(err, block.ErrClosed) && ctx.Err() == nil {
			continue // once more on the next connection, as another write
		}
		if err != nil {
			return fmt.Errorf("fill %d bytes at %d: %w", length, at, err)
		}
		at += length
	}
	return nil
}

// clear trims an area.
func (l *load) clear(ctx context.Context, area block.Span, client int) error {
	for {
		err := l.do(ctx, op{client: client, kind: nbd.KindTrim, span: area}, false, true, nil)
		if err == nil {
			return nil
		}
		if !errors.Is(err, block.ErrClosed) || ctx.Err() != nil {
			return fmt.Errorf("trim %d bytes at %d: %w", area.Length, area.Offset, err)
		}
	}
}

// readAll reads the whole volume, as part of the history.
func (l *load) readAll(ctx context.Context, client int) ([]byte, error) {
	volume := make([]byte, l.layout.size)
	for at := int64(0); at < l.layout.size; {
		length := min(maxRequest, l.layout.size-at)
		o := op{client: client, kind: nbd.KindRead, span: block.Span{Offset: at, Length: length}}
		err := l.do(ctx, o, false, true, volume[at:at+length])
		if errors.Is(err, block.ErrClosed) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read everything: %w", err)
		}
		at += length
	}
	return volume, nil
}

// pause waits for d; false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
