package block

// Sizes of the units described in the package comment, in bytes.
const (
	SectorSize = 512
	BlockSize  = 4 << 10
	ExtentSize = 64 << 10
	ChunkSize  = 1 << 20
	RegionSize = 16 << 20

	BlocksPerExtent  = ExtentSize / BlockSize
	ExtentsPerChunk  = ChunkSize / ExtentSize
	ChunksPerRegion  = RegionSize / ChunkSize
	ExtentsPerRegion = RegionSize / ExtentSize

	// MaxTransfer bounds the length of one read or write message.
	MaxTransfer = 1 << 20
	// MaxVolumeSize bounds the size of a volume.
	MaxVolumeSize = 64 << 40
)

// Span is a half-open range of bytes.
type Span struct {
	Offset int64
	Length int64
}

// End is the first byte after the span.
func (s Span) End() int64 { return s.Offset + s.Length }

// Blocks widens the span to whole blocks. Two requests overlap when their
// widened spans do (rule 11).
func (s Span) Blocks() Span {
	first := s.Offset &^ (BlockSize - 1)
	return Span{Offset: first, Length: (s.End()+BlockSize-1)&^(BlockSize-1) - first}
}

// Overlaps reports whether the spans share a byte.
func (s Span) Overlaps(t Span) bool { return s.Offset < t.End() && t.Offset < s.End() }

// Within reports whether the span is made of whole units of align bytes, has a
// length above zero and lies inside size bytes, without overflow.
func (s Span) Within(size int64, align int64) bool {
	return s.Length > 0 && s.Offset >= 0 && s.Offset <= size && s.Length <= size-s.Offset &&
		s.Offset%align == 0 && s.Length%align == 0
}

// Region is the index of a 16 MiB region of a volume.
type Region uint32

// RegionOf is the region that holds the byte at offset.
func RegionOf(offset int64) Region { return Region(offset / RegionSize) }

// Span is the bytes of the region. The last region of a volume may reach past
// its end.
func (r Region) Span() Span { return Span{Offset: int64(r) * RegionSize, Length: RegionSize} }

// RegionCount is the number of regions of a volume of size bytes.
func RegionCount(size int64) int { return int((size + RegionSize - 1) / RegionSize) }
