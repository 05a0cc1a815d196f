package nbd

import (
	"encoding/binary"
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Lengths of the fixed parts of messages, in bytes.
const (
	requestHeaderLength     = 28
	simpleReplyLength       = 16
	structuredReplyLength   = 20
	optionHeaderLength      = 16
	optionReplyHeaderLength = 20
	// readChunkPrefix is the offset that precedes the data of a read chunk.
	readChunkPrefix = 8
	// errorChunkPrefix is the error number and the length of its text.
	errorChunkPrefix = 6
)

// requestHeader is the fixed part of a transmission request.
type requestHeader struct {
	flags   uint16
	command uint16
	cookie  uint64
	offset  uint64
	length  uint32
}

func (h *requestHeader) encode(b []byte) {
	_ = b[requestHeaderLength-1]
	binary.BigEndian.PutUint32(b, magicRequest)
	binary.BigEndian.PutUint16(b[4:], h.flags)
	binary.BigEndian.PutUint16(b[6:], h.command)
	binary.BigEndian.PutUint64(b[8:], h.cookie)
	binary.BigEndian.PutUint64(b[16:], h.offset)
	binary.BigEndian.PutUint32(b[24:], h.length)
}

func (h *requestHeader) decode(b []byte) error {
	if len(b) < requestHeaderLength {
		return fmt.Errorf("decode request: %d bytes: %w", len(b), block.ErrProtocol)
	}
	if magic := binary.BigEndian.Uint32(b); magic != magicRequest {
		return fmt.Errorf("decode request: magic %#x: %w", magic, block.ErrProtocol)
	}
	h.flags = binary.BigEndian.Uint16(b[4:])
	h.command = binary.BigEndian.Uint16(b[6:])
	h.cookie = binary.BigEndian.Uint64(b[8:])
	h.offset = binary.BigEndian.Uint64(b[16:])
	h.length = binary.BigEndian.Uint32(b[24:])
	return nil
}

// payload is the number of bytes that follow the header.
func (h *requestHeader) payload() int {
	if h.command == cmdWrite {
		return int(h.length)
	}
	return 0
}

// replyHeader is the fixed part of a reply: a simple one, or a chunk of a
// structured one.
type replyHeader struct {
	structured bool
	// errno belongs to simple replies.
	errno Errno
	// flags, chunk and length belong to structured ones.
	flags  uint16
	chunk  uint16
	length uint32
	cookie uint64
}

// encode writes the header and returns its length.
func (h *replyHeader) encode(b []byte) int {
	if !h.structured {
		_ = b[simpleReplyLength-1]
		binary.BigEndian.PutUint32(b, magicSimpleReply)
		binary.BigEndian.PutUint32(b[4:], uint32(h.errno))
		binary.BigEndian.PutUint64(b[8:], h.cookie)
		return simpleReplyLength
	}
	_ = b[structuredReplyLength-1]
	binary.BigEndian.PutUint32(b, magicStructuredReply)
	binary.BigEndian.PutUint16(b[4:], h.flags)
	binary.BigEndian.PutUint16(b[6:], h.chunk)
	binary.BigEndian.PutUint64(b[8:], h.cookie)
	binary.BigEndian.PutUint32(b[16:], h.length)
	return structuredReplyLength
}

// replyLength tells the length of a reply's header from its first four bytes.
func replyLength(b []byte) (int, error) {
	if len(b) < 4 {
		return 0, fmt.Errorf("decode reply: %d bytes: %w", len(b), block.ErrProtocol)
	}
	switch magic := binary.BigEndian.Uint32(b); magic {
	case magicSimpleReply:
		return simpleReplyLength, nil
	case magicStructuredReply:
		return structuredReplyLength, nil
	default:
		return 0, fmt.Errorf("decode reply: magic %#x: %w", magic, block.ErrProtocol)
	}
}

func (h *replyHeader) decode(b []byte) error {
	n, err := replyLength(b)
	if err != nil {
		return err
	}
	if len(b) < n {
		return fmt.Errorf("decode reply: %d bytes: %w", len(b), block.ErrProtocol)
	}
	*h = replyHeader{cookie: binary.BigEndian.Uint64(b[8:])}
	if n == simpleReplyLength {
		h.errno = Errno(binary.BigEndian.Uint32(b[4:]))
		return nil
	}
	h.structured = true
	h.flags = binary.BigEndian.Uint16(b[4:])
	h.chunk = binary.BigEndian.Uint16(b[6:])
	h.length = binary.BigEndian.Uint32(b[16:])
	return h.validateChunk()
}

// validateChunk refuses what no chunk of its type can be.
func (h *replyHeader) validateChunk() error {
	var ok bool
	switch h.chunk {
	case chunkNone:
		ok = h.length == 0 && h.flags&chunkFlagDone != 0
	case chunkOffsetData:
		ok = h.length > readChunkPrefix
	case chunkOffsetHole:
		ok = h.length == readChunkPrefix+4
	case chunkBlockStatus:
		ok = h.length >= 12 && (h.length-4)%8 == 0 && h.length <= 4+8*maxStatusExtents
	default:
		// An unknown error chunk is treated as an error; nothing else unknown
		// may be sent by a server that was not asked for it.
		ok = h.chunk&chunkErrorBit != 0 && h.length >= errorChunkPrefix &&
			h.length <= errorChunkPrefix+maxErrorText+8
	}
	if !ok {
		return fmt.Errorf("decode reply: chunk type %d of %d bytes: %w", h.chunk, h.length, block.ErrProtocol)
	}
	return nil
}

// decodeErrorChunk reads the payload of an error chunk.
func decodeErrorChunk(b []byte) (Errno, string, error) {
	if len(b) < errorChunkPrefix {
		return 0, "", fmt.Errorf("decode error chunk: %d bytes: %w", len(b), block.ErrProtocol)
	}
	errno := Errno(binary.BigEndian.Uint32(b))
	n := int(binary.BigEndian.Uint16(b[4:]))
	if errno == 0 || n > len(b)-errorChunkPrefix {
		return 0, "", fmt.Errorf("decode error chunk: error %d, text of %d bytes: %w", uint32(errno), n, block.ErrProtocol)
	}
	return errno, string(b[errorChunkPrefix : errorChunkPrefix+n]), nil
}

// Extent is one piece of a block status reply.
type Extent struct {
	Length uint32
	Flags  uint32
}

// decodeStatusChunk reads the payload of a block status chunk.
func decodeStatusChunk(b []byte) (context uint32, extents []Extent, err error) {
	if len(b) < 12 || (len(b)-4)%8 != 0 {
		return 0, nil, fmt.Errorf("decode block status: %d bytes: %w", len(b), block.ErrProtocol)
	}
	context = binary.BigEndian.Uint32(b)
	extents = make([]Extent, 0, (len(b)-4)/8)
	for b = b[4:]; len(b) > 0; b = b[8:] {
		e := Extent{Length: binary.BigEndian.Uint32(b), Flags: binary.BigEndian.Uint32(b[4:])}
		if e.Length == 0 {
			return 0, nil, fmt.Errorf("decode block status: empty extent: %w", block.ErrProtocol)
		}
		extents = append(extents, e)
	}
	return context, extents, nil
}

// appendStatusChunk appends the payload of a block status chunk.
func appendStatusChunk(b []byte, context uint32, extents []Extent) []byte {
	b = binary.BigEndian.AppendUint32(b, context)
	for _, e := range extents {
		b = binary.BigEndian.AppendUint32(b, e.Length)
		b = binary.BigEndian.AppendUint32(b, e.Flags)
	}
	return b
}
