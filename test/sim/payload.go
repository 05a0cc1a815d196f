package sim

import (
	"encoding/binary"
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
)

// value names the write that a sector's bytes come from. Each write has its own;
// zero is what was never written, trimmed or zeroed.
type value uint64

// payload layout of a sector (little endian):
//
//	0   8   the volume's tag
//	8   8   the value
//	16  8   the sector's number in the volume
//	24  488 words drawn from the three above, so that no byte is unchecked
const payloadHeader = 24

// fill writes the payload of v for the sectors that start at offset.
func fill(data []byte, volume uint64, v value, offset int64) {
	for i := 0; i < len(data); i += block.SectorSize {
		fillSector(data[i:i+block.SectorSize], volume, v, uint64(offset+int64(i))/block.SectorSize)
	}
}

func fillSector(s []byte, volume uint64, v value, sector uint64) {
	binary.LittleEndian.PutUint64(s, volume)
	binary.LittleEndian.PutUint64(s[8:], uint64(v))
	binary.LittleEndian.PutUint64(s[16:], sector)
	word := mix(volume ^ mix(uint64(v)^mix(sector)))
	for i := payloadHeader; i < len(s); i += 8 {
		word = word*6364136223846793005 + 1442695040888963407
		binary.LittleEndian.PutUint64(s[i:], word)
	}
}

// sectorValue reads which write a sector's bytes come from. Bytes that are of no
// write, of another place or of another volume are an error.
func sectorValue(s []byte, volume uint64, sector uint64) (value, error) {
	if allZero(s) {
		return 0, nil
	}
	gotVolume := binary.LittleEndian.Uint64(s)
	v := value(binary.LittleEndian.Uint64(s[8:]))
	gotSector := binary.LittleEndian.Uint64(s[16:])
	var want [block.SectorSize]byte
	fillSector(want[:], gotVolume, v, gotSector)
	switch {
	case string(want[:]) != string(s):
		return 0, fmt.Errorf("sector %d holds bytes of no write (header volume %x value %d sector %d)",
			sector, gotVolume, v, gotSector)
	case gotVolume != volume:
		return 0, fmt.Errorf("%w: sector %d holds value %d of volume %x", errForeignBytes, sector, v, gotVolume)
	case gotSector != sector:
		return 0, fmt.Errorf("sector %d holds value %d of sector %d", sector, v, gotSector)
	}
	return v, nil
}

func allZero(s []byte) bool {
	for i := 0; i < len(s); i += 8 {
		if binary.LittleEndian.Uint64(s[i:]) != 0 {
			return false
		}
	}
	return true
}

// mix is the finaliser of splitmix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// headerValue is what a sector's header says, unchecked, for the trace.
func headerValue(s []byte) value {
	return value(binary.LittleEndian.Uint64(s[8:]))
}
