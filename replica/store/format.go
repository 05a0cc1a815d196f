package store

import (
	"encoding/binary"
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Version is the version of every format of this package. It only moves
// forward, and with it the package comment and the golden files. Stores of older
// versions are brought to this one when they are opened.
const Version = 2

// readable reports whether this build reads that version.
func readable(version uint32) bool { return version == 1 || version == Version }

// Geometry of the data file.
const (
	superblockMagic  = "HOLDFAST"
	superblockLength = 84

	flushSlots      = 1016
	firstFlushBlock = 16
	// firstExtent is the first extent for data, in units of block.ExtentSize from
	// the start of the file.
	firstExtent = (firstFlushBlock + 2*flushSlots) / block.BlocksPerExtent
	// FirstByte is the byte of the data file at which it begins.
	FirstByte = int64(firstExtent * block.ExtentSize)
	// maxExtents bounds the extent numbers, which are 32 bits wide.
	maxExtents = 1 << 32
)

// Identity says to whom a store belongs.
type Identity struct {
	Cluster block.ClusterID
	Node    block.NodeID
	Disk    block.DiskID
}

func encodeSuperblock(id Identity) []byte { return encodeSuperblockOf(id, Version) }

func encodeSuperblockOf(id Identity, version uint32) []byte {
	b := make([]byte, 0, superblockLength)
	b = append(b, superblockMagic...)
	b = binary.LittleEndian.AppendUint32(b, version)
	b = append(b, id.Cluster.ID[:]...)
	b = append(b, id.Node.ID[:]...)
	b = append(b, id.Disk.ID[:]...)
	b = binary.LittleEndian.AppendUint32(b, flushSlots)
	b = binary.LittleEndian.AppendUint32(b, firstFlushBlock)
	b = binary.LittleEndian.AppendUint32(b, firstExtent)
	b = binary.LittleEndian.AppendUint64(b, 0)
	return binary.LittleEndian.AppendUint32(b, block.Checksum(b))
}

// decodeSuperblock also returns the version that wrote it.
func decodeSuperblock(b []byte) (Identity, uint32, error) {
	if len(b) < superblockLength {
		return Identity{}, 0, fmt.Errorf("superblock of %d bytes: %w", len(b), block.ErrCorrupt)
	}
	d := decoder{rest: b[:superblockLength]}
	if string(d.take(len(superblockMagic))) != superblockMagic {
		return Identity{}, 0, fmt.Errorf("no superblock at byte 0: %w", block.ErrCorrupt)
	}
	version := d.u32()
	if !readable(version) {
		return Identity{}, 0, versionError(version)
	}
	var id Identity
	id.Cluster.ID, id.Node.ID, id.Disk.ID = d.id(), d.id(), d.id()
	slots, flushBlock, extent, reserved := d.u32(), d.u32(), d.u32(), d.u64()
	sum := d.u32()
	if d.short || sum != block.Checksum(b[:superblockLength-4]) {
		return Identity{}, 0, fmt.Errorf("superblock at byte 0: checksum: %w", block.ErrCorrupt)
	}
	if slots != flushSlots || flushBlock != firstFlushBlock || extent != firstExtent || reserved != 0 {
		return Identity{}, 0, fmt.Errorf("superblock at byte 0: unknown geometry: %w", block.ErrCorrupt)
	}
	return id, version, nil
}

func versionError(found uint32) error {
	return fmt.Errorf("store format %d, this build knows %d: run a build that knows format %d, or remove the disk's directory and add it anew: %w",
		found, Version, found, block.ErrVersion)
}

// Keys of the metadata database, described in the package comment.
const (
	keyIdentity    = 'A'
	keyIncarnation = 'I'
	keyAllocation  = 'B'
	keyChange      = 'C'
	keyDirtySet    = 'D'
	keyDirtyPage   = 'E'
	keyFence       = 'F'
	keySplit       = 'G'
	keyLine        = 'H'
	keyJournal     = 'J'
	keyLog         = 'L'
	keyMap         = 'M'
	keyHandle      = 'N'
	keyUndo        = 'P'
	keyReplica     = 'R'
	keyCut         = 'S'
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

// headLayer stands for the head in keys; firstLayer is the number of the first
// head of a line.
const (
	headLayer  = 0
	firstLayer = 1
)

// splitMapKey is the inverse of mapKey.
func splitMapKey(key []byte) (h handle, extent uint32, err error) {
	if len(key) != 13 || key[0] != keyMap || binary.BigEndian.Uint32(key[5:]) != headLayer {
		return 0, 0, fmt.Errorf("map key %x: %w", key, block.ErrCorrupt)
	}
	return handle(binary.BigEndian.Uint32(key[1:])), binary.BigEndian.Uint32(key[9:]), nil
}

// handleIn is the handle in a key that begins with one.
func handleIn(key []byte) handle { return handle(binary.BigEndian.Uint32(key[1:])) }

func logPageKey(b []byte, h handle, page uint32) []byte {
	return binary.BigEndian.AppendUint32(handleKey(b, keyLog, h), page)
}

func dirtyKey(b []byte, h handle, replica block.ReplicaID) []byte {
	return append(handleKey(b, keyDirtySet, h), replica.ID[:]...)
}

func dirtyPageKey(b []byte, h handle, replica block.ReplicaID, page uint32) []byte {
	return binary.BigEndian.AppendUint32(append(handleKey(b, keyDirtyPage, h), replica.ID[:]...), page)
}

func replicaKey(id block.ReplicaID) []byte { return append([]byte{keyReplica}, id.ID[:]...) }

// appendRegionPage appends what is under one key of a set of regions.
func appendRegionPage(b []byte, p *block.RegionPage) []byte {
	for _, w := range p.Words {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

// decodeRegionPage adds a page to a set that has those before it.
func decodeRegionPage(b []byte, s *block.Regions, page uint32) error {
	p := block.RegionPage{Number: page}
	if len(b) != 8*len(p.Words) || page >= block.MaxRegionPages {
		return fmt.Errorf("decode regions, page %d of %d bytes: %w", page, len(b), block.ErrCorrupt)
	}
	for i := range p.Words {
		p.Words[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	if !s.AppendPage(p) {
		return fmt.Errorf("decode regions, page %d is empty or out of order: %w", page, block.ErrCorrupt)
	}
	return nil
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
	if len(v.Snapshots) == 0 {
		return b
	}
	b = le.AppendUint32(b, uint32(len(v.Snapshots)))
	for i := range v.Snapshots {
		q := &v.Snapshots[i]
		b = append(b, q.ID.ID[:]...)
		b = le.AppendUint64(b, uint64(q.Size))
		b = le.AppendUint64(b, uint64(q.Created))
	}
	return b
}

// snapshots reads the list at the end of a view, which is not there if it is empty.
func (d *decoder) snapshots(v *block.View) {
	n := d.u32()
	d.short = d.short || n == 0
	for range n {
		if d.short {
			return
		}
		var q block.Snapshot
		q.ID.ID = d.id()
		q.Size = int64(d.u64())
		q.Created = int64(d.u64())
		v.Snapshots = append(v.Snapshots, q)
	}
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
	if len(d.rest) > 0 {
		d.snapshots(v)
	}
	if err := d.end("view"); err != nil {
		return nil, err
	}
	return v, nil
}
