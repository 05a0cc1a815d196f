package block

import "hash/crc32"

// castagnoli is the polynomial of CRC32C; the table is read-only.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum is the CRC32C of some bytes.
func Checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// updateChecksum is the checksum of the bytes that have sum, and b behind them.
func updateChecksum(sum uint32, b []byte) uint32 { return crc32.Update(sum, castagnoli, b) }

// joinChecksum is the checksum of the bytes that have sum, and behind them a block of
// BlockSize bytes that has blockSum; neither is looked at.
func joinChecksum(sum, blockSum uint32) uint32 {
	return shifts[0][byte(sum)] ^ shifts[1][byte(sum>>8)] ^ shifts[2][byte(sum>>16)] ^ shifts[3][sum>>24] ^ blockSum
}

// shifts say by each of its bytes what becomes of a checksum when a block follows whose
// own is left out. That is linear, so the bits of a byte add up. They are read-only.
var shifts = func() (t [4][256]uint32) {
	zeros := make([]byte, BlockSize)
	zero := updateChecksum(0, zeros)
	for i := range t {
		for bit := range 8 {
			t[i][1<<bit] = updateChecksum(1<<(8*i+bit), zeros) ^ zero
		}
		for v := 1; v < 256; v++ {
			t[i][v] = t[i][v&(v-1)] ^ t[i][v&-v]
		}
	}
	return t
}()
