package store

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Pebble takes damage in its newest log, or in its manifest, for the end of it: a write
// that a loss of power cut off. It tells the two apart only where a later block of 32 KiB
// begins with proof, and goes on without what it lost. So these files are looked at
// first, chunk by chunk. Behind the end of a log there is nothing that says that the end
// was synced: a chunk that promises so, the trailer of a log that was closed, or, in a
// manifest, any chunk, for each is synced before the next is written. What is behind
// proof is damage.
//
// A chunk of a log, little-endian, in blocks of 32 KiB that none crosses:
//
//	0   4   masked CRC32C of the bytes from 6 on
//	4   2   length of the payload
//	6   1   kind: 9 to 12
//	7   4   number of the log
//	11  8   up to this byte the log had been synced before
//	19      payload
//
// The first log of a database has chunks of kinds 5 to 8, which promise nothing: they
// have no field at 11. A manifest has chunks of kinds 1 to 4, without the field at 7
// too. The trailer of a log has kind 5, no checksum, no length, and the next number.

const (
	chunkBlock       = 32 << 10
	manifestHeader   = 7
	logTrailer       = 11
	logHeader        = 19
	trailerKind      = 5
	firstLogKind     = 9
	lastLogKind      = 12
	lastManifestKind = 4
)

// chunked is a file of chunks.
type chunked struct {
	content []byte
	// number is that of the log; a manifest has none.
	number uint32
	log    bool
}

// chunk is the length of the chunk at a byte, and up to where it promises that the file
// was synced; 0 if there is none.
func (c *chunked) chunk(at int) (length int, synced uint64) {
	b := c.content[at:min(len(c.content), at-at%chunkBlock+chunkBlock)]
	if len(b) < manifestHeader {
		return 0, 0
	}
	header := c.header(b[6])
	length = header + int(binary.LittleEndian.Uint16(b[4:]))
	switch {
	case header == 0 || length > len(b) || binary.LittleEndian.Uint32(b) != maskedChecksum(b[6:length]):
		return 0, 0
	case header == manifestHeader:
		return length, uint64(at)
	case binary.LittleEndian.Uint32(b[7:]) != c.number:
		return 0, 0
	case header == logHeader:
		synced = binary.LittleEndian.Uint64(b[11:])
	}
	return length, synced
}

// header is the length of the header of a chunk of a kind, 0 if the file has none such.
func (c *chunked) header(kind byte) int {
	switch {
	case !c.log && 1 <= kind && kind <= lastManifestKind:
		return manifestHeader
	case c.log && trailerKind <= kind && kind < firstLogKind:
		return logTrailer
	case c.log && firstLogKind <= kind && kind <= lastLogKind:
		return logHeader
	default:
		return 0
	}
}

// maskedChecksum is what pebble puts into a chunk.
func maskedChecksum(b []byte) uint32 {
	sum := block.Checksum(b)
	return (sum>>15 | sum<<17) + 0xa282ead8
}

// closedAt reports whether the trailer of the log is at a byte.
func (c *chunked) closedAt(at int) bool {
	if !c.log || len(c.content)-at < logTrailer {
		return false
	}
	b := c.content[at : at+logTrailer]
	return binary.LittleEndian.Uint32(b) == 0 && binary.LittleEndian.Uint16(b[4:]) == 0 && b[6] == trailerKind &&
		binary.LittleEndian.Uint32(b[7:]) == c.number+1
}

// damaged is the first byte that cannot be read although it was synced, -1 for none.
func (c *chunked) damaged() int {
	at := 0
	for at < len(c.content) {
		if length, _ := c.chunk(at); length > 0 {
			at += length
			continue
		}
		if c.closedAt(at) {
			return -1
		}
		// A chunk that does not fit into the rest of a block begins the next one.
		if rest := chunkBlock - at%chunkBlock; rest < logHeader && at+rest < len(c.content) && isZero(c.content[at:at+rest]) {
			at += rest
			continue
		}
		break
	}
	for behind := at + 1; behind < len(c.content); behind++ {
		if length, synced := c.chunk(behind); length > 0 && synced > uint64(at) || c.closedAt(behind) {
			return at
		}
	}
	return -1
}

// markerPrefix begins the name of the file whose name tells the current manifest:
// marker.manifest.N.MANIFEST-M, of which the highest N counts.
const markerPrefix = "marker.manifest."

// currentManifest is the name of the manifest that the database goes by, empty if it is
// not known.
func currentManifest(names []string) (manifest string) {
	var newest uint64
	for _, name := range names {
		rest, ok := strings.CutPrefix(name, markerPrefix)
		number, value, _ := strings.Cut(rest, ".")
		if n, err := strconv.ParseUint(number, 10, 64); ok && err == nil && n >= newest {
			newest, manifest = n, value
		}
	}
	return manifest
}

// checkLogs looks for damage in the logs and manifests of the database.
func (s *Store) checkLogs() error {
	fs := s.options.Dir
	names, _ := fs.List(s.metaPath()) // pebble says better what is wrong with it
	current := currentManifest(names)
	for _, name := range names {
		c := chunked{}
		number, isLog := strings.CutSuffix(name, ".log")
		if isLog {
			n, err := strconv.ParseUint(number, 10, 64)
			if err != nil {
				continue
			}
			c.log, c.number = true, uint32(n)
		} else if name != current {
			continue // one that was being written is not yet the manifest
		}
		path := fs.PathJoin(s.metaPath(), name)
		content, err := readFile(fs, path)
		if err != nil {
			return err
		}
		c.content = content
		if at := c.damaged(); at >= 0 {
			return fmt.Errorf("%s at byte %d: it was complete, and cannot be read: %w", path, at, block.ErrCorrupt)
		}
	}
	return nil
}
