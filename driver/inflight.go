package driver

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// yieldTimeout bounds the wait for work that gives way.
const yieldTimeout = 2 * time.Second

// inFlight remembers for which volumes and snapshots something is running: a call, or
// work that gives way to calls. It is bounded by the number of those.
type inFlight struct {
	mu   sync.Mutex
	keys map[string]*flight
}

// flight is what keeps a key busy.
type flight struct {
	// yield ends work that gives way, whose end is then seen by done. It is nil for a
	// call.
	yield context.CancelFunc
	done  chan struct{}
}

func newInFlight() *inFlight { return &inFlight{keys: make(map[string]*flight)} }

// begin marks keys as busy for a call until done is called. It is ABORTED if one of
// them is busy with another call already. Work that gives way is ended, and waited for
// a little: what hangs in frozen I/O ends with that.
func (f *inFlight) begin(keys ...string) (done func(), err error) {
	call := &flight{}
	ended, err := f.take(call, keys)
	if err != nil {
		return nil, err
	}
	timeout := time.NewTimer(yieldTimeout)
	defer timeout.Stop()
	for _, work := range ended {
		select {
		case <-work.done:
		case <-timeout.C:
		}
	}
	return func() { f.release(call, keys) }, nil
}

// beginYielding marks a key as busy for work that ends soon after the context that is
// returned. It is ABORTED if the key is busy.
func (f *inFlight) beginYielding(ctx context.Context, key string) (context.Context, func(), error) {
	ctx, cancel := context.WithCancel(ctx)
	work := &flight{yield: cancel, done: make(chan struct{})}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, busy := f.keys[key]; busy {
		cancel()
		return nil, nil, aborted(key)
	}
	f.keys[key] = work
	return ctx, func() {
		cancel()
		close(work.done)
		f.release(work, []string{key})
	}, nil
}

// take gives keys to a call, all or none, and returns the work that has to give way.
func (f *inFlight) take(call *flight, keys []string) (ended []*flight, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, key := range keys {
		if running, busy := f.keys[key]; busy && running.yield == nil {
			return nil, aborted(key)
		}
	}
	for _, key := range keys {
		if work, busy := f.keys[key]; busy {
			work.yield()
			ended = append(ended, work)
		}
		f.keys[key] = call
	}
	return ended, nil
}

// release frees those of the keys that still are the holder's.
func (f *inFlight) release(holder *flight, keys []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, key := range keys {
		if f.keys[key] == holder {
			delete(f.keys, key)
		}
	}
}

func aborted(key string) error {
	return status.Errorf(codes.Aborted, "another call for %q is still running", key)
}
