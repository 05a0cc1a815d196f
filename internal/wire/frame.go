package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/socket"
	"github.com/holdfast-io/holdfast/internal/turn"
)

const (
	frameMagic = 0x48464c44 // "HFLD"
	headerSize = 84

	kindRequest = 1
	kindReply   = 2

	// maxMetadata bounds the metadata of OpUpdate and of the answer to OpOpen;
	// it has room for a view, its snapshots and 40 region sets of a volume of the
	// largest size.
	maxMetadata  = 24 << 20
	maxErrorText = 1024
)

// header is the fixed part of a frame; see the package comment.
type header struct {
	kind     uint8
	op       block.Op
	flags    block.Flags
	status   uint16
	metaSize uint32
	replica  block.ReplicaID
	epoch    block.Epoch
	session  block.Session
	seq      uint64
	// offset is the free space of the disk in a reply.
	offset   int64
	length   int64
	dataSize uint32
	bodySum  uint32
}

// encode writes the header into b, which has headerSize bytes.
func (h *header) encode(b []byte) {
	_ = b[headerSize-1]
	binary.BigEndian.PutUint32(b[0:], frameMagic)
	b[4] = Version
	b[5] = h.kind
	b[6] = uint8(h.op)
	b[7] = uint8(h.flags)
	binary.BigEndian.PutUint16(b[8:], h.status)
	binary.BigEndian.PutUint16(b[10:], 0)
	binary.BigEndian.PutUint32(b[12:], h.metaSize)
	copy(b[16:32], h.replica.ID[:])
	binary.BigEndian.PutUint64(b[32:], uint64(h.epoch))
	binary.BigEndian.PutUint64(b[40:], uint64(h.session))
	binary.BigEndian.PutUint64(b[48:], h.seq)
	binary.BigEndian.PutUint64(b[56:], uint64(h.offset))
	binary.BigEndian.PutUint64(b[64:], uint64(h.length))
	binary.BigEndian.PutUint32(b[72:], h.dataSize)
	binary.BigEndian.PutUint32(b[76:], h.bodySum)
	binary.BigEndian.PutUint32(b[80:], block.Checksum(b[:80]))
}

// decode reads and checks a header of the wanted kind. After it the sizes are
// within their bounds.
func (h *header) decode(b []byte, kind uint8) error {
	_ = b[headerSize-1]
	if magic := binary.BigEndian.Uint32(b); magic != frameMagic {
		return fmt.Errorf("frame begins with %#08x: %w", magic, block.ErrProtocol)
	}
	if sum := block.Checksum(b[:80]); sum != binary.BigEndian.Uint32(b[80:]) {
		return fmt.Errorf("frame header fails its checksum: %w", block.ErrProtocol)
	}
	if b[4] != Version {
		return fmt.Errorf("frame of version %d on a connection of version %d: %w", b[4], Version, block.ErrProtocol)
	}
	h.kind = b[5]
	h.op = block.Op(b[6])
	h.flags = block.Flags(b[7])
	h.status = binary.BigEndian.Uint16(b[8:])
	h.metaSize = binary.BigEndian.Uint32(b[12:])
	copy(h.replica.ID[:], b[16:32])
	h.epoch = block.Epoch(binary.BigEndian.Uint64(b[32:]))
	h.session = block.Session(binary.BigEndian.Uint64(b[40:]))
	h.seq = binary.BigEndian.Uint64(b[48:])
	h.offset = int64(binary.BigEndian.Uint64(b[56:]))
	h.length = int64(binary.BigEndian.Uint64(b[64:]))
	h.dataSize = binary.BigEndian.Uint32(b[72:])
	h.bodySum = binary.BigEndian.Uint32(b[76:])
	if h.kind != kind || b[10]|b[11] != 0 {
		return fmt.Errorf("frame of kind %d, want %d: %w", h.kind, kind, block.ErrProtocol)
	}
	if kind == kindRequest && h.status != statusOK || kind == kindReply && (h.flags != 0 || h.length != 0) {
		return fmt.Errorf("frame with fields of another kind: %w", block.ErrProtocol)
	}
	return h.checkSizes()
}

// checkSizes holds the sizes of metadata and data against what the operation
// may carry, before anything is allocated for them.
func (h *header) checkSizes() error {
	var metaMin, metaMax, dataMin, dataMax uint32
	if h.kind == kindRequest && readsOrWrites(h.op) && h.metaSize > 0 {
		metaMin, metaMax = idSize, idSize
		if h.op == block.OpHash {
			metaMax = 2 * idSize
		}
	}
	switch {
	case h.kind == kindReply && h.status != statusOK:
		metaMax = maxErrorText
	case h.op == block.OpOpen && h.kind == kindRequest:
		metaMin, metaMax = openSize, openSize
	case h.op == block.OpOpen:
		metaMin, metaMax = 1, maxMetadata
	case h.op == block.OpRead && h.kind == kindReply:
		dataMin, dataMax = block.SectorSize, block.MaxTransfer
	case h.op == block.OpWrite && h.kind == kindRequest:
		dataMin, dataMax = block.SectorSize, block.MaxTransfer
		if h.length != int64(h.dataSize) {
			return fmt.Errorf("write of %d bytes with %d bytes of data: %w", h.length, h.dataSize, block.ErrProtocol)
		}
	case h.op == block.OpFlush && h.kind == kindRequest:
		metaMin, metaMax = flushNumberSize+2, flushNumberSize+2+maxList*confirmedSize
	case h.op == block.OpUpdate && h.kind == kindRequest:
		metaMin, metaMax = 1, maxMetadata
	case h.op == block.OpHash && h.kind == kindReply:
		metaMin, metaMax = 4, 4+maxHashes*hashSize+idSize
	case h.op == block.OpChanged && h.kind == kindReply:
		dataMin, dataMax = 1, uint32(block.ChangedBytes(block.ChangedMax))
	case h.op < block.OpOpen || h.op > block.OpChanged:
		return fmt.Errorf("frame of operation %d: %w", h.op, block.ErrProtocol)
	}
	if h.metaSize < metaMin || h.metaSize > metaMax || h.dataSize < dataMin || h.dataSize > dataMax {
		return fmt.Errorf("frame of operation %d with %d bytes of metadata and %d of data: %w",
			h.op, h.metaSize, h.dataSize, block.ErrProtocol)
	}
	return nil
}

// readBufferSize is how much one read takes off a connection at most; larger
// payloads are read straight into their buffers.
const readBufferSize = 128 << 10

// frameReader takes frames off a stream.
type frameReader struct {
	r io.Reader
	// in and buffered are there if r is a connection read in large pieces.
	in       *turn.Reader
	buffered *socket.Input
	fixed    [headerSize]byte
	small    [512]byte
}

// newFrameReader reads a connection in large pieces; what the frames it returns lead to
// is a turn that ends with each piece.
func newFrameReader(in *turn.Reader) *frameReader {
	buffered := socket.NewInput(in, readBufferSize, nil)
	return &frameReader{r: buffered, in: in, buffered: buffered}
}

// next reads one frame of the wanted kind. meta is valid until the next call;
// the caller owns buf. A stream that ends between two frames is io.EOF.
func (f *frameReader) next(h *header, kind uint8) (meta []byte, buf *block.Buffer, err error) {
	if f.in != nil && f.buffered.Buffered() == 0 {
		if err := f.in.Boundary(); err != nil {
			return nil, nil, err
		}
	}
	if _, err := io.ReadFull(f.r, f.fixed[:]); err != nil {
		return nil, nil, truncated(err)
	}
	if err := h.decode(f.fixed[:], kind); err != nil {
		return nil, nil, err
	}
	if meta, err = f.readMeta(int(h.metaSize)); err != nil {
		return nil, nil, err
	}
	sum := block.Checksum(meta)
	if h.dataSize > 0 {
		buf = block.NewBuffer(int(h.dataSize))
		if _, err := io.ReadFull(f.r, buf.Data); err != nil {
			buf.Release()
			return nil, nil, truncatedBody(err)
		}
		buf.Sum()
		sum = buf.Checksum(sum)
	}
	if sum != h.bodySum {
		buf.Release()
		return nil, nil, fmt.Errorf("frame of operation %d, sequence %d: payload fails its checksum: %w", h.op, h.seq, block.ErrProtocol)
	}
	return meta, buf, nil
}

// readMeta reads the metadata. Memory for a long one grows with what arrives.
func (f *frameReader) readMeta(n int) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	if n <= len(f.small) {
		_, err := io.ReadFull(f.r, f.small[:n])
		return f.small[:n], truncatedBody(err)
	}
	const step = 1 << 20
	var meta []byte
	for len(meta) < n {
		have := len(meta)
		meta = append(meta, make([]byte, min(step, n-have))...)
		if _, err := io.ReadFull(f.r, meta[have:]); err != nil {
			return nil, truncatedBody(err)
		}
	}
	return meta, nil
}

// truncated tells an end between two frames (io.EOF) from one inside a frame.
func truncated(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("connection ends inside a frame: %w", block.ErrProtocol)
	}
	return err
}

// truncatedBody is truncated for what must follow a header.
func truncatedBody(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return truncated(err)
}
