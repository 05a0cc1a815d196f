package sim

import (
	"errors"
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/replica/store"
)

// compare verifies that all in-sync replicas of each volume hold the same bytes,
// read through their stores, and that these are what the clients' history
// allows.
func (w *World) compare() {
	for _, n := range w.nodes {
		w.checkStore(n)
	}
	for _, v := range w.volumes {
		view := w.truth.view(v.id)
		ids := w.members(&view)
		used := v.used()
		for offset := int64(0); offset < v.size && w.violation == nil; offset += block.ExtentSize {
			if used[offset] || offset%block.RegionSize == 0 {
				w.compareExtent(v, ids, offset)
			}
		}
		if w.violation == nil {
			w.compareCuts(v)
		}
	}
}

// used has the offset of each extent in which somebody may have written.
func (v *volume) used() map[int64]bool {
	extents := make(map[int64]bool)
	for _, a := range v.areas {
		for offset := a.offset - a.offset%block.ExtentSize; offset < a.offset+a.length; offset += block.ExtentSize {
			extents[offset] = true
		}
	}
	for sector := range v.history.sectors {
		offset := int64(sector) * block.SectorSize
		extents[offset-offset%block.ExtentSize] = true
	}
	return extents
}

func (w *World) compareExtent(v *volume, ids []block.ReplicaID, offset int64) {
	var first []byte
	for i, id := range ids {
		data, err := w.readReplica(id, block.SnapshotID{}, offset, min(block.ExtentSize, v.size-offset))
		if err != nil {
			if w.rotten && errors.Is(err, block.ErrChecksum) {
				return
			}
			w.fail("equal-replicas", fmt.Sprintf("read %s at %d: %v", w.replicaName(id), offset, err))
			return
		}
		if i == 0 {
			first = data
			w.compareHistory(v, offset, data)
		} else if text := w.difference(v, offset, first, data, ids[0], id); text != "" {
			w.fail("equal-replicas", text)
			return
		}
	}
}

// compareHistory holds the bytes against what the sectors may show.
func (w *World) compareHistory(v *volume, offset int64, data []byte) {
	for i := 0; i < len(data); i += block.SectorSize {
		sector := uint64(offset+int64(i)) / block.SectorSize
		got, err := sectorValue(data[i:i+block.SectorSize], v.tag, sector)
		if err != nil && v.acceptable[sector] {
			continue
		}
		if err != nil {
			w.fail("payload", fmt.Sprintf("%s: %v", v.name, err))
			return
		}
		r := v.history.sectors[sector]
		if r != nil && (r.gaveUp || len(r.queue) > 0) {
			continue
		}
		if allowed := v.history.possible(sector); !contains(allowed, got) && !(allowed == nil && got == 0) {
			w.fail("linearizable", fmt.Sprintf("%s: after all, sector %d holds %d, possible are %v", v.name, sector, got,
				allowed))
			return
		}
	}
}

func contains(list []value, v value) bool {
	for _, x := range list {
		if x == v {
			return true
		}
	}
	return false
}

// difference describes the first sector that two replicas must not hold
// differently; empty if there is none.
func (w *World) difference(v *volume, offset int64, a, b []byte, x, y block.ReplicaID) string {
	for i := 0; i < len(a); i += block.SectorSize {
		sector := uint64(offset+int64(i)) / block.SectorSize
		if string(a[i:i+block.SectorSize]) == string(b[i:i+block.SectorSize]) || v.acceptable[sector] {
			continue
		}
		p, q := headerValue(a[i:i+block.SectorSize]), headerValue(b[i:i+block.SectorSize])
		return fmt.Sprintf("sector %d is %d on %s and %d on %s", sector, p, w.replicaName(x), q, w.replicaName(y))
	}
	return ""
}

// readReplica reads a part of a replica's head, or of a cut, through its store, past
// its door.
func (w *World) readReplica(id block.ReplicaID, snapshot block.SnapshotID, offset, length int64) ([]byte, error) {
	r, err := w.nodeOf(id).storage.store.Replica(id)
	if err != nil {
		return nil, err
	}
	buf := block.NewBuffer(int(length))
	defer buf.Release()
	done := false
	op := &store.Op{Kind: store.Read, Offset: offset, Length: length, Buf: buf, Snapshot: snapshot}
	op.Done = func(*store.Op) { done = true }
	r.Submit(op)
	w.advance(func() bool { return done })
	if op.Err != nil {
		return nil, op.Err
	}
	return append([]byte(nil), buf.Data...), nil
}
