package nbd

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

// ClientHandshake is the client's side of a handshake in progress. It belongs
// to one goroutine. Its methods end early when the context it was started with
// does.
type ClientHandshake struct {
	socket     net.Conn
	in         *bufio.Reader
	noZeroes   bool
	structured bool
	contexts   []MetaContext
	stop       func() bool
}

// OptionReply is one reply to an option.
type OptionReply struct {
	Type    ReplyType
	Payload []byte
}

// StartHandshake exchanges greetings and, with a TLS configuration, turns TLS
// on. The caller closes the socket when it fails. Finish or Take ends the hold
// of ctx on the connection.
func StartHandshake(ctx context.Context, socket net.Conn, config *tls.Config) (*ClientHandshake, error) {
	h := &ClientHandshake{socket: socket, in: bufio.NewReader(socket)}
	h.stop = context.AfterFunc(ctx, func() { _ = socket.SetDeadline(time.Unix(1, 0)) })
	err := h.greet()
	if err == nil && config != nil {
		err = h.startTLS(ctx, config)
	}
	if err != nil {
		h.stop()
		return nil, fmt.Errorf("NBD handshake: %w", err)
	}
	return h, nil
}

func (h *ClientHandshake) greet() error {
	var hello [18]byte
	if _, err := io.ReadFull(h.in, hello[:]); err != nil {
		return err
	}
	if binary.BigEndian.Uint64(hello[:]) != magicGreeting || binary.BigEndian.Uint64(hello[8:]) != magicOption {
		return fmt.Errorf("greeting %x: %w", hello[:16], block.ErrProtocol)
	}
	flags := binary.BigEndian.Uint16(hello[16:])
	if flags&flagFixedNewstyle == 0 {
		return fmt.Errorf("server without fixed newstyle negotiation: %w", block.ErrVersion)
	}
	h.noZeroes = flags&flagNoZeroes != 0
	var answer [4]byte
	binary.BigEndian.PutUint32(answer[:], uint32(flags&(flagFixedNewstyle|flagNoZeroes)))
	_, err := h.socket.Write(answer[:])
	return err
}

func (h *ClientHandshake) startTLS(ctx context.Context, config *tls.Config) error {
	if _, err := h.Option(OptStartTLS, nil); err != nil {
		return err
	}
	if h.in.Buffered() != 0 {
		return fmt.Errorf("bytes after STARTTLS: %w", block.ErrProtocol)
	}
	secure := tls.Client(h.socket, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	h.socket = secure
	h.in.Reset(secure)
	return nil
}

// Option sends an option and collects its replies up to the acknowledgement,
// which is not among them. A refusal is an *OptionError; the handshake can go on
// after it.
func (h *ClientHandshake) Option(option Option, payload []byte) ([]OptionReply, error) {
	if err := h.send(option, payload); err != nil {
		return nil, fmt.Errorf("option %d: %w", option, err)
	}
	var replies []OptionReply
	for range maxReplies {
		reply, err := h.reply(option)
		if err != nil {
			return nil, fmt.Errorf("option %d: %w", option, err)
		}
		switch {
		case reply.Type == RepAck:
			return replies, nil
		case reply.Type&repError != 0:
			text := reply.Payload[:min(len(reply.Payload), maxErrorText)]
			return nil, &OptionError{Option: option, Reply: reply.Type, Text: string(text)}
		}
		replies = append(replies, reply)
	}
	return nil, fmt.Errorf("option %d: more than %d replies: %w", option, maxReplies, block.ErrProtocol)
}

// maxReplies bounds the replies to one option: a list of exports has one each.
const maxReplies = 64 << 10

func (h *ClientHandshake) send(option Option, payload []byte) error {
	message := make([]byte, optionHeaderLength, optionHeaderLength+len(payload))
	header := optionHeader{option: option, length: uint32(len(payload))}
	header.encode(message)
	_, err := h.socket.Write(append(message, payload...))
	return err
}

func (h *ClientHandshake) reply(option Option) (OptionReply, error) {
	var raw [optionReplyHeaderLength]byte
	if _, err := io.ReadFull(h.in, raw[:]); err != nil {
		return OptionReply{}, err
	}
	var header optionReplyHeader
	if err := header.decode(raw[:]); err != nil {
		return OptionReply{}, err
	}
	if header.option != option {
		return OptionReply{}, fmt.Errorf("reply to option %d: %w", header.option, block.ErrProtocol)
	}
	payload := make([]byte, header.length)
	if _, err := io.ReadFull(h.in, payload); err != nil {
		return OptionReply{}, err
	}
	return OptionReply{Type: header.reply, Payload: payload}, nil
}

// Take ends the handshake for a private protocol: the socket without a
// deadline, and the reader that holds what was read too many.
func (h *ClientHandshake) Take() (net.Conn, *bufio.Reader, error) {
	if !h.stop() {
		return nil, nil, fmt.Errorf("NBD handshake: %w", context.Canceled)
	}
	return h.socket, h.in, h.socket.SetDeadline(time.Time{})
}

// Abort leaves in order. The caller still closes the socket.
func (h *ClientHandshake) Abort() error {
	defer h.stop()
	return h.send(OptAbort, nil)
}

// List names the server's exports.
func (h *ClientHandshake) List() ([]string, error) {
	replies, err := h.Option(OptList, nil)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(replies))
	for _, r := range replies {
		name, _, err := takeString(r.Payload)
		if r.Type != RepServer || err != nil {
			return nil, fmt.Errorf("list exports: reply %d: %w", r.Type, block.ErrProtocol)
		}
		names = append(names, name)
	}
	return names, nil
}

// StructuredReplies asks for structured replies; a server that has none is not
// an error.
func (h *ClientHandshake) StructuredReplies() error {
	_, err := h.Option(OptStructuredReply, nil)
	if optionRefused(err) {
		return nil
	}
	h.structured = err == nil
	return err
}

// optionRefused: the option is unknown to the server, which goes on.
func optionRefused(err error) bool {
	var refused *OptionError
	return errors.As(err, &refused) && (refused.Reply == RepErrUnsup || refused.Reply == RepErrPolicy)
}

// SelectContexts selects meta contexts of an export and returns those that the
// server has.
func (h *ClientHandshake) SelectContexts(export string, queries []string) ([]MetaContext, error) {
	request := contextRequest{name: export, queries: queries}
	replies, err := h.Option(OptSetMetaContext, request.encode())
	if err != nil {
		return nil, err
	}
	h.contexts, err = decodeContexts(replies)
	return h.contexts, err
}

// ListContexts names the meta contexts that an export offers.
func (h *ClientHandshake) ListContexts(export string) ([]string, error) {
	request := contextRequest{name: export}
	replies, err := h.Option(OptListMetaContext, request.encode())
	if err != nil {
		return nil, err
	}
	contexts, err := decodeContexts(replies)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(contexts))
	for i, m := range contexts {
		names[i] = m.Name
	}
	return names, nil
}

func decodeContexts(replies []OptionReply) ([]MetaContext, error) {
	contexts := make([]MetaContext, len(replies))
	for i, r := range replies {
		if r.Type != RepMetaContext {
			return nil, fmt.Errorf("meta contexts: reply %d: %w", r.Type, block.ErrProtocol)
		}
		if err := contexts[i].decode(r.Payload); err != nil {
			return nil, err
		}
	}
	return contexts, nil
}

// Info describes an export without choosing it.
func (h *ClientHandshake) Info(export string) (ExportInfo, error) {
	return h.export(OptInfo, export)
}

// choose enters the transmission phase on an export, by the oldest way where
// the server knows no other.
func (h *ClientHandshake) choose(export string) (ExportInfo, error) {
	info, err := h.export(OptGo, export)
	var refused *OptionError
	if !errors.As(err, &refused) || refused.Reply != RepErrUnsup {
		return info, err
	}
	if err := h.send(OptExportName, []byte(export)); err != nil {
		return ExportInfo{}, fmt.Errorf("choose export %q: %w", export, err)
	}
	answer := make([]byte, 10, 134)
	if !h.noZeroes {
		answer = answer[:134]
	}
	if _, err := io.ReadFull(h.in, answer); err != nil {
		return ExportInfo{}, fmt.Errorf("choose export %q: %w", export, err)
	}
	var flags TransmissionFlags
	info = ExportInfo{Name: export, MinBlock: block.SectorSize}
	prefixed := append(binary.BigEndian.AppendUint16(nil, infoExport), answer[:10]...)
	if err := decodeInfo(prefixed, &info, &flags); err != nil {
		return ExportInfo{}, err
	}
	info.setFlags(flags)
	return info.withDefaults(), nil
}

// export serves OptInfo and OptGo.
func (h *ClientHandshake) export(option Option, export string) (ExportInfo, error) {
	request := infoRequest{name: export, infos: []uint16{infoBlockSize, infoName, infoDescription}}
	replies, err := h.Option(option, request.append(nil))
	if err != nil {
		return ExportInfo{}, err
	}
	// What the standard says of a server that does not tell its block sizes.
	info := ExportInfo{Name: export, Size: -1, MinBlock: block.SectorSize}
	var flags TransmissionFlags
	for _, r := range replies {
		if r.Type != RepInfo {
			return ExportInfo{}, fmt.Errorf("export %q: reply %d: %w", export, r.Type, block.ErrProtocol)
		}
		if err := decodeInfo(r.Payload, &info, &flags); err != nil {
			return ExportInfo{}, fmt.Errorf("export %q: %w", export, err)
		}
	}
	if info.Size < 0 {
		return ExportInfo{}, fmt.Errorf("export %q: no size: %w", export, block.ErrProtocol)
	}
	for _, m := range h.contexts {
		info.Contexts = append(info.Contexts, m.Name)
	}
	info.setFlags(flags)
	return info.withDefaults(), nil
}
