// Package stamp marks the sectors that a test writes, so that whoever reads them can
// tell which write each is of, and that it is whole and in its place.
package stamp

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Value names the write that a sector is of; Zeroed is no write of data.
type Value uint64

// Zeroed is a sector of zeros: never written, or trimmed.
const Zeroed Value = 0

const sectorMagic = 0x5345_5249_4c54_4553

// A sector on the volume: offset 0 magic, 8 value, 16 number of the sector, 24
// filling drawn from the value, 508 CRC32C of what is before. Little endian.
const (
	sectorValueAt = 8
	// NumberAt is where the number of the sector is.
	NumberAt = 16
	// FillAt is where in a sector damage is seen by its sum alone.
	FillAt      = 24
	sectorSumAt = block.SectorSize - 4
)

// Put fills p, the bytes that a write of this value puts at offset.
func Put(p []byte, offset int64, v Value) {
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	for at := 0; at < len(p); at += block.SectorSize {
		sector := p[at : at+block.SectorSize]
		number := uint64(offset+int64(at)) / block.SectorSize
		binary.LittleEndian.PutUint64(sector, sectorMagic)
		binary.LittleEndian.PutUint64(sector[sectorValueAt:], uint64(v))
		binary.LittleEndian.PutUint64(sector[NumberAt:], number)
		fill := uint64(v)*0x9e37_79b9_7f4a_7c15 ^ number
		for i := FillAt; i+8 <= sectorSumAt; i += 8 {
			fill = fill*6364136223846793005 + 1442695040888963407
			binary.LittleEndian.PutUint64(sector[i:], fill)
		}
		clear(sector[sectorSumAt-4 : sectorSumAt])
		binary.LittleEndian.PutUint32(sector[sectorSumAt:], crc32.Checksum(sector[:sectorSumAt], castagnoli))
	}
}

// Read tells of which write each sector of p is, which was read at offset.
func Read(p []byte, offset int64) ([]Value, error) {
	values := make([]Value, 0, len(p)/block.SectorSize)
	for at := 0; at < len(p); at += block.SectorSize {
		v, err := readSector(p[at:at+block.SectorSize], uint64(offset+int64(at))/block.SectorSize)
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	return values, nil
}

func readSector(sector []byte, number uint64) (Value, error) {
	if isZero(sector) {
		return Zeroed, nil
	}
	sum := crc32.Checksum(sector[:sectorSumAt], crc32.MakeTable(crc32.Castagnoli))
	if binary.LittleEndian.Uint64(sector) != sectorMagic || binary.LittleEndian.Uint32(sector[sectorSumAt:]) != sum {
		return 0, fmt.Errorf("sector %d holds what nobody wrote: %x…: %w", number, sector[:32], block.ErrCorrupt)
	}
	if found := binary.LittleEndian.Uint64(sector[NumberAt:]); found != number {
		return 0, fmt.Errorf("sector %d holds the bytes of sector %d: %w", number, found, block.ErrCorrupt)
	}
	return Value(binary.LittleEndian.Uint64(sector[sectorValueAt:])), nil
}

func isZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}
