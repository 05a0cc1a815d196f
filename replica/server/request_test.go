package server

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/turn"
)

// TestOperations: each operation reaches the store and is answered with what
// belongs to it.
func TestOperations(t *testing.T) {
	b := newBench(t, DefaultLimits())
	c := b.opened(fence(1, 1))
	do := func(req block.Request) block.Reply {
		t.Helper()
		seq := c.send(req)
		b.replica.drain()
		rep := c.answer(seq)
		wantErr(t, rep, nil)
		return rep
	}
	seq := c.write(512, pattern(1024, 7))
	b.replica.drain()
	if rep := c.answer(seq); rep.Err != nil || rep.Free != 12345 {
		t.Fatalf("write: %+v", rep)
	}
	if rep := do(block.Request{Op: block.OpZero, Offset: 1024, Length: testSize - 1024}); rep.Free != 12345 {
		t.Fatalf("zero: %+v", rep)
	}
	rep := do(block.Request{Op: block.OpRead, Length: 2048})
	want := make([]byte, 2048)
	copy(want[512:], pattern(512, 7))
	if rep.Buf == nil || !bytes.Equal(rep.Buf.Data, want) {
		t.Fatal("read something else")
	}
	rep.Buf.Release()
	do(block.Request{Op: block.OpFlush, Flush: block.FlushNumber{Epoch: 1, N: 1}})
	if rep := do(block.Request{Op: block.OpHash, Length: testSize}); len(rep.Hashes) != 4 {
		t.Fatalf("hash: %+v", rep)
	}
	view := block.View{Volume: b.replica.volume, Epoch: 1, Revision: 5}
	do(block.Request{Op: block.OpUpdate, Update: &block.Update{View: &view}})
	if b.replica.view.Revision != 5 {
		t.Fatal("view was not stored")
	}
}

// TestCutsPass: the name of a snapshot reaches the store with each operation that may
// have one, and so do the parts of an update; an open session is told what cuts
// there are, and gets in whatever size the replica has: it may yet have to grow.
func TestCutsPass(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.replica.cuts = []block.Cut{{Snapshot: block.SnapshotID{ID: b.id()}, Epoch: 1, Size: testSize, Valid: true}}
	c := b.connect(fence(2, 1))
	open := c.send(block.Request{Op: block.OpOpen, Open: &block.Open{
		Cluster: b.host.cluster, Volume: b.replica.volume, Replica: b.replica.id, Fence: fence(2, 1), Size: 2 * testSize,
	}})
	b.replica.drain()
	rep := c.answer(open)
	wantErr(t, rep, nil)
	if len(rep.Opened.Cuts) != 1 || rep.Opened.Cuts[0] != b.replica.cuts[0] || rep.Opened.Size != testSize {
		t.Fatalf("opened: %+v", rep.Opened)
	}
	id := b.replica.cuts[0].Snapshot
	update := &block.Update{
		KeepHead: true, Cuts: []block.CutRequest{{Snapshot: id, Epoch: 2}},
		ValidCuts: []block.SnapshotID{id}, DropCuts: []block.SnapshotID{id}, Grow: 2 * testSize,
		ClearLog: block.RegionsOf(0),
	}
	for _, req := range []block.Request{
		{Op: block.OpRead, Length: 512, Snapshot: id},
		{Op: block.OpHash, Length: testSize, Snapshot: id},
		{Op: block.OpChanged, Length: testSize, Snapshot: id},
		{Op: block.OpWrite, Flags: block.FlagResync, Length: block.ExtentSize, Buf: block.NewBuffer(block.ExtentSize), Snapshot: id},
		{Op: block.OpZero, Flags: block.FlagResync, Length: block.ExtentSize, Snapshot: id},
		{Op: block.OpUpdate, Update: update},
	} {
		seq := c.send(req)
		b.replica.drain()
		rep := c.answer(seq)
		wantErr(t, rep, nil)
		rep.Buf.Release()
		if got := b.replica.last; got.Snapshot != req.Snapshot || got.Meta != req.Update {
			t.Errorf("operation %d: %+v", req.Op, got)
		}
	}
}

// TestStoreErrorsPass: the sentinels of the store reach the engine.
func TestStoreErrorsPass(t *testing.T) {
	b := newBench(t, DefaultLimits())
	c := b.opened(fence(1, 1))
	for _, want := range []error{block.ErrNoSpace, block.ErrChecksum, block.ErrDiskFailed} {
		b.replica.fail = fmt.Errorf("store: %w", want)
		write := c.write(0, pattern(512, 1))
		read := c.send(block.Request{Op: block.OpRead, Length: 512})
		b.replica.drain()
		wantErr(t, c.answer(write), want)
		rep := c.answer(read)
		wantErr(t, rep, want)
		if rep.Buf != nil {
			t.Fatal("a failed read has data")
		}
	}
}

// TestBadRequests: each is refused, and none reaches the store.
func TestBadRequests(t *testing.T) {
	b := newBench(t, DefaultLimits())
	c := b.opened(fence(3, 1))
	buf := func(n int) *block.Buffer { return block.NewBuffer(n) }
	beyond := block.RegionsOf(1)
	far := block.RegionsOf(64)
	view := func(change func(*block.View)) *block.Update {
		v := block.View{Volume: b.replica.volume, Epoch: 3}
		change(&v)
		return &block.Update{View: &v}
	}
	set := []block.DirtySet{{Regions: beyond}}
	for name, r := range map[string]struct {
		req  block.Request
		want error
	}{
		"no operation":       {block.Request{}, block.ErrProtocol},
		"unknown operation":  {block.Request{Op: 200}, block.ErrProtocol},
		"unknown flags":      {block.Request{Op: block.OpPing, Flags: 0x80}, block.ErrProtocol},
		"second open":        {block.Request{Op: block.OpOpen}, block.ErrProtocol},
		"empty read":         {block.Request{Op: block.OpRead}, block.ErrInvalid},
		"negative":           {block.Request{Op: block.OpRead, Offset: -512, Length: 512}, block.ErrInvalid},
		"negative length":    {block.Request{Op: block.OpZero, Offset: 512, Length: -512}, block.ErrInvalid},
		"odd offset":         {block.Request{Op: block.OpRead, Offset: 1, Length: 512}, block.ErrInvalid},
		"odd length":         {block.Request{Op: block.OpRead, Length: 513}, block.ErrInvalid},
		"past the end":       {block.Request{Op: block.OpRead, Offset: testSize, Length: 512}, block.ErrInvalid},
		"overflow":           {block.Request{Op: block.OpZero, Offset: 1 << 62, Length: 1 << 62}, block.ErrInvalid},
		"read too long":      {block.Request{Op: block.OpRead, Length: 2 << 20}, block.ErrInvalid},
		"read with data":     {block.Request{Op: block.OpRead, Length: 512, Buf: buf(512)}, block.ErrProtocol},
		"write without data": {block.Request{Op: block.OpWrite, Length: 512}, block.ErrProtocol},
		"write cut short":    {block.Request{Op: block.OpWrite, Length: 1024, Buf: buf(512)}, block.ErrProtocol},
		"write past the end": {block.Request{Op: block.OpWrite, Offset: testSize, Length: 512, Buf: buf(512)}, block.ErrInvalid},
		"hash from a sector": {block.Request{Op: block.OpHash, Offset: 512, Length: 512}, block.ErrInvalid},
		"hash too long":      {block.Request{Op: block.OpHash, Length: 32 << 20}, block.ErrInvalid},
		"changes since when": {block.Request{Op: block.OpChanged, Length: 512}, block.ErrProtocol},
		"changes too long":   {block.Request{Op: block.OpChanged, Length: 2 << 30, Snapshot: block.SnapshotID{ID: block.ID{1}}}, block.ErrInvalid},
		"flush of an epoch to come": {
			block.Request{Op: block.OpFlush, Flush: block.FlushNumber{Epoch: 4}}, block.ErrInvalid},
		"too many confirmed": {
			block.Request{Op: block.OpFlush, Confirmed: make([]block.Confirmed, maxMembers+1)}, block.ErrInvalid},
		"no update":          {block.Request{Op: block.OpUpdate}, block.ErrProtocol},
		"ping with update":   {block.Request{Op: block.OpPing, Update: &block.Update{}}, block.ErrProtocol},
		"view of a stranger": {block.Request{Op: block.OpUpdate, Update: view(func(v *block.View) { v.Volume = block.VolumeID{} })}, block.ErrInvalid},
		"view to come":       {block.Request{Op: block.OpUpdate, Update: view(func(v *block.View) { v.Epoch = 4 })}, block.ErrInvalid},
		"many members": {block.Request{Op: block.OpUpdate, Update: view(func(v *block.View) {
			v.Replicas = make([]block.Member, maxMembers+1)
		})}, block.ErrInvalid},
		"log beyond":   {block.Request{Op: block.OpUpdate, Update: &block.Update{ClearLog: beyond}}, block.ErrInvalid},
		"log far":      {block.Request{Op: block.OpUpdate, Update: &block.Update{ClearLog: far}}, block.ErrInvalid},
		"set beyond":   {block.Request{Op: block.OpUpdate, Update: &block.Update{SetDirty: set}}, block.ErrInvalid},
		"add beyond":   {block.Request{Op: block.OpUpdate, Update: &block.Update{AddDirty: set}}, block.ErrInvalid},
		"clear beyond": {block.Request{Op: block.OpUpdate, Update: &block.Update{ClearDirty: set}}, block.ErrInvalid},
		"many dropped": {block.Request{Op: block.OpUpdate, Update: &block.Update{
			DropDirty: make([]block.ReplicaID, maxMembers+1)}}, block.ErrInvalid},
		"write to a cut": {block.Request{Op: block.OpWrite, Length: 512, Buf: buf(512), Snapshot: block.KeptHead}, block.ErrInvalid},
		"zero of a cut":  {block.Request{Op: block.OpZero, Length: 512, Snapshot: block.KeptHead}, block.ErrInvalid},
		"flush of a cut": {block.Request{Op: block.OpFlush, Snapshot: block.KeptHead}, block.ErrProtocol},
		"cut without name": {block.Request{Op: block.OpUpdate, Update: &block.Update{
			Cuts: make([]block.CutRequest, 1)}}, block.ErrInvalid},
		"cut of the kept head": {block.Request{Op: block.OpUpdate, Update: &block.Update{
			Cuts: []block.CutRequest{{Snapshot: block.KeptHead}}}}, block.ErrInvalid},
		"cut to come": {block.Request{Op: block.OpUpdate, Update: &block.Update{
			Cuts: []block.CutRequest{{Snapshot: block.SnapshotID{ID: b.id()}, Epoch: 4}}}}, block.ErrInvalid},
		"many cuts": {block.Request{Op: block.OpUpdate, Update: &block.Update{
			DropCuts: make([]block.SnapshotID, maxCuts+1)}}, block.ErrInvalid},
		"smaller":  {block.Request{Op: block.OpUpdate, Update: &block.Update{Grow: testSize - 512}}, block.ErrInvalid},
		"odd size": {block.Request{Op: block.OpUpdate, Update: &block.Update{Grow: testSize + 1}}, block.ErrInvalid},
		"endless":  {block.Request{Op: block.OpUpdate, Update: &block.Update{Grow: block.MaxVolumeSize * 2}}, block.ErrInvalid},
		"many sets": {block.Request{Op: block.OpUpdate, Update: &block.Update{
			SetDirty: make([]block.DirtySet, maxMembers+1)}}, block.ErrInvalid},
	} {
		rep := c.answer(c.send(r.req))
		t.Run(name, func(t *testing.T) { wantErr(t, rep, r.want) })
	}
	if b.replica.waiting() != 0 {
		t.Fatal("a bad request reached the store")
	}
}

// FuzzHandle sends whatever it likes to an open session: each request is
// answered once, and the store is asked only for what is inside the replica.
func FuzzHandle(f *testing.F) {
	f.Add([]byte{byte(block.OpWrite), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1})
	f.Add([]byte{byte(block.OpZero), 0, 0x7f, 0, 0, 0, 0, 0, 0, 0, 0x7f, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) < 19 {
			return
		}
		b := newBench(t, DefaultLimits())
		c := b.opened(fence(1, 1))
		req := block.Request{
			Op: block.Op(in[0]), Flags: block.Flags(in[1]),
			Offset: int64(binary.BigEndian.Uint64(in[2:])), Length: int64(binary.BigEndian.Uint64(in[10:])),
		}
		if in[18]&1 != 0 {
			req.Buf = block.NewBuffer(int(uint16(req.Length)))
		}
		if in[18]&2 != 0 {
			req.Update = &block.Update{ClearLog: block.RegionsOf(block.Region(req.Offset))}
		}
		seq := c.send(req)
		b.replica.drain()
		c.answer(seq)
		if got := len(c.replies); got != 2 {
			t.Fatalf("%d replies", got)
		}
	})
}

func BenchmarkHandle(b *testing.B) {
	bench := newBench(b, DefaultLimits())
	c := bench.opened(fence(1, 1))
	c.session.Close()
	answered := 0
	session := bench.host.Accept(func(block.Reply, *turn.Turn) { answered++ })
	session.Handle(block.Request{Op: block.OpOpen, Epoch: 1, Session: 2, Open: &block.Open{
		Cluster: bench.host.cluster, Volume: bench.replica.volume, Replica: bench.replica.id, Fence: fence(1, 2), Size: testSize,
	}}, nil)
	bench.replica.drain()
	b.ReportAllocs()
	for b.Loop() {
		session.Handle(block.Request{Op: block.OpWrite, Epoch: 1, Session: 2, Length: 4096, Buf: block.NewBuffer(4096)}, nil)
		bench.replica.drain()
	}
	if answered != b.N+1 {
		b.Fatalf("%d answers to %d requests", answered, b.N)
	}
}
