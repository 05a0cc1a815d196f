package store

import (
	"encoding/binary"
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Version is the version of every format of this package. It only moves
// forward, and with it the package comment and the golden files.
const Version = 1

// Geometry of the data file.
const (
	superblockMagic  = "HOLDFAST"
	superblockLength = 84

	flushSlots      = 1016
	firstFlushBlock = 16
	// firstExtent is the first extent for data, in units of block.ExtentSize from
	// the start of the file.
	firstExtent = (firstFlushBlock + 2*flushSlots) / block.BlocksPerExtent
	// maxExtents bounds the extent numbers, which are 32 bits wide.
	maxExtents = 1 << 32
)

// Identity says to whom a store belongs.
type Identity struct {
	Cluster block.ClusterID
	Node    block.NodeID
	Disk    block.DiskID
}

func encodeSuperblock(id Identity) []byte {
	b := make([]byte, 0, superblockLength)
	b = append(b, superblockMagic...)
	b = binary.LittleEndian.AppendUint32(b, Version)
	b = append(b, id.Cluster.ID[:]...)
	b = append(b, id.Node.ID[:]...)
	b = append(b, id.Disk.ID[:]...)
	b = binary.LittleEndian.AppendUint32(b, flushSlots)
	b = binary.LittleEndian.AppendUint32(b, firstFlushBlock)
	b = binary.LittleEndian.AppendUint32(b, firstExtent)
	b = binary.LittleEndian.AppendUint64(b, 0)
	return binary.LittleEndian.AppendUint32(b, checksum(b))
}

func decodeSuperblock(b []byte) (Identity, error) {
	if len(b) < superblockLength {
		return Identity{}, fmt.Errorf("superblock of %d bytes: %w", len(b), block.ErrCorrupt)
	}
	d := decoder{rest: b[:superblockLength]}
	if string(d.take(len(superblockMagic))) != superblockMagic {
		return Identity{}, fmt.Errorf("no superblock at byte 0: %w", block.ErrCorrupt)
	}
	version := d.u32()
	if version != Version {
		return Identity{}, versionError(version)
	}
	var id Identity
	id.Cluster.ID, id.Node.ID, id.Disk.ID = d.id(), d.id(), d.id()
	slots, flushBlock, extent, reserved := d.u32(), d.u32(), d.u32(), d.u64()
	sum := d.u32()
	if d.short || sum != checksum(b[:superblockLength-4]) {
		return Identity{}, fmt.Errorf("superblock at byte 0: checksum: %w", block.ErrCorrupt)
	}
	if slots != flushSlots || flushBlock != firstFlushBlock || extent != firstExtent || reserved != 0 {
		return Identity{}, fmt.Errorf("superblock at byte 0: unknown geometry: %w", block.ErrCorrupt)
	}
	return id, nil
}

func versionError(found uint32) error {
	return fmt.Errorf("store format %d, this build knows %d: run a build that knows format %d, or remove the disk's directory and add it anew: %w",
		found, Version, found, block.ErrVersion)
}

// entryState is one extent of a head map, as in memory and on disk.
type entryState struct {
	// extent is where the blocks lie, 0 for nowhere.
	extent uint32
	// data has bit b set when block b has been written.
	data uint16
	// sums are the checksums of the blocks in data.
	sums [block.BlocksPerExtent]uint32
}

// maxEntryLength is the longest encoding of an entry of this version.
const maxEntryLength = 1 + 8 + 2 + 4*block.BlocksPerExtent

const placementOwned = 1

// appendEntry encodes e; an entry without data is not stored at all.
func appendEntry(b []byte, e *entryState) []byte {
	if e.data == 0 {
		return append(b, 0, 0, 0)
	}
	b = append(b, 1)
	b = binary.LittleEndian.AppendUint16(b, e.data)
	b = append(b, placementOwned)
	base := uint64(e.extent) * block.BlocksPerExtent
	b = append(b, byte(base), byte(base>>8), byte(base>>16), byte(base>>24), byte(base>>32))
	b = binary.LittleEndian.AppendUint16(b, 0)
	for i := range block.BlocksPerExtent {
		if e.data&(1<<i) != 0 {
			b = binary.LittleEndian.AppendUint32(b, e.sums[i])
		}
	}
	return b
}

func decodeEntry(b []byte, e *entryState) error {
	*e = entryState{}
	d := decoder{rest: b}
	switch d.u8() {
	case 0:
	case 1:
		e.data = d.u16()
		flags := d.u8()
		low, high := d.u32(), d.u8()
		base := uint64(low) | uint64(high)<<32
		e.extent = uint32(base / block.BlocksPerExtent)
		if flags != placementOwned || base%block.BlocksPerExtent != 0 || e.data == 0 ||
			base/block.BlocksPerExtent < firstExtent || base/block.BlocksPerExtent >= maxExtents {
			return fmt.Errorf("decode map entry at byte 1: placement: %w", block.ErrCorrupt)
		}
	default:
		return fmt.Errorf("decode map entry at byte 0: placements: %w", block.ErrCorrupt)
	}
	if d.u16() != 0 {
		return fmt.Errorf("decode map entry at byte %d: zero blocks without an older layer: %w", d.at-2, block.ErrCorrupt)
	}
	for i := range block.BlocksPerExtent {
		if e.data&(1<<i) != 0 {
			e.sums[i] = d.u32()
		}
	}
	return d.end("map entry")
}

// Keys of the metadata database, described in the package comment.
const (
	keyIdentity    = 'A'
	keyIncarnation = 'I'
	keyAllocation  = 'B'
	keyDirtySet    = 'D'
	keyDirtyPage   = 'E'
	keyFence       = 'F'
	keyJournal     = 'J'
	keyLog         = 'L'
	keyMap         = 'M'
	keyHandle      = 'N'
	keyReplica     = 'R'
	keyUsed        = 'U'
	keyView        = 'V'
)

// handle is a replica's short name in keys; never reused in a store.
type handle uint32

func handleKey(b []byte, kind byte, h handle) []byte {
	return binary.BigEndian.AppendUint32(append(b, kind), uint32(h))
}

func mapKey(b []byte, h handle, extent uint32) []byte {
	b = handleKey(b, keyMap, h)
	b = binary.BigEndian.AppendUint32(b, headLayer)
	return binary.BigEndian.AppendUint32(b, extent)
}

// headLayer is the layer of the head; older layers will have other numbers.
const headLayer = 0

// splitMapKey is the inverse of mapKey.
func splitMapKey(key []byte) (h handle, extent uint32, err error) {
	if len(key) != 13 || key[0] != keyMap || binary.BigEndian.Uint32(key[5:]) != headLayer {
		return 0, 0, fmt.Errorf("map key %x: %w", key, block.ErrCorrupt)
	}
	return handle(binary.BigEndian.Uint32(key[1:])), binary.BigEndian.Uint32(key[9:]), nil
}

func logPageKey(b []byte, h handle, page uint32) []byte {
	return binary.BigEndian.AppendUint32(handleKey(b, keyLog, h), page)
}

func dirtyKey(b []byte, h handle, replica block.ReplicaID) []byte {
	return append(handleKey(b, keyDirtySet, h), replica.ID[:]...)
}

func dirtyPageKey(b []byte, h handle, replica block.ReplicaID, page uint32) []byte {
	return binary.BigEndian.AppendUint32(append(handleKey(b, keyDirtyPage, h), replica.ID[:]...), page)
}

func replicaKey(b []byte, id block.ReplicaID) []byte {
	return append(append(b, keyReplica), id.ID[:]...)
}

// regionPageWords is the number of words of a region set under one key.
const regionPageWords = 8

func appendRegionPage(b []byte, s block.Regions, page int) []byte {
	for i := page * regionPageWords; i < (page+1)*regionPageWords; i++ {
		var w uint64
		if i < len(s) {
			w = s[i]
		}
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

func decodeRegionPage(b []byte, s *block.Regions, page uint32) error {
	const maxPage = block.MaxVolumeSize / block.RegionSize / 64 / regionPageWords
	if len(b) != regionPageWords*8 || page >= maxPage {
		return fmt.Errorf("decode regions, page %d of %d bytes: %w", page, len(b), block.ErrCorrupt)
	}
	for len(*s) < int(page+1)*regionPageWords {
		*s = append(*s, 0)
	}
	for i := range regionPageWords {
		(*s)[int(page)*regionPageWords+i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return nil
}

// regionPages is the number of pages a set takes.
func regionPages(s block.Regions) int { return (len(s) + regionPageWords - 1) / regionPageWords }

// regionWord is word i of a set that may be shorter.
func regionWord(s block.Regions, i int) uint64 {
	if i < len(s) {
		return s[i]
	}
	return 0
}

// replicaRecord is what names a replica in its store.
type replicaRecord struct {
	handle   handle
	volume   block.VolumeID
	size     int64
	slot     uint32
	deleting bool
}

func (r *replicaRecord) encode() []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(r.handle))
	b = append(b, r.volume.ID[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.size))
	b = binary.LittleEndian.AppendUint32(b, r.slot)
	return appendBool(b, r.deleting)
}

func decodeReplicaRecord(b []byte) (r replicaRecord, err error) {
	d := decoder{rest: b}
	r.handle = handle(d.u32())
	r.volume.ID = d.id()
	r.size = int64(d.u64())
	r.slot = d.u32()
	r.deleting = d.bool()
	if err := d.end("replica record"); err != nil {
		return replicaRecord{}, err
	}
	if r.size <= 0 || r.size > block.MaxVolumeSize || r.slot >= flushSlots {
		return replicaRecord{}, fmt.Errorf("decode replica record: size %d, slot %d: %w", r.size, r.slot, block.ErrCorrupt)
	}
	return r, nil
}

func encodeFence(f block.Fence) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(f.Incarnation))
	b = binary.LittleEndian.AppendUint64(b, uint64(f.Generation))
	b = binary.LittleEndian.AppendUint64(b, uint64(f.Epoch))
	return binary.LittleEndian.AppendUint64(b, uint64(f.Session))
}

func decodeFence(b []byte) (block.Fence, error) {
	d := decoder{rest: b}
	f := block.Fence{
		Incarnation: block.ClusterIncarnation(d.u64()),
		Generation:  block.Generation(d.u64()),
		Epoch:       block.Epoch(d.u64()),
		Session:     block.Session(d.u64()),
	}
	return f, d.end("fence")
}

func encodeView(v *block.View) []byte {
	le := binary.LittleEndian
	b := append([]byte(nil), v.Volume.ID[:]...)
	b = le.AppendUint64(b, uint64(v.Generation))
	b = le.AppendUint64(b, uint64(v.Cluster))
	b = append(b, v.Attachment.ID[:]...)
	b = append(b, v.Owner.ID[:]...)
	b = append(b, v.Start.ID[:]...)
	b = le.AppendUint64(b, uint64(v.Epoch))
	b = le.AppendUint64(b, uint64(v.Revision))
	b = le.AppendUint64(b, uint64(v.Size))
	b = appendBool(b, v.NotWaitedOut)
	b = le.AppendUint16(b, uint16(len(v.Replicas)))
	for i := range v.Replicas {
		m := &v.Replicas[i]
		b = append(b, m.ID.ID[:]...)
		b = append(b, m.Node.ID[:]...)
		b = append(b, m.Disk.ID[:]...)
		b = appendBool(b, m.InSync)
		b = le.AppendUint64(b, uint64(m.Removed))
		b = appendIncarnation(b, m.Incarnation)
	}
	return b
}

func decodeView(b []byte) (*block.View, error) {
	d := decoder{rest: b}
	v := &block.View{}
	v.Volume.ID = d.id()
	v.Generation = block.Generation(d.u64())
	v.Cluster = block.ClusterIncarnation(d.u64())
	v.Attachment.ID, v.Owner.ID, v.Start.ID = d.id(), d.id(), d.id()
	v.Epoch = block.Epoch(d.u64())
	v.Revision = block.Revision(d.u64())
	v.Size = int64(d.u64())
	v.NotWaitedOut = d.bool()
	for range d.u16() {
		if d.short {
			break
		}
		var m block.Member
		m.ID.ID, m.Node.ID, m.Disk.ID = d.id(), d.id(), d.id()
		m.InSync = d.bool()
		m.Removed = block.Revision(d.u64())
		m.Incarnation = d.incarnation()
		v.Replicas = append(v.Replicas, m)
	}
	if err := d.end("view"); err != nil {
		return nil, err
	}
	return v, nil
}
