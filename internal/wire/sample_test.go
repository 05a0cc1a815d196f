package wire

import (
	"bytes"
	"fmt"
	"io"
	"reflect"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

// sampleID is an ID that can be recognised in a dump.
func sampleID(b byte) block.ID {
	var id block.ID
	for i := range id {
		id[i] = b
	}
	return id
}

var (
	sampleReplica  = block.ReplicaID{ID: sampleID(0x11)}
	sampleSnapshot = block.SnapshotID{ID: sampleID(0xaa)}
)

func sampleView() block.View {
	return block.View{
		Volume: block.VolumeID{ID: sampleID(0x22)}, Generation: 3, Cluster: 4,
		Attachment: block.AttachmentID{ID: sampleID(0x33)}, Owner: block.NodeID{ID: sampleID(0x44)},
		Start: block.StartID{ID: sampleID(0x55)}, Epoch: 5, Revision: 6, Size: 7 << 30, NotWaitedOut: true,
		Replicas: []block.Member{
			{ID: sampleReplica, Node: block.NodeID{ID: sampleID(0x66)}, Disk: block.DiskID{ID: sampleID(0x77)}, InSync: true,
				Incarnation: block.Incarnation{Boot: sampleID(0x88), DiskSequence: 8, Superblock: 9}},
			{ID: block.ReplicaID{ID: sampleID(0x12)}, Node: block.NodeID{ID: sampleID(0x67)}, Removed: 10},
		},
		Snapshots: []block.Snapshot{{ID: sampleSnapshot, Size: 6 << 30, Created: 1_700_000_000_000}},
	}
}

func sampleDirty() []block.DirtySet {
	return []block.DirtySet{
		{Replica: block.ReplicaID{ID: sampleID(0x12)}, Removal: 11, Regions: block.RegionsOf(0, 127, block.RegionsPerPage)},
		{Replica: block.ReplicaID{ID: sampleID(0x13)}, Removal: 12},
	}
}

func sampleBuffer(n int) *block.Buffer {
	buf := block.NewBuffer(n)
	for i := range buf.Data {
		buf.Data[i] = byte(i)
	}
	return buf
}

type requestSample struct {
	name string
	req  block.Request
}

func requestSamples() []requestSample {
	view := sampleView()
	base := block.Request{Epoch: 5, Session: 2, Seq: 0x0102030405060708}
	with := func(op block.Op, change func(*block.Request)) block.Request {
		req := base
		req.Op = op
		change(&req)
		return req
	}
	return []requestSample{
		{"open", with(block.OpOpen, func(r *block.Request) {
			r.Open = &block.Open{
				Cluster: block.ClusterID{ID: sampleID(0x99)}, Volume: block.VolumeID{ID: sampleID(0x22)}, Replica: sampleReplica,
				Fence: block.Fence{Incarnation: 1, Generation: 3, Epoch: 5, Session: 2}, Size: 7 << 30,
			}
		})},
		{"read", with(block.OpRead, func(r *block.Request) { r.Offset, r.Length, r.Flags = 1<<20, 4096, block.FlagAcceptSuspect })},
		{"write", with(block.OpWrite, func(r *block.Request) {
			r.Offset, r.Length, r.Flags, r.Buf = 512, 1024, block.FlagResync, sampleBuffer(1024)
		})},
		{"zero", with(block.OpZero, func(r *block.Request) { r.Offset, r.Length = 1<<30, 1<<31 })},
		{"flush", with(block.OpFlush, func(r *block.Request) {
			r.Flush = block.FlushNumber{Epoch: 5, N: 100}
			r.Confirmed = []block.Confirmed{{Replica: sampleReplica, Flush: block.FlushNumber{Epoch: 4, N: 99}}}
		})},
		{"ping", with(block.OpPing, func(*block.Request) {})},
		{"update", with(block.OpUpdate, func(r *block.Request) {
			r.Update = &block.Update{
				View: &view, SetDirty: sampleDirty(), AddDirty: sampleDirty()[:1], ClearDirty: sampleDirty()[1:],
				DropDirty: []block.ReplicaID{{ID: sampleID(0x14)}}, ClearLog: block.RegionsOf(64, 65, 66),
			}
		})},
		{"update-cuts", with(block.OpUpdate, func(r *block.Request) {
			r.Update = &block.Update{
				KeepHead: true, Grow: 9 << 30,
				Cuts:      []block.CutRequest{{Snapshot: sampleSnapshot, Epoch: 5}, {Snapshot: block.SnapshotID{ID: sampleID(0xab)}, Epoch: 5, Target: true}},
				ValidCuts: []block.SnapshotID{{ID: sampleID(0xac)}}, DropCuts: []block.SnapshotID{block.KeptHead},
			}
		})},
		{"update-empty", with(block.OpUpdate, func(r *block.Request) { r.Update = &block.Update{} })},
		{"read-cut", with(block.OpRead, func(r *block.Request) { r.Offset, r.Length, r.Snapshot = 1<<20, 4096, sampleSnapshot })},
		{"write-cut", with(block.OpWrite, func(r *block.Request) {
			r.Length, r.Flags, r.Snapshot, r.Buf = 512, block.FlagResync, sampleSnapshot, sampleBuffer(512)
		})},
		{"zero-cut", with(block.OpZero, func(r *block.Request) { r.Length, r.Flags, r.Snapshot = 1<<16, block.FlagResync, sampleSnapshot })},
		{"hash-cut", with(block.OpHash, func(r *block.Request) { r.Offset, r.Length, r.Snapshot = 1<<20, 1<<20, sampleSnapshot })},
		{"hash-since", with(block.OpHash, func(r *block.Request) {
			r.Length, r.Snapshot, r.Since = 1<<16, sampleSnapshot, block.SnapshotID{ID: sampleID(0xab)}
		})},
		{"hash-head-since", with(block.OpHash, func(r *block.Request) { r.Length, r.Since = 1<<16, sampleSnapshot })},
		{"repair-cut", with(block.OpWrite, func(r *block.Request) {
			r.Length, r.Flags, r.Snapshot, r.Buf = 4096, block.FlagResync|block.FlagRepair, sampleSnapshot, sampleBuffer(4096)
		})},
		{"hash", with(block.OpHash, func(r *block.Request) { r.Offset, r.Length = 1<<20, 1<<20 })},
		{"changed", with(block.OpChanged, func(r *block.Request) { r.Offset, r.Length, r.Snapshot = 1<<30, 1<<30, sampleSnapshot })},
	}
}

type replySample struct {
	name string
	rep  block.Reply
}

func replySamples() []replySample {
	base := block.Reply{Epoch: 5, Session: 2, Seq: 0x0102030405060708}
	with := func(op block.Op, change func(*block.Reply)) block.Reply {
		rep := base
		rep.Op = op
		change(&rep)
		return rep
	}
	return []replySample{
		{"opened", with(block.OpOpen, func(r *block.Reply) {
			r.Opened = &block.Opened{
				Incarnation: block.Incarnation{Boot: sampleID(0x88), DiskSequence: 8, Superblock: 9},
				View:        sampleView(), Log: block.RegionsOf(0, 2, 65, 66), Dirty: sampleDirty(),
				Flush:     block.FlushNumber{Epoch: 4, N: 44},
				Confirmed: []block.Confirmed{{Replica: sampleReplica, Flush: block.FlushNumber{Epoch: 4, N: 99}}},
				Cuts: []block.Cut{
					{Snapshot: sampleSnapshot, Epoch: 3, Size: 6 << 30, Valid: true}, {Snapshot: block.KeptHead, Size: 7 << 30, Kept: true},
				},
				Size: 7 << 30, Free: 1 << 40,
			}
		})},
		{"read", with(block.OpRead, func(r *block.Reply) { r.Buf = sampleBuffer(512) })},
		{"write", with(block.OpWrite, func(r *block.Reply) { r.Free = 1 << 39 })},
		{"stale", with(block.OpWrite, func(r *block.Reply) {
			r.Err = fmt.Errorf("replica %s: %w", sampleReplica, block.ErrStaleEpoch)
		})},
		{"hashes", with(block.OpHash, func(r *block.Reply) {
			r.Hashes = []block.ExtentHash{{Sum: [32]byte(bytes.Repeat([]byte{0xaa}, 32)), Bad: 3, Suspect: 2}, {}}
		})},
		{"changed", with(block.OpChanged, func(r *block.Reply) { r.Buf = sampleBuffer(2048) })},
		{"hashes-next", with(block.OpHash, func(r *block.Reply) {
			r.Hashes, r.Next = []block.ExtentHash{{Bad: 1}}, sampleSnapshot
		})},
		{"ping", with(block.OpPing, func(r *block.Reply) { r.Free = 1 << 39 })},
	}
}

// requestFrame is a request as it goes over the connection.
func requestFrame(t testing.TB, req *block.Request) []byte {
	t.Helper()
	b, err := appendRequest(nil, sampleReplica, req)
	if err != nil {
		t.Fatal(err)
	}
	if req.Buf != nil {
		b = append(b, req.Buf.Data...)
	}
	return b
}

func replyFrame(t testing.TB, rep *block.Reply) []byte {
	t.Helper()
	b, err := appendReply(nil, sampleReplica, rep)
	if err != nil {
		t.Fatal(err)
	}
	if rep.Buf != nil {
		b = append(b, rep.Buf.Data...)
	}
	return b
}

// readRequest takes one request off a stream.
func readRequest(r io.Reader) (block.Request, error) {
	frames := frameReader{r: r}
	var h header
	meta, buf, err := frames.next(&h, kindRequest)
	if err != nil {
		return block.Request{}, err
	}
	return decodeRequest(&h, meta, buf)
}

func readReply(r io.Reader) (block.Reply, error) {
	frames := frameReader{r: r}
	var h header
	meta, buf, err := frames.next(&h, kindReply)
	if err != nil {
		return block.Reply{}, err
	}
	return decodeReply(&h, meta, buf)
}

// sameRequest compares requests by content.
func sameRequest(t *testing.T, got, want block.Request) {
	t.Helper()
	sameBuffer(t, got.Buf, want.Buf)
	got.Buf, want.Buf = nil, nil
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, want %+v", got, want)
	}
}

func sameReply(t *testing.T, got, want block.Reply) {
	t.Helper()
	sameBuffer(t, got.Buf, want.Buf)
	if statusOf(got.Err) != statusOf(want.Err) || want.Err != nil && got.Err.Error() != want.Err.Error() {
		t.Fatalf("got error %v, want %v", got.Err, want.Err)
	}
	got.Buf, want.Buf, got.Err, want.Err = nil, nil, nil, nil
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, want %+v", got, want)
	}
}

func sameBuffer(t *testing.T, got, want *block.Buffer) {
	t.Helper()
	if (got == nil) != (want == nil) || got != nil && !bytes.Equal(got.Data, want.Data) {
		t.Fatalf("data differ: %v and %v", got, want)
	}
}
