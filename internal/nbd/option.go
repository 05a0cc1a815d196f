package nbd

import (
	"encoding/binary"
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
)

// optionHeader is the fixed part of a handshake option.
type optionHeader struct {
	option Option
	length uint32
}

func (h *optionHeader) encode(b []byte) {
	_ = b[optionHeaderLength-1]
	binary.BigEndian.PutUint64(b, magicOption)
	binary.BigEndian.PutUint32(b[8:], uint32(h.option))
	binary.BigEndian.PutUint32(b[12:], h.length)
}

func (h *optionHeader) decode(b []byte) error {
	if len(b) < optionHeaderLength {
		return fmt.Errorf("decode option: %d bytes: %w", len(b), block.ErrProtocol)
	}
	if magic := binary.BigEndian.Uint64(b); magic != magicOption {
		return fmt.Errorf("decode option: magic %#x: %w", magic, block.ErrProtocol)
	}
	h.option = Option(binary.BigEndian.Uint32(b[8:]))
	h.length = binary.BigEndian.Uint32(b[12:])
	return nil
}

// optionReplyHeader is the fixed part of a reply to an option.
type optionReplyHeader struct {
	option Option
	reply  ReplyType
	length uint32
}

func (h *optionReplyHeader) encode(b []byte) {
	_ = b[optionReplyHeaderLength-1]
	binary.BigEndian.PutUint64(b, magicOptionReply)
	binary.BigEndian.PutUint32(b[8:], uint32(h.option))
	binary.BigEndian.PutUint32(b[12:], uint32(h.reply))
	binary.BigEndian.PutUint32(b[16:], h.length)
}

func (h *optionReplyHeader) decode(b []byte) error {
	if len(b) < optionReplyHeaderLength {
		return fmt.Errorf("decode option reply: %d bytes: %w", len(b), block.ErrProtocol)
	}
	if magic := binary.BigEndian.Uint64(b); magic != magicOptionReply {
		return fmt.Errorf("decode option reply: magic %#x: %w", magic, block.ErrProtocol)
	}
	h.option = Option(binary.BigEndian.Uint32(b[8:]))
	h.reply = ReplyType(binary.BigEndian.Uint32(b[12:]))
	h.length = binary.BigEndian.Uint32(b[16:])
	if h.length > maxOptionLength {
		return fmt.Errorf("decode option reply: payload of %d bytes: %w", h.length, block.ErrProtocol)
	}
	return nil
}

// takeString cuts a length-prefixed string off b.
func takeString(b []byte) (s string, rest []byte, err error) {
	if len(b) < 4 {
		return "", nil, fmt.Errorf("decode string: %d bytes: %w", len(b), block.ErrProtocol)
	}
	n := binary.BigEndian.Uint32(b)
	if n > maxNameLength || int(n) > len(b)-4 {
		return "", nil, fmt.Errorf("decode string: length %d of %d: %w", n, len(b)-4, block.ErrProtocol)
	}
	return string(b[4 : 4+n]), b[4+n:], nil
}

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}

// infoRequest is the payload of OptInfo and OptGo.
type infoRequest struct {
	name  string
	infos []uint16
}

func (r *infoRequest) decode(b []byte) error {
	name, rest, err := takeString(b)
	if err != nil {
		return fmt.Errorf("decode info request: %w", err)
	}
	if len(rest) < 2 || len(rest)-2 != 2*int(binary.BigEndian.Uint16(rest)) {
		return fmt.Errorf("decode info request: %d bytes after the name: %w", len(rest), block.ErrProtocol)
	}
	r.name, r.infos = name, nil
	for rest = rest[2:]; len(rest) > 0; rest = rest[2:] {
		r.infos = append(r.infos, binary.BigEndian.Uint16(rest))
	}
	return nil
}

func (r *infoRequest) append(b []byte) []byte {
	b = appendString(b, r.name)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.infos)))
	for _, info := range r.infos {
		b = binary.BigEndian.AppendUint16(b, info)
	}
	return b
}

func (r *infoRequest) wants(info uint16) bool {
	for _, i := range r.infos {
		if i == info {
			return true
		}
	}
	return false
}

// contextRequest is the payload of OptListMetaContext and OptSetMetaContext.
type contextRequest struct {
	name    string
	queries []string
}

func (r *contextRequest) decode(b []byte) error {
	name, rest, err := takeString(b)
	if err != nil {
		return fmt.Errorf("decode meta context request: %w", err)
	}
	if len(rest) < 4 {
		return fmt.Errorf("decode meta context request: %d bytes after the name: %w", len(rest), block.ErrProtocol)
	}
	n := binary.BigEndian.Uint32(rest)
	if n > maxQueries {
		return fmt.Errorf("decode meta context request: %d queries: %w", n, block.ErrProtocol)
	}
	r.name, r.queries = name, nil
	rest = rest[4:]
	for range n {
		var query string
		if query, rest, err = takeString(rest); err != nil {
			return fmt.Errorf("decode meta context request: %w", err)
		}
		r.queries = append(r.queries, query)
	}
	if len(rest) != 0 {
		return fmt.Errorf("decode meta context request: %d bytes too many: %w", len(rest), block.ErrProtocol)
	}
	return nil
}

func (r *contextRequest) encode() []byte {
	b := appendString(nil, r.name)
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.queries)))
	for _, q := range r.queries {
		b = appendString(b, q)
	}
	return b
}

// MetaContext is a selected meta context and the number that stands for it on
// this connection.
type MetaContext struct {
	ID   uint32
	Name string
}

func (m *MetaContext) decode(b []byte) error {
	if len(b) < 4 || len(b) > 4+maxNameLength {
		return fmt.Errorf("decode meta context: %d bytes: %w", len(b), block.ErrProtocol)
	}
	m.ID, m.Name = binary.BigEndian.Uint32(b), string(b[4:])
	return nil
}

func (m *MetaContext) append(b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, m.ID), m.Name...)
}

// appendInfos returns the payloads of the RepInfo replies that describe an
// export.
func appendInfos(info *ExportInfo, flags TransmissionFlags, want *infoRequest) [][]byte {
	var out [][]byte
	b := binary.BigEndian.AppendUint16(nil, infoExport)
	b = binary.BigEndian.AppendUint64(b, uint64(info.Size))
	out = append(out, binary.BigEndian.AppendUint16(b, uint16(flags)))
	b = binary.BigEndian.AppendUint16(nil, infoBlockSize)
	b = binary.BigEndian.AppendUint32(b, info.MinBlock)
	b = binary.BigEndian.AppendUint32(b, info.PreferredBlock)
	out = append(out, binary.BigEndian.AppendUint32(b, info.MaxBlock))
	if want.wants(infoName) {
		out = append(out, append(binary.BigEndian.AppendUint16(nil, infoName), want.name...))
	}
	if want.wants(infoDescription) && info.Description != "" {
		out = append(out, append(binary.BigEndian.AppendUint16(nil, infoDescription), info.Description...))
	}
	return out
}

// decodeInfo folds one RepInfo payload into info and flags. Unknown information
// is passed over.
func decodeInfo(b []byte, info *ExportInfo, flags *TransmissionFlags) error {
	if len(b) < 2 {
		return fmt.Errorf("decode information: %d bytes: %w", len(b), block.ErrProtocol)
	}
	kind, b := binary.BigEndian.Uint16(b), b[2:]
	switch kind {
	case infoExport:
		if len(b) != 10 {
			return fmt.Errorf("decode export information: %d bytes: %w", len(b), block.ErrProtocol)
		}
		size := binary.BigEndian.Uint64(b)
		if size > 1<<62 {
			return fmt.Errorf("decode export information: size %d: %w", size, block.ErrProtocol)
		}
		info.Size = int64(size)
		*flags = TransmissionFlags(binary.BigEndian.Uint16(b[8:]))
	case infoBlockSize:
		if len(b) != 12 {
			return fmt.Errorf("decode block size information: %d bytes: %w", len(b), block.ErrProtocol)
		}
		info.MinBlock = binary.BigEndian.Uint32(b)
		info.PreferredBlock = binary.BigEndian.Uint32(b[4:])
		info.MaxBlock = binary.BigEndian.Uint32(b[8:])
		if info.MinBlock == 0 || info.MinBlock&(info.MinBlock-1) != 0 || info.MaxBlock < info.MinBlock {
			return fmt.Errorf("decode block size information: %d..%d: %w", info.MinBlock, info.MaxBlock, block.ErrProtocol)
		}
	case infoName:
		info.Name = string(b)
	case infoDescription:
		info.Description = string(b)
	}
	return nil
}
