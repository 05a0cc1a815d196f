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
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Negotiation is the server's side of a handshake in progress. It belongs to
// one goroutine.
type Negotiation struct {
	server *Server
	socket net.Conn
	in     *bufio.Reader
	out    *bufio.Writer

	noZeroes   bool
	structured bool
	secure     bool
	// contexts were selected for the export named contextsOf.
	contexts   []MetaContext
	contextsOf string
	// current is the option being served.
	current Option
}

// outcome is what an option makes of the handshake.
type outcome uint8

const (
	outcomeContinue outcome = iota
	outcomeTransmit
	outcomeEnd
)

// Negotiate leads the handshake on a fresh connection. The outcome is a Conn in
// the transmission phase, for the caller to Run; nil without an error when the
// client left in order or a private option took the connection. The socket is
// closed unless a Conn is returned.
func (s *Server) Negotiate(ctx context.Context, socket net.Conn) (conn *Conn, err error) {
	n := &Negotiation{server: s, socket: socket, in: bufio.NewReader(socket), out: bufio.NewWriter(socket)}
	defer func() {
		if conn == nil {
			err = errors.Join(err, closeQuietly(n.socket))
		}
	}()
	stop := context.AfterFunc(ctx, func() { _ = socket.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := socket.SetDeadline(time.Now().Add(s.config.HandshakeTimeout)); err != nil {
		return nil, fmt.Errorf("negotiate: %w", err)
	}
	if err := n.greet(); err != nil {
		return nil, fmt.Errorf("negotiate: greeting: %w", err)
	}
	for range maxOptions {
		conn, what, err := n.step(ctx)
		if err != nil {
			return nil, fmt.Errorf("negotiate: option %d: %w", n.current, err)
		}
		switch what {
		case outcomeEnd:
			return nil, nil
		case outcomeTransmit:
			if !stop() {
				return nil, fmt.Errorf("negotiate: %w", context.Cause(ctx))
			}
			return conn, n.socket.SetDeadline(time.Time{})
		}
	}
	return nil, fmt.Errorf("negotiate: more than %d options: %w", maxOptions, block.ErrProtocol)
}

// closeQuietly closes a socket that may be closed already.
func closeQuietly(socket net.Conn) error {
	if err := socket.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// greet exchanges the greetings.
func (n *Negotiation) greet() error {
	var hello [18]byte
	binary.BigEndian.PutUint64(hello[:], magicGreeting)
	binary.BigEndian.PutUint64(hello[8:], magicOption)
	binary.BigEndian.PutUint16(hello[16:], flagFixedNewstyle|flagNoZeroes)
	if _, err := n.socket.Write(hello[:]); err != nil {
		return err
	}
	var answer [4]byte
	if _, err := io.ReadFull(n.in, answer[:]); err != nil {
		return err
	}
	flags := binary.BigEndian.Uint32(answer[:])
	if flags&^uint32(flagFixedNewstyle|flagNoZeroes) != 0 || flags&uint32(flagFixedNewstyle) == 0 {
		return fmt.Errorf("client flags %#x: %w", flags, block.ErrProtocol)
	}
	n.noZeroes = flags&uint32(flagNoZeroes) != 0
	return nil
}

// step reads and serves one option.
func (n *Negotiation) step(ctx context.Context) (*Conn, outcome, error) {
	var raw [optionHeaderLength]byte
	if _, err := io.ReadFull(n.in, raw[:]); err != nil {
		return nil, outcomeEnd, err
	}
	var h optionHeader
	if err := h.decode(raw[:]); err != nil {
		return nil, outcomeEnd, err
	}
	n.current = h.option
	payload, err := n.readPayload(h.length)
	if err != nil {
		return nil, outcomeEnd, err
	}
	if payload == nil {
		return nil, outcomeContinue, n.refuseOption(RepErrTooBig, "option payload too long")
	}
	return n.serveOption(ctx, payload)
}

// readPayload reads an option's payload; nil means that it was too long and has
// been thrown away.
func (n *Negotiation) readPayload(length uint32) ([]byte, error) {
	if length <= maxOptionLength {
		payload := make([]byte, length)
		_, err := io.ReadFull(n.in, payload)
		return payload, err
	}
	if length > maxOptionSkip {
		return nil, fmt.Errorf("payload of %d bytes: %w", length, block.ErrProtocol)
	}
	_, err := io.CopyN(io.Discard, n.in, int64(length))
	return nil, err
}

// serveOption dispatches one option.
func (n *Negotiation) serveOption(ctx context.Context, payload []byte) (*Conn, outcome, error) {
	if n.server.config.RequireTLS && !n.secure && n.current != OptStartTLS && n.current != OptAbort {
		if n.current == OptExportName {
			return nil, outcomeEnd, fmt.Errorf("export asked for before TLS: %w", block.ErrProtocol)
		}
		return nil, outcomeContinue, n.refuseOption(RepErrTLSRequired, "TLS required")
	}
	switch n.current {
	case OptExportName:
		conn, err := n.exportName(ctx, string(payload))
		return conn, outcomeTransmit, err
	case OptAbort:
		// The client may be gone before it has read the acknowledgement.
		_ = n.Reply(RepAck, nil)
		return nil, outcomeEnd, nil
	case OptInfo, OptGo:
		return n.info(ctx, payload)
	case OptList:
		return nil, outcomeContinue, n.list(ctx, payload)
	case OptStartTLS:
		return nil, outcomeContinue, n.startTLS(ctx, payload)
	case OptStructuredReply:
		if len(payload) != 0 {
			return nil, outcomeContinue, n.refuseOption(RepErrInvalid, "unexpected payload")
		}
		n.structured = true
		return nil, outcomeContinue, n.Reply(RepAck, nil)
	case OptListMetaContext, OptSetMetaContext:
		return nil, outcomeContinue, n.metaContext(ctx, payload)
	default:
		return n.private(ctx, payload)
	}
}

// private serves a private option, or refuses an unknown one.
func (n *Negotiation) private(ctx context.Context, payload []byte) (*Conn, outcome, error) {
	handler := n.server.config.Options[n.current]
	if handler == nil {
		return nil, outcomeContinue, n.refuseOption(RepErrUnsup, "")
	}
	if took, err := handler(ctx, n, payload); took || err != nil {
		return nil, outcomeEnd, err
	}
	return nil, outcomeContinue, nil
}

// Reply answers the current option and sends at once.
func (n *Negotiation) Reply(reply ReplyType, payload []byte) error {
	if err := n.queueReply(reply, payload); err != nil {
		return err
	}
	return n.out.Flush()
}

// Refuse answers the current option with an error and a text for people.
func (n *Negotiation) Refuse(reply ReplyType, text string) error {
	if reply&repError == 0 {
		return fmt.Errorf("refuse option with reply %d: %w", reply, block.ErrInvalid)
	}
	return n.refuseOption(reply, text)
}

func (n *Negotiation) refuseOption(reply ReplyType, text string) error {
	return n.Reply(reply, []byte(text[:min(len(text), maxNameLength)]))
}

func (n *Negotiation) queueReply(reply ReplyType, payload []byte) error {
	var raw [optionReplyHeaderLength]byte
	h := optionReplyHeader{option: n.current, reply: reply, length: uint32(len(payload))}
	h.encode(raw[:])
	if _, err := n.out.Write(raw[:]); err != nil {
		return err
	}
	_, err := n.out.Write(payload)
	return err
}

// Take hands the connection to a private option: the socket without a deadline,
// and a reader that holds what was read too many. The handler must read through
// it, and stop when its context ends.
func (n *Negotiation) Take() (net.Conn, *bufio.Reader, error) {
	if err := n.out.Flush(); err != nil {
		return nil, nil, err
	}
	return n.socket, n.in, n.socket.SetDeadline(time.Time{})
}

// TLS is the state of the connection's TLS, nil without.
func (n *Negotiation) TLS() *tls.ConnectionState {
	if secure, ok := n.socket.(*tls.Conn); ok {
		state := secure.ConnectionState()
		return &state
	}
	return nil
}

// exportName serves the oldest way to choose an export: it has no error reply.
func (n *Negotiation) exportName(ctx context.Context, name string) (*Conn, error) {
	export, err := n.open(ctx, name)
	if err != nil {
		return nil, err
	}
	info := export.Info().withDefaults()
	answer := binary.BigEndian.AppendUint64(nil, uint64(info.Size))
	answer = binary.BigEndian.AppendUint16(answer, uint16(n.flags(&info)))
	if !n.noZeroes {
		answer = append(answer, make([]byte, 124)...)
	}
	if _, err := n.out.Write(answer); err != nil {
		return nil, errors.Join(err, export.Close())
	}
	return n.transmit(export, name)
}

func (n *Negotiation) flags(info *ExportInfo) TransmissionFlags {
	f := info.Flags()
	if n.structured {
		f |= FlagSendDF
	}
	return f
}

// open opens an export and checks what it says of itself.
func (n *Negotiation) open(ctx context.Context, name string) (Export, error) {
	export, err := n.server.config.Exports.Open(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("open export %q: %w", name, err)
	}
	info := export.Info()
	if err := info.Validate(); err != nil {
		return nil, errors.Join(err, export.Close())
	}
	return export, nil
}

// info serves OptInfo and OptGo.
func (n *Negotiation) info(ctx context.Context, payload []byte) (*Conn, outcome, error) {
	var want infoRequest
	if err := want.decode(payload); err != nil {
		return nil, outcomeContinue, n.refuseOption(RepErrInvalid, err.Error())
	}
	export, err := n.open(ctx, want.name)
	if err != nil {
		return nil, outcomeContinue, n.refuseOption(refusal(err), err.Error())
	}
	info := export.Info().withDefaults()
	if info.MinBlock > block.SectorSize && !want.wants(infoBlockSize) && n.current == OptGo {
		// A client that does not ask assumes sectors.
		return nil, outcomeContinue, errors.Join(export.Close(), n.refuseOption(RepErrBlockSizeReqd, "block sizes above 512 bytes"))
	}
	for _, payload := range appendInfos(&info, n.flags(&info), &want) {
		if err := n.queueReply(RepInfo, payload); err != nil {
			return nil, outcomeEnd, errors.Join(err, export.Close())
		}
	}
	if err := n.queueReply(RepAck, nil); err != nil {
		return nil, outcomeEnd, errors.Join(err, export.Close())
	}
	if n.current == OptInfo {
		return nil, outcomeContinue, errors.Join(n.out.Flush(), export.Close())
	}
	conn, err := n.transmit(export, want.name)
	return conn, outcomeTransmit, err
}

// transmit ends the handshake; it owns the export, also on failure.
func (n *Negotiation) transmit(export Export, name string) (*Conn, error) {
	if err := n.out.Flush(); err != nil {
		return nil, errors.Join(err, export.Close())
	}
	contexts := n.contexts
	if n.contextsOf != name {
		// Contexts hold for the export they were asked for.
		contexts = nil
	}
	unread, err := n.in.Peek(n.in.Buffered())
	if err != nil {
		return nil, errors.Join(err, export.Close())
	}
	conn, err := newConn(n.socket, ConnConfig{
		Info:             export.Info(),
		Backend:          export,
		Structured:       n.structured,
		Contexts:         contexts,
		MaxInFlight:      n.server.config.MaxInFlight,
		MaxInFlightBytes: n.server.config.MaxInFlightBytes,
		HoldErrors:       n.server.config.HoldErrors,
		Logger:           n.server.log.With("export", name),
	}, unread, export.Close)
	if err != nil {
		return nil, errors.Join(err, export.Close())
	}
	return conn, nil
}

// list serves OptList.
func (n *Negotiation) list(ctx context.Context, payload []byte) error {
	if len(payload) != 0 {
		return n.refuseOption(RepErrInvalid, "unexpected payload")
	}
	for _, name := range n.server.config.Exports.List(ctx) {
		if err := n.queueReply(RepServer, appendString(nil, name)); err != nil {
			return err
		}
	}
	return n.Reply(RepAck, nil)
}

// startTLS upgrades the connection. Everything negotiated before is forgotten,
// and nothing that arrived in the clear is read as if it were secure.
func (n *Negotiation) startTLS(ctx context.Context, payload []byte) error {
	switch {
	case len(payload) != 0:
		return n.refuseOption(RepErrInvalid, "unexpected payload")
	case n.server.config.TLS == nil:
		return n.refuseOption(RepErrPolicy, "TLS is not configured")
	case n.secure:
		return n.refuseOption(RepErrInvalid, "TLS is on")
	}
	if n.in.Buffered() != 0 {
		return fmt.Errorf("bytes after STARTTLS: %w", block.ErrProtocol)
	}
	if err := n.Reply(RepAck, nil); err != nil {
		return err
	}
	secure := tls.Server(n.socket, n.server.config.TLS)
	if err := secure.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	n.socket = secure
	n.in.Reset(secure)
	n.out.Reset(secure)
	n.secure, n.structured, n.contexts, n.contextsOf = true, false, nil, ""
	return nil
}

// metaContext serves OptListMetaContext and OptSetMetaContext.
func (n *Negotiation) metaContext(ctx context.Context, payload []byte) error {
	var request contextRequest
	if err := request.decode(payload); err != nil {
		return n.refuseOption(RepErrInvalid, err.Error())
	}
	if n.current == OptSetMetaContext {
		n.contexts, n.contextsOf = nil, ""
		if !n.structured {
			return n.refuseOption(RepErrInvalid, "structured replies were not negotiated")
		}
	}
	export, err := n.open(ctx, request.name)
	if err != nil {
		return n.refuseOption(refusal(err), err.Error())
	}
	offered := export.Info().Contexts
	if err := export.Close(); err != nil {
		return err
	}
	chosen := matchContexts(offered, request.queries, n.current == OptListMetaContext)
	if n.current == OptSetMetaContext {
		n.contexts, n.contextsOf = chosen, request.name
	}
	for _, m := range chosen {
		if err := n.queueReply(RepMetaContext, m.append(nil)); err != nil {
			return err
		}
	}
	return n.Reply(RepAck, nil)
}

// matchContexts selects the offered contexts that a query names. In a list, no
// query means all, and a query that ends in a colon its whole namespace.
func matchContexts(offered, queries []string, list bool) []MetaContext {
	var chosen []MetaContext
	for i, name := range offered {
		match := list && len(queries) == 0
		for _, q := range queries {
			match = match || q == name || (list && strings.HasSuffix(q, ":") && strings.HasPrefix(name, q))
		}
		if match {
			// Zero is left out, so that a forgotten number is noticed.
			chosen = append(chosen, MetaContext{ID: uint32(i) + 1, Name: name})
		}
	}
	return chosen
}
