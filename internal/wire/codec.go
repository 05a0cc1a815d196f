package wire

import (
	"encoding/binary"
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Sizes of the parts of metadata, in bytes, and the bounds of their lists.
const (
	idSize          = 16
	fenceSize       = 32
	openSize        = 3*idSize + fenceSize + 8
	incarnationSize = idSize + 16
	flushNumberSize = 16
	confirmedSize   = idSize + flushNumberSize
	memberSize      = 3*idSize + 1 + 8 + incarnationSize
	hashSize        = 36
	dirtySetMinimum = idSize + 8 + 2
	regionPageSize  = 4 + 8*block.RegionPageWords

	maxList   = 64
	maxHashes = block.ExtentsPerRegion
)

// flag bits of metadata.
const (
	memberInSync     = 1
	viewNotWaitedOut = 1
	updateHasView    = 1
	updateKeepHead   = 2
)

func appendU64(b []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(b, v) }

func appendCount(b []byte, n int) []byte { return binary.BigEndian.AppendUint16(b, uint16(n)) }

func appendBool(b []byte, v bool, bit byte) []byte { return append(b, flagBits(v, bit)) }

// flagBits is the bit if v is set.
func flagBits(v bool, bit byte) byte {
	if v {
		return bit
	}
	return 0
}

func appendOpen(b []byte, o *block.Open) []byte {
	b = append(b, o.Cluster.ID[:]...)
	b = append(b, o.Volume.ID[:]...)
	b = append(b, o.Replica.ID[:]...)
	b = appendU64(b, uint64(o.Fence.Incarnation))
	b = appendU64(b, uint64(o.Fence.Generation))
	b = appendU64(b, uint64(o.Fence.Epoch))
	b = appendU64(b, uint64(o.Fence.Session))
	return appendU64(b, uint64(o.Size))
}

func appendIncarnation(b []byte, i block.Incarnation) []byte {
	b = append(b, i.Boot[:]...)
	b = appendU64(b, i.DiskSequence)
	return appendU64(b, i.Superblock)
}

func appendFlushNumber(b []byte, f block.FlushNumber) []byte {
	b = appendU64(b, uint64(f.Epoch))
	return appendU64(b, f.N)
}

func appendConfirmed(b []byte, list []block.Confirmed) []byte {
	b = appendCount(b, len(list))
	for _, c := range list {
		b = append(b, c.Replica.ID[:]...)
		b = appendFlushNumber(b, c.Flush)
	}
	return b
}

func appendRegions(b []byte, s block.Regions) []byte {
	b = appendCount(b, len(s))
	for i := range s {
		b = binary.BigEndian.AppendUint32(b, s[i].Number)
		for _, w := range s[i].Words {
			b = appendU64(b, w)
		}
	}
	return b
}

func appendDirtySets(b []byte, sets []block.DirtySet) []byte {
	b = appendCount(b, len(sets))
	for i := range sets {
		b = append(b, sets[i].Replica.ID[:]...)
		b = appendU64(b, uint64(sets[i].Removal))
		b = appendRegions(b, sets[i].Regions)
	}
	return b
}

func appendView(b []byte, v *block.View) []byte {
	b = append(b, v.Volume.ID[:]...)
	b = appendU64(b, uint64(v.Generation))
	b = appendU64(b, uint64(v.Cluster))
	b = append(b, v.Attachment.ID[:]...)
	b = append(b, v.Owner.ID[:]...)
	b = append(b, v.Start.ID[:]...)
	b = appendU64(b, uint64(v.Epoch))
	b = appendU64(b, uint64(v.Revision))
	b = appendU64(b, uint64(v.Size))
	b = appendBool(b, v.NotWaitedOut, viewNotWaitedOut)
	b = appendCount(b, len(v.Replicas))
	for i := range v.Replicas {
		m := &v.Replicas[i]
		b = append(b, m.ID.ID[:]...)
		b = append(b, m.Node.ID[:]...)
		b = append(b, m.Disk.ID[:]...)
		b = appendBool(b, m.InSync, memberInSync)
		b = appendU64(b, uint64(m.Removed))
		b = appendIncarnation(b, m.Incarnation)
	}
	return appendSnapshots(b, v.Snapshots)
}

func appendOpened(b []byte, o *block.Opened) []byte {
	b = appendIncarnation(b, o.Incarnation)
	b = appendView(b, &o.View)
	b = appendRegions(b, o.Log)
	b = appendDirtySets(b, o.Dirty)
	b = appendFlushNumber(b, o.Flush)
	b = appendConfirmed(b, o.Confirmed)
	b = appendCuts(b, o.Cuts)
	b = appendU64(b, uint64(o.Size))
	return appendU64(b, uint64(o.Free))
}

func appendUpdate(b []byte, u *block.Update) []byte {
	b = append(b, flagBits(u.View != nil, updateHasView)|flagBits(u.KeepHead, updateKeepHead))
	if u.View != nil {
		b = appendView(b, u.View)
	}
	b = appendDirtySets(b, u.SetDirty)
	b = appendDirtySets(b, u.AddDirty)
	b = appendDirtySets(b, u.ClearDirty)
	b = appendCount(b, len(u.DropDirty))
	for _, id := range u.DropDirty {
		b = append(b, id.ID[:]...)
	}
	b = appendRegions(b, u.ClearLog)
	return appendCutChanges(b, u)
}

func appendHashes(b []byte, list []block.ExtentHash) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(list)))
	for i := range list {
		b = append(b, list[i].Sum[:]...)
		b = binary.BigEndian.AppendUint16(b, list[i].Bad)
		b = binary.BigEndian.AppendUint16(b, list[i].Suspect)
	}
	return b
}

// decoder takes metadata apart. The first thing that is wrong sticks; after it
// everything reads as zero.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("metadata: %s: %w", what, block.ErrProtocol)
	}
	d.rest = nil
}

// end is the result: metadata must have been used up.
func (d *decoder) end() error {
	if d.err == nil && len(d.rest) > 0 {
		d.fail("more than its parts")
	}
	return d.err
}

func (d *decoder) take(n int) []byte {
	if len(d.rest) < n {
		d.fail("less than its parts")
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) u16() uint16 {
	if b := d.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (d *decoder) u32() uint32 {
	if b := d.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if b := d.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) id() (id block.ID) {
	copy(id[:], d.take(idSize))
	return id
}

// flags reads a byte in which only the known bits may be set.
func (d *decoder) flags(known byte) byte {
	b := d.take(1)
	if b == nil {
		return 0
	}
	if b[0]&^known != 0 {
		d.fail("an unknown flag")
	}
	return b[0]
}

// bit reads a byte in which only that bit may be set.
func (d *decoder) bit(bit byte) bool { return d.flags(bit) == bit }

// count reads the length of a list of elements of at least size bytes, so that
// it is bounded by what has arrived.
func (d *decoder) count(size int) int { return d.countTo(maxList, size) }

// countTo is count for a list of at most most elements.
func (d *decoder) countTo(most, size int) int {
	n := int(d.u16())
	if n > most || n*size > len(d.rest) {
		d.fail("a list too long")
		return 0
	}
	return n
}

func (d *decoder) open() *block.Open {
	return &block.Open{
		Cluster: block.ClusterID{ID: d.id()},
		Volume:  block.VolumeID{ID: d.id()},
		Replica: block.ReplicaID{ID: d.id()},
		Fence: block.Fence{
			Incarnation: block.ClusterIncarnation(d.u64()),
			Generation:  block.Generation(d.u64()),
			Epoch:       block.Epoch(d.u64()),
			Session:     block.Session(d.u64()),
		},
		Size: int64(d.u64()),
	}
}

func (d *decoder) incarnation() block.Incarnation {
	return block.Incarnation{Boot: d.id(), DiskSequence: d.u64(), Superblock: d.u64()}
}

func (d *decoder) flushNumber() block.FlushNumber {
	return block.FlushNumber{Epoch: block.Epoch(d.u64()), N: d.u64()}
}

func (d *decoder) confirmed() []block.Confirmed {
	n := d.count(confirmedSize)
	if n == 0 {
		return nil
	}
	list := make([]block.Confirmed, n)
	for i := range list {
		list[i] = block.Confirmed{Replica: block.ReplicaID{ID: d.id()}, Flush: d.flushNumber()}
	}
	return list
}

func (d *decoder) regions() block.Regions {
	n := d.countTo(block.MaxRegionPages, regionPageSize)
	if n == 0 {
		return nil
	}
	s := make(block.Regions, 0, n)
	for range n {
		p := block.RegionPage{Number: d.u32()}
		for i := range p.Words {
			p.Words[i] = d.u64()
		}
		if p.Number >= block.MaxRegionPages || !s.AppendPage(p) {
			d.fail("a page of regions that is empty or not in order")
		}
	}
	return s
}

func (d *decoder) dirtySets() []block.DirtySet {
	n := d.count(dirtySetMinimum)
	if n == 0 {
		return nil
	}
	sets := make([]block.DirtySet, n)
	for i := range sets {
		sets[i] = block.DirtySet{
			Replica: block.ReplicaID{ID: d.id()},
			Removal: block.Revision(d.u64()),
			Regions: d.regions(),
		}
	}
	return sets
}

func (d *decoder) view() block.View {
	v := block.View{
		Volume:       block.VolumeID{ID: d.id()},
		Generation:   block.Generation(d.u64()),
		Cluster:      block.ClusterIncarnation(d.u64()),
		Attachment:   block.AttachmentID{ID: d.id()},
		Owner:        block.NodeID{ID: d.id()},
		Start:        block.StartID{ID: d.id()},
		Epoch:        block.Epoch(d.u64()),
		Revision:     block.Revision(d.u64()),
		Size:         int64(d.u64()),
		NotWaitedOut: d.bit(viewNotWaitedOut),
	}
	if n := d.count(memberSize); n > 0 {
		v.Replicas = make([]block.Member, n)
	}
	for i := range v.Replicas {
		v.Replicas[i] = block.Member{
			ID:          block.ReplicaID{ID: d.id()},
			Node:        block.NodeID{ID: d.id()},
			Disk:        block.DiskID{ID: d.id()},
			InSync:      d.bit(memberInSync),
			Removed:     block.Revision(d.u64()),
			Incarnation: d.incarnation(),
		}
	}
	v.Snapshots = d.snapshots()
	return v
}

func (d *decoder) opened() *block.Opened {
	return &block.Opened{
		Incarnation: d.incarnation(),
		View:        d.view(),
		Log:         d.regions(),
		Dirty:       d.dirtySets(),
		Flush:       d.flushNumber(),
		Confirmed:   d.confirmed(),
		Cuts:        d.cuts(),
		Size:        int64(d.u64()),
		Free:        int64(d.u64()),
	}
}

func (d *decoder) update() *block.Update {
	flags := d.flags(updateHasView | updateKeepHead)
	u := &block.Update{KeepHead: flags&updateKeepHead != 0}
	if flags&updateHasView != 0 {
		v := d.view()
		u.View = &v
	}
	u.SetDirty = d.dirtySets()
	u.AddDirty = d.dirtySets()
	u.ClearDirty = d.dirtySets()
	for range d.count(idSize) {
		u.DropDirty = append(u.DropDirty, block.ReplicaID{ID: d.id()})
	}
	u.ClearLog = d.regions()
	d.cutChanges(u)
	return u
}

func (d *decoder) hashes() []block.ExtentHash {
	n := int(d.u32())
	if n > maxHashes || n*hashSize > len(d.rest) {
		d.fail("hashes that do not fit their count")
		return nil
	}
	list := make([]block.ExtentHash, n)
	for i := range list {
		copy(list[i].Sum[:], d.take(32))
		list[i].Bad = d.u16()
		list[i].Suspect = d.u16()
	}
	return list
}
