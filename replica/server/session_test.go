package server

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/turn"
	"github.com/holdfast-io/holdfast/internal/wire"
	"github.com/holdfast-io/holdfast/replica/store"
)

// engineEnd is an engine's end of a link, by its replies.
type engineEnd struct {
	replies chan block.Reply
	lost    chan error
}

func newEngineEnd() *engineEnd {
	return &engineEnd{replies: make(chan block.Reply, 4096), lost: make(chan error, 1)}
}

func (e *engineEnd) Receive(rep block.Reply, _ *turn.Turn) { e.replies <- rep }
func (e *engineEnd) Lost(err error)                        { e.lost <- err }

func (e *engineEnd) next(t *testing.T) block.Reply {
	t.Helper()
	select {
	case rep := <-e.replies:
		return rep
	case err := <-e.lost:
		t.Fatalf("link lost: %v", err)
	case <-time.After(10 * time.Second):
		t.Fatal("no reply")
	}
	return block.Reply{}
}

// links makes links to the bench's host: over TCP, and by direct call.
func (b *bench) links(t *testing.T) map[string]func(wire.Receiver) wire.Link {
	addr := listen(t, b.host)
	return map[string]func(wire.Receiver) wire.Link{
		"local": func(recv wire.Receiver) wire.Link { return wire.Local(b.host, recv) },
		"tcp": func(recv wire.Receiver) wire.Link {
			link, err := wire.Dial(context.Background(), wire.DialConfig{Addr: addr, Cluster: b.host.cluster, Replica: b.replica.id}, recv)
			if err != nil {
				t.Fatal(err)
			}
			return link
		},
	}
}

func (b *bench) openRequest(f block.Fence) block.Request {
	return block.Request{Op: block.OpOpen, Epoch: f.Epoch, Session: f.Session, Open: &block.Open{
		Cluster: b.host.cluster, Volume: b.replica.volume, Replica: b.replica.id, Fence: f, Size: testSize,
	}}
}

// TestThroughLinks drives the same session over both kinds of link: open, write,
// read, be replaced, hear it.
func TestThroughLinks(t *testing.T) {
	b, _ := newPromptBench(t, DefaultLimits())
	epoch := block.Epoch(0)
	for name, link := range b.links(t) {
		t.Run(name, func(t *testing.T) {
			epoch++
			end := newEngineEnd()
			l := link(end)
			defer l.Close()
			l.Send(b.openRequest(fence(epoch, 1)), nil)
			if rep := end.next(t); rep.Err != nil || rep.Opened.Size != testSize || rep.Opened.Free != 12345 {
				t.Fatalf("open: %+v", rep)
			}
			buf := block.NewBuffer(4096)
			copy(buf.Data, pattern(4096, byte(epoch)))
			l.Send(block.Request{Op: block.OpWrite, Epoch: epoch, Session: 1, Seq: 1, Length: 4096, Buf: buf}, nil)
			wantErr(t, end.next(t), nil)
			l.Send(block.Request{Op: block.OpRead, Epoch: epoch, Session: 1, Seq: 2, Length: 512}, nil)
			rep := end.next(t)
			if rep.Err != nil || rep.Seq != 2 || len(rep.Buf.Data) != 512 || rep.Buf.Data[100] != byte(epoch) {
				t.Fatalf("read: %+v", rep)
			}
			rep.Buf.Release()

			epoch++
			newer := newEngineEnd()
			n := link(newer)
			defer n.Close()
			n.Send(b.openRequest(fence(epoch, 1)), nil)
			wantErr(t, newer.next(t), nil)
			l.Send(block.Request{Op: block.OpPing, Epoch: epoch - 1, Session: 1, Seq: 3}, nil)
			wantErr(t, end.next(t), block.ErrStaleEpoch)
		})
	}
}

// TestNoOldOperationAfterOpened lets engines replace one another while writes
// are in flight everywhere, and watches the store: after a session was told
// that it is open, nothing of an older one begins or runs.
func TestNoOldOperationAfterOpened(t *testing.T) {
	b, p := newPromptBench(t, Limits{Running: 8, InFlight: 1024})
	links := b.links(t)
	var opened atomic.Int64
	var late atomic.Int64
	p.check = func(op *store.Op) {
		// A write says in its data which epoch sent it.
		if op.Kind == store.Write && int64(op.Buf.Data[0]) < opened.Load() {
			late.Add(1)
		}
	}
	const epochs = 100
	var engines sync.WaitGroup
	for epoch := block.Epoch(1); epoch <= epochs; epoch++ {
		kind := "local"
		if epoch%2 == 0 {
			kind = "tcp"
		}
		end := newEngineEnd()
		l := links[kind](end)
		l.Send(b.openRequest(fence(epoch, 1)), nil)
		rep := end.next(t)
		wantErr(t, rep, nil)
		opened.Store(int64(epoch))
		engines.Go(func() {
			defer l.Close()
			for seq := uint64(1); seq <= 64; seq++ {
				buf := block.NewBuffer(512)
				buf.Data[0] = byte(epoch)
				l.Send(block.Request{Op: block.OpWrite, Epoch: epoch, Session: 1, Seq: seq, Length: 512, Buf: buf}, nil)
			}
			for range 64 {
				if rep := end.next(t); rep.Err != nil && !errors.Is(rep.Err, block.ErrStaleEpoch) {
					t.Errorf("write of epoch %d: %v", epoch, rep.Err)
				}
			}
		})
	}
	engines.Wait()
	if late.Load() != 0 {
		t.Fatalf("%d writes of older sessions after a newer one was open", late.Load())
	}
}
