package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

// manySnapshots has n of them.
func manySnapshots(n int) []block.Snapshot {
	list := make([]block.Snapshot, n)
	for i := range list {
		binary.BigEndian.PutUint64(list[i].ID.ID[:], uint64(i+1))
	}
	return list
}

// TestMostSnapshots: a volume at the bound of its snapshots travels, with a replica
// that has the most cuts, beside dirty sets of the largest size; one more of either
// is not sent, and not taken.
func TestMostSnapshots(t *testing.T) {
	all := block.AllRegions(block.MaxVolumeSize)
	opened := block.Opened{View: sampleView(), Log: all, Cuts: make([]block.Cut, maxCuts)}
	opened.View.Snapshots = manySnapshots(maxSnapshots)
	for i := range 39 {
		opened.Dirty = append(opened.Dirty, block.DirtySet{Replica: block.ReplicaID{ID: sampleID(byte(i))}, Regions: all})
	}
	rep := block.Reply{Op: block.OpOpen, Opened: &opened}
	got, err := readReply(bytes.NewReader(replyFrame(t, &rep)))
	if err != nil {
		t.Fatal(err)
	}
	sameReply(t, got, rep)

	for name, change := range map[string]func(o *block.Opened){
		"snapshots": func(o *block.Opened) { o.View.Snapshots = manySnapshots(maxSnapshots + 1) },
		"cuts":      func(o *block.Opened) { o.Cuts = make([]block.Cut, maxCuts+1) },
	} {
		more := block.Opened{View: sampleView()}
		change(&more)
		if _, err := appendReply(nil, sampleReplica, &block.Reply{Op: block.OpOpen, Opened: &more}); !errors.Is(err, block.ErrProtocol) {
			t.Errorf("%s: sent: %v", name, err)
		}
		if d := (decoder{rest: appendOpened(nil, &more)}); d.opened() == nil || !errors.Is(d.end(), block.ErrProtocol) {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestMostCutsOfAnUpdate(t *testing.T) {
	view := sampleView()
	view.Snapshots = manySnapshots(maxSnapshots + 1)
	for name, u := range map[string]*block.Update{
		"snapshots": {View: &view},
		"cuts":      {Cuts: make([]block.CutRequest, maxCuts+1)},
		"valid":     {ValidCuts: make([]block.SnapshotID, maxCuts+1)},
		"drop":      {DropCuts: make([]block.SnapshotID, maxCuts+1)},
	} {
		if _, err := appendRequest(nil, sampleReplica, &block.Request{Op: block.OpUpdate, Update: u}); !errors.Is(err, block.ErrProtocol) {
			t.Errorf("%s: sent: %v", name, err)
		}
		if d := (decoder{rest: appendUpdate(nil, u)}); d.update() == nil || !errors.Is(d.end(), block.ErrProtocol) {
			t.Errorf("%s: taken", name)
		}
	}
}

// TestCutWithoutAName: what an operation on the head says has one form only.
func TestCutWithoutAName(t *testing.T) {
	req := block.Request{Op: block.OpRead, Length: 512, Snapshot: sampleSnapshot}
	frame := requestFrame(t, &req)
	clear(frame[headerSize:])
	resum(frame)
	if _, err := readRequest(bytes.NewReader(frame)); !errors.Is(err, block.ErrProtocol) {
		t.Fatal(err)
	}
	req = block.Request{Op: block.OpHash, Length: 512, Snapshot: sampleSnapshot, Since: sampleSnapshot}
	frame = requestFrame(t, &req)
	clear(frame[headerSize+idSize:])
	resum(frame)
	if _, err := readRequest(bytes.NewReader(frame)); !errors.Is(err, block.ErrProtocol) {
		t.Fatal(err)
	}
}
