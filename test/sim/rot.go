package sim

import (
	"encoding/binary"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
	"github.com/holdfast-io/holdfast/replica/store"
)

// rot is what bits that flipped at rest have done to one disk. Every flip is
// found by its checksum, but for one case that the rules allow: in a region that
// was in the intent log when the store was opened, checksums may be older than the
// data, so that a mismatch is accepted where nobody has an intact copy (rule 18).
// From then on the sector may show anything until it is written again.
type rot struct {
	world *World
	spots []spot
	// logs are the intent logs that the store was last opened with.
	logs map[block.VolumeID]block.Regions
}

// spot is a sector of a volume that has rotted.
type spot struct {
	volume *volume
	sector uint64
}

// dataStart is the first byte of a data file that holds bytes of a volume (see
// the store's format).
const dataStart = 128 * block.ExtentSize

// strike flips one bit of a sector that some write left in the data file; false if
// none was found.
func (r *rot) strike(device *vfs.MemDevice) bool {
	sectors := (device.Size() - dataStart) / block.SectorSize
	for range 64 {
		at := dataStart + r.world.loop.rng.Int64N(max(sectors, 1))*block.SectorSize
		if at < device.Size() && r.flip(device, at, func(spot) bool { return true }) {
			return true
		}
	}
	return false
}

// flip flips a bit of the sector at a place of the data file if it is one that
// accept wants.
func (r *rot) flip(device *vfs.MemDevice, at int64, accept func(spot) bool) bool {
	rng := r.world.loop.rng
	buf := block.NewBuffer(block.BlockSize)
	defer buf.Release()
	within := at % block.BlockSize
	read := &vfs.IO{Kind: vfs.Read, Offset: at - within, Length: block.BlockSize, Data: buf.Data}
	if vfs.Do(device, read) != nil {
		return false
	}
	s, ok := r.spotOf(buf.Data[within : within+block.SectorSize])
	if !ok || !accept(s) {
		return false
	}
	r.world.rotten = true
	r.spots = append(r.spots, s)
	r.world.loop.log("rot in sector %d of %s", s.sector, s.volume.name)
	r.judge(s)
	device.Flip(at+rng.Int64N(block.SectorSize), uint(rng.IntN(8)))
	return true
}

// spotOf tells from a sector's payload to which volume and place it belongs.
func (r *rot) spotOf(data []byte) (spot, bool) {
	tag, sector := binary.LittleEndian.Uint64(data), binary.LittleEndian.Uint64(data[16:])
	for _, v := range r.world.volumes {
		if v.tag == tag && !allZero(data) {
			return spot{volume: v, sector: sector}, true
		}
	}
	return spot{}, false
}

// reopened notes with what logs the store was opened, and which rotten sectors it
// may therefore have to accept.
func (r *rot) reopened(opened *store.Store) {
	r.logs = make(map[block.VolumeID]block.Regions)
	for _, replica := range opened.Replicas() {
		r.logs[replica.Volume()] = replica.Log()
	}
	for _, s := range r.spots {
		r.judge(s)
	}
}

// judge notes a rotten sector that may be accepted.
func (r *rot) judge(s spot) {
	if r.logs[s.volume.id].Has(block.RegionOf(int64(s.sector) * block.SectorSize)) {
		s.volume.acceptable[s.sector] = true
		r.world.loop.log("rotten sector %d of %s may be accepted", s.sector, s.volume.name)
	}
}
