package robustness

import (
	"math/rand/v2"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
)

const (
	mebibyte = 1 << 20
	// maxRequest is the longest request of the load, in bytes.
	maxRequest = 256 << 10
	// clusters of hot blocks, one in each of the first regions.
	clusters      = 8
	clusterBlocks = 8
	// clusterStep keeps them off the regions' borders, each at another place.
	clusterStep = block.RegionSize + 5*block.ExtentSize + block.BlockSize
)

// layout says what the load uses a volume for.
type layout struct {
	size int64
	// cool is written at random places, now and then; spare and more are filled
	// and cleared by faults alone.
	cool, spare, more block.Span
}

// volumeLayout is that of the long test.
func volumeLayout() layout {
	return layout{
		size:  256 * mebibyte,
		cool:  block.Span{Offset: 144 * mebibyte, Length: 12 * mebibyte},
		spare: block.Span{Offset: 160 * mebibyte, Length: 24 * mebibyte},
		more:  block.Span{Offset: 184 * mebibyte, Length: 64 * mebibyte},
	}
}

// draw makes up the next request of a client. Most hit a few hot blocks, so that
// clients meet.
func (l layout) draw(draw *rand.Rand) (o op, fua bool) {
	switch p := draw.IntN(100); {
	case p < 38:
		return op{kind: nbd.KindWrite, span: l.hot(draw)}, p < 3
	case p < 66:
		return op{kind: nbd.KindRead, span: l.hot(draw)}, false
	case p < 78:
		return op{kind: nbd.KindWrite, span: l.somewhere(draw)}, p < 67
	case p < 88:
		return op{kind: nbd.KindRead, span: l.somewhere(draw)}, false
	case p < 91:
		return op{kind: nbd.KindTrim, span: l.hot(draw)}, false
	case p < 94:
		return op{kind: nbd.KindZero, span: l.hot(draw)}, false
	case p < 95:
		return op{kind: nbd.KindTrim, span: l.somewhere(draw)}, false
	default:
		return op{kind: nbd.KindFlush}, false
	}
}

// hot is a piece of one cluster.
func (l layout) hot(draw *rand.Rand) block.Span {
	first := draw.IntN(clusterBlocks)
	blocks := 1 + draw.IntN(clusterBlocks-first)
	if draw.IntN(3) > 0 {
		blocks = 1
	}
	cluster := int64(draw.IntN(clusters)) * clusterStep % (l.cool.Offset - clusterBlocks*block.BlockSize)
	cluster -= cluster % block.BlockSize
	return block.Span{Offset: cluster + int64(first)*block.BlockSize, Length: int64(blocks) * block.BlockSize}
}

// somewhere is a place in the cool area, 4 KiB to maxRequest long.
func (l layout) somewhere(draw *rand.Rand) block.Span {
	length := int64(1+draw.IntN(maxRequest/block.BlockSize)) * block.BlockSize
	if draw.IntN(2) > 0 {
		length = block.BlockSize
	}
	length = min(length, l.cool.Length)
	places := (l.cool.Length-length)/block.BlockSize + 1
	return block.Span{Offset: l.cool.Offset + draw.Int64N(places)*block.BlockSize, Length: length}
}
