package robustness

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
	"github.com/holdfast-io/holdfast/internal/nbd/nbdtest"
	"github.com/holdfast-io/holdfast/test/harness"
)

// smallLayout is that of a volume in memory.
func smallLayout() layout {
	return layout{size: 2 * mebibyte, cool: block.Span{Offset: mebibyte, Length: mebibyte / 2}}
}

// faulty is a disk in memory that does wrong what it is told to.
type faulty struct {
	*nbdtest.Disk
	requests atomic.Int64
	// every so many requests one may go wrong.
	every int64
	wrong func(f *faulty, r *nbd.Request) bool
}

// Submit implements nbd.Backend.
func (f *faulty) Submit(r *nbd.Request) {
	if f.wrong != nil && f.requests.Add(1)%f.every == 0 && f.wrong(f, r) {
		return
	}
	f.Disk.Submit(r)
}

// disks are what a load must notice, and one with which all is well.
var disks = map[string]struct {
	every int64
	wrong func(*faulty, *nbd.Request) bool
	found error
}{
	"honest": {},
	"loses writes": {every: 20, wrong: func(_ *faulty, r *nbd.Request) bool {
		if r.Kind == nbd.KindWrite {
			r.Complete(nil, nil)
		}
		return r.Kind == nbd.KindWrite
	}, found: errLost},
	"loses trims": {every: 1, wrong: func(_ *faulty, r *nbd.Request) bool {
		if r.Kind == nbd.KindTrim || r.Kind == nbd.KindZero {
			r.Complete(nil, nil)
			return true
		}
		return false
	}, found: errLost},
	"reads another place": {every: 20, wrong: func(f *faulty, r *nbd.Request) bool {
		if r.Kind != nbd.KindRead {
			return false
		}
		buf := block.NewBuffer(int(r.Length))
		_, err := f.Storage().ReadAt(buf.Data, (r.Offset+clusterStep)%(smallLayout().size-r.Length))
		r.Complete(err, buf)
		return true
	}, found: block.ErrCorrupt},
	"writes half": {every: 20, wrong: func(f *faulty, r *nbd.Request) bool {
		if r.Kind != nbd.KindWrite {
			return false
		}
		_, err := f.Storage().WriteAt(r.Buf.Data[:r.Length/2], r.Offset)
		r.Complete(err, nil)
		return true
	}, found: errLost},
	"fails": {every: 20, wrong: func(_ *faulty, r *nbd.Request) bool {
		r.Complete(block.ErrIO, nil)
		return true
	}, found: errRefused},
}

// TestLoadNotices runs the load on each of the disks.
func TestLoadNotices(t *testing.T) {
	for name, d := range disks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := &faulty{Disk: nbdtest.NewMemory(nbdtest.Info("", smallLayout().size, block.BlockSize)), every: d.every, wrong: d.wrong}
			err := runOn(t, disk)
			if d.found == nil && err != nil || !errors.Is(err, d.found) {
				t.Errorf("found %v, want %v", err, d.found)
			}
		})
	}
}

// runOn lets a load work on an export until it has seen enough, with connections
// that break, and returns what it finds.
func runOn(t *testing.T, export nbd.Export) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	server, err := nbd.NewServer(nbd.ServerConfig{Exports: nbdtest.Exports{"": export}, HoldErrors: false})
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	defer served.Wait()
	l := startLoad(ctx, 1, smallLayout())
	l.use(func(context.Context) (net.Conn, error) {
		// Nothing of an old connection is carried out once a new one is served.
		served.Wait()
		near, far, err := nbdtest.SocketPair()
		if err != nil {
			return nil, err
		}
		served.Go(func() {
			conn, err := server.Negotiate(ctx, far)
			if err == nil {
				_ = conn.Serve(ctx) // it ends with the client
				_ = conn.Quiesce(ctx)
			}
		})
		return near, nil
	})
	for _, writes := range []int{300, 600} {
		err := harness.Wait(ctx, "writes", func(context.Context) error {
			if l.history.acknowledgedWrites() < writes && l.failure() == nil {
				return errors.New("too few")
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		l.drop(nil)
	}
	if err := l.hold(ctx); err != nil {
		t.Error(err)
	}
	_, readErr := l.readAll(ctx, writers)
	err = l.stop()
	if err != nil {
		return err
	}
	if readErr != nil {
		return readErr
	}
	_, err = l.history.check()
	return err
}
