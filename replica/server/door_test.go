package server

import (
	"errors"
	"fmt"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/turn"
	"github.com/holdfast-io/holdfast/replica/store"
)

func wantErr(t *testing.T, rep block.Reply, want error) {
	t.Helper()
	if !errors.Is(rep.Err, want) {
		t.Fatalf("answer to operation %d, sequence %d: %v, want %v", rep.Op, rep.Seq, rep.Err, want)
	}
}

// TestDoorWaitsForOldIO: the answer to a higher fence comes after the old
// session's last operation, and after the fence is durable.
func TestDoorWaitsForOldIO(t *testing.T) {
	for _, newer := range []block.Fence{
		fence(1, 2),
		fence(2, 1),
		{Incarnation: 1, Generation: 2, Epoch: 1, Session: 1},
		{Incarnation: 2, Generation: 1, Epoch: 1, Session: 1},
	} {
		t.Run(fmt.Sprintf("%+v", newer), func(t *testing.T) {
			b := newBench(t, Limits{Running: 2, InFlight: 16})
			old := b.opened(fence(1, 1))
			first := old.write(0, pattern(4096, 1))
			second := old.write(4096, pattern(4096, 2))
			queued := old.write(8192, pattern(4096, 3))

			c := b.connect(newer)
			open := c.open()
			stale := block.ErrStaleEpoch
			if newer.Session == 2 {
				stale = block.ErrStaleSession
			}
			wantErr(t, old.answer(queued), stale)
			late := old.write(12288, pattern(4096, 4))
			wantErr(t, old.answer(late), stale)

			b.replica.step(1)
			c.silent(open)
			b.holds(store.Write)
			b.replica.step(0)
			c.silent(open)
			b.holds(store.Fence)
			b.replica.step(0)
			if rep := c.answer(open); rep.Err != nil || rep.Opened == nil || rep.Opened.Size != testSize {
				t.Fatalf("open: %+v", rep)
			}
			if b.replica.fence != newer {
				t.Fatalf("stored fence %+v", b.replica.fence)
			}
			// What was in the store when the door closed is applied, but no success.
			wantErr(t, old.answer(first), stale)
			wantErr(t, old.answer(second), stale)
			if b.replica.data[0] != 1 || b.replica.data[4096] != 2 || b.replica.data[8192] != 0 || b.replica.data[12288] != 0 {
				t.Fatal("what was dropped was applied, or what ran was not")
			}
			write := c.write(8192, pattern(512, 9))
			b.replica.drain()
			wantErr(t, c.answer(write), nil)
		})
	}
}

func TestDoorRefusesLower(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.opened(block.Fence{Incarnation: 2, Generation: 3, Epoch: 5, Session: 7})
	for _, c := range []struct {
		fence block.Fence
		want  error
	}{
		{block.Fence{Incarnation: 1, Generation: 9, Epoch: 9, Session: 9}, block.ErrStaleEpoch},
		{block.Fence{Incarnation: 2, Generation: 2, Epoch: 9, Session: 9}, block.ErrStaleEpoch},
		{block.Fence{Incarnation: 2, Generation: 3, Epoch: 4, Session: 9}, block.ErrStaleEpoch},
		{block.Fence{Incarnation: 2, Generation: 3, Epoch: 5, Session: 6}, block.ErrStaleSession},
		{block.Fence{Incarnation: 2, Generation: 3, Epoch: 5, Session: 7}, block.ErrStaleSession},
	} {
		cl := b.connect(c.fence)
		wantErr(t, cl.answer(cl.open()), c.want)
		if b.replica.waiting() != 0 {
			t.Fatalf("a refused fence reached the store: %+v", c.fence)
		}
	}
}

// TestDoorRemembersStoredFence: a host that starts anew begins with the fence
// found on the disk.
func TestDoorRemembersStoredFence(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.opened(fence(5, 1))
	again, err := NewHost(b.host.cluster, DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	if err := again.AddDisk(b.disk); err != nil {
		t.Fatal(err)
	}
	b.host = again
	c := b.connect(fence(4, 9))
	wantErr(t, c.answer(c.open()), block.ErrStaleEpoch)
	b.opened(fence(5, 2))
}

// TestDoorSuperseded: a newer fence overtakes one that is not yet answered, at
// each of its steps.
func TestDoorSuperseded(t *testing.T) {
	t.Run("draining", func(t *testing.T) {
		b := newBench(t, DefaultLimits())
		old := b.opened(fence(1, 1))
		old.write(0, pattern(512, 1))
		second := b.connect(fence(2, 1))
		open2 := second.open()
		third := b.connect(fence(3, 1))
		open3 := third.open()
		wantErr(t, second.answer(open2), block.ErrStaleEpoch)
		b.replica.drain()
		wantErr(t, third.answer(open3), nil)
	})
	t.Run("storing", func(t *testing.T) {
		b := newBench(t, DefaultLimits())
		second := b.connect(fence(2, 1))
		open2 := second.open()
		third := b.connect(fence(3, 1))
		open3 := third.open()
		second.silent(open2)
		if b.replica.waiting() != 1 {
			t.Fatal("two fences on their way to the disk")
		}
		b.replica.step(0)
		wantErr(t, second.answer(open2), block.ErrStaleEpoch)
		third.silent(open3)
		b.replica.step(0)
		wantErr(t, third.answer(open3), nil)
		wantErr(t, second.answer(second.write(0, pattern(512, 1))), block.ErrStaleEpoch)
	})
}

// TestDoorFenceNotStored: without a durable fence there is no session, and the
// door stays closed to older ones.
func TestDoorFenceNotStored(t *testing.T) {
	b := newBench(t, DefaultLimits())
	old := b.opened(fence(1, 1))
	b.replica.fail = block.ErrDiskFailed
	c := b.connect(fence(2, 1))
	open := c.open()
	b.replica.drain()
	wantErr(t, c.answer(open), block.ErrDiskFailed)
	wantErr(t, c.answer(c.write(0, pattern(512, 1))), block.ErrProtocol)
	wantErr(t, old.answer(old.write(0, pattern(512, 1))), block.ErrStaleEpoch)
	b.replica.fail = nil
	b.opened(fence(2, 2))
}

// TestReopenAfterClose: the next session of the same engine goes through while
// the closed one's I/O still runs, and is answered after it.
func TestReopenAfterClose(t *testing.T) {
	b := newBench(t, Limits{Running: 1, InFlight: 16})
	lost := b.opened(fence(1, 1))
	running := lost.write(0, pattern(512, 1))
	queued := lost.write(512, pattern(512, 2))
	lost.session.Close()
	lost.session.Close()

	c := b.connect(fence(1, 2))
	open := c.open()
	c.silent(open)
	b.replica.drain()
	wantErr(t, c.answer(open), nil)
	lost.silent(running)
	lost.silent(queued)
	if b.replica.data[0] != 1 || b.replica.data[512] != 0 {
		t.Fatal("a queued write of a closed session was applied")
	}
	lost.write(1024, pattern(512, 3))
	b.replica.drain()
	if b.replica.data[1024] != 0 {
		t.Fatal("a write after Close was applied")
	}
}

// TestCloseWhileOpening: a session that leaves before its answer leaves the
// door fit for the next one.
func TestCloseWhileOpening(t *testing.T) {
	for _, running := range []bool{true, false} {
		b := newBench(t, DefaultLimits())
		old := b.opened(fence(1, 1))
		if running {
			old.write(0, pattern(512, 1))
		}
		gone := b.connect(fence(2, 1))
		open := gone.open()
		gone.session.Close()
		b.replica.drain()
		gone.silent(open)
		wantErr(t, old.answer(old.write(0, pattern(512, 1))), block.ErrStaleEpoch)
		b.opened(fence(2, 2))
	}
}

func TestEveryRequestIsChecked(t *testing.T) {
	b := newBench(t, DefaultLimits())
	c := b.opened(fence(3, 5))
	for _, r := range []struct {
		epoch   block.Epoch
		session block.Session
		want    error
	}{
		{2, 5, block.ErrStaleEpoch},
		{3, 4, block.ErrStaleSession},
		{4, 5, block.ErrProtocol},
		{3, 6, block.ErrProtocol},
	} {
		var got block.Reply
		c.session.Handle(block.Request{Op: block.OpZero, Length: 512, Epoch: r.epoch, Session: r.session, Seq: 99}, nil)
		c.mu.Lock()
		got = c.replies[len(c.replies)-1]
		c.mu.Unlock()
		wantErr(t, got, r.want)
		if got.Epoch != r.epoch || got.Session != r.session || got.Seq != 99 {
			t.Fatalf("reply %+v", got)
		}
	}
	if b.replica.waiting() != 0 {
		t.Fatal("a refused request reached the store")
	}
}

// TestPingKeepsOrder: a ping is answered when its turn comes, not before.
func TestPingKeepsOrder(t *testing.T) {
	b := newBench(t, Limits{Running: 1, InFlight: 16})
	c := b.opened(fence(1, 1))
	c.write(0, pattern(512, 1))
	c.write(512, pattern(512, 2))
	ping := c.send(block.Request{Op: block.OpPing})
	c.silent(ping)
	b.replica.step(0)
	c.silent(ping)
	b.replica.step(0)
	if rep := c.answer(ping); rep.Err != nil || rep.Free != 12345 {
		t.Fatalf("ping: %+v", rep)
	}
}

// TestReplyMaySendAgain: a reply function that sends from within does not block
// or lose anything.
func TestReplyMaySendAgain(t *testing.T) {
	b := newBench(t, Limits{Running: 1, InFlight: 4})
	left := 100
	c := b.connect(fence(1, 1))
	c.session = b.host.Accept(func(rep block.Reply, _ *turn.Turn) {
		if rep.Err != nil {
			t.Errorf("reply: %v", rep.Err)
		}
		if left > 0 {
			left--
			c.send(block.Request{Op: block.OpPing})
		}
	})
	c.open()
	b.replica.drain()
	if left != 0 {
		t.Fatalf("%d pings were not answered", left)
	}
}

func TestInFlightIsBounded(t *testing.T) {
	b := newBench(t, Limits{Running: 2, InFlight: 4})
	c := b.opened(fence(1, 1))
	for range 4 {
		c.silent(c.write(0, pattern(512, 1)))
	}
	if b.replica.waiting() != 2 {
		t.Fatalf("%d operations run", b.replica.waiting())
	}
	wantErr(t, c.answer(c.write(0, pattern(512, 1))), block.ErrProtocol)
	b.replica.drain()
	seq := c.write(0, pattern(512, 1))
	b.replica.drain()
	wantErr(t, c.answer(seq), nil)
}
