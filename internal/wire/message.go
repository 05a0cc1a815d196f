package wire

import (
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
)

// message is what travels: a request one way, a reply the other.
type message interface{ block.Request | block.Reply }

// appendRequest appends header and metadata of a request to b; the data that
// follows is req.Buf.
func appendRequest(b []byte, replica block.ReplicaID, req *block.Request) ([]byte, error) {
	h := header{
		kind: kindRequest, op: req.Op, flags: req.Flags, replica: replica, epoch: req.Epoch,
		session: req.Session, seq: req.Seq, offset: req.Offset, length: req.Length,
	}
	start := len(b)
	b = append(b, make([]byte, headerSize)...)
	switch {
	case req.Op == block.OpOpen && req.Open != nil:
		b = appendOpen(b, req.Open)
	case req.Op == block.OpFlush:
		b = appendConfirmed(appendFlushNumber(b, req.Flush), req.Confirmed)
	case req.Op == block.OpUpdate && req.Update != nil:
		if err := fitsUpdate(req.Update); err != nil {
			return nil, err
		}
		b = appendUpdate(b, req.Update)
	case readsOrWrites(req.Op):
		b = appendSnapshotIDs(b, req.Snapshot, req.Since)
	}
	return b, seal(b[start:], &h, req.Buf)
}

// appendReply appends header and metadata of a reply to b; the data that
// follows is rep.Buf.
func appendReply(b []byte, replica block.ReplicaID, rep *block.Reply) ([]byte, error) {
	h := header{
		kind: kindReply, op: rep.Op, status: statusOf(rep.Err), replica: replica, epoch: rep.Epoch,
		session: rep.Session, seq: rep.Seq, offset: rep.Free,
	}
	start := len(b)
	b = append(b, make([]byte, headerSize)...)
	switch {
	case rep.Err != nil:
		b = append(b, errorText(rep.Err)...)
	case rep.Op == block.OpOpen && rep.Opened != nil:
		if err := fitsOpened(rep.Opened); err != nil {
			return nil, err
		}
		b = appendOpened(b, rep.Opened)
	case rep.Op == block.OpHash:
		b = appendSnapshotIDs(appendHashes(b, rep.Hashes), rep.Next, block.SnapshotID{})
	}
	return b, seal(b[start:], &h, rep.Buf)
}

// readsOrWrites reports whether an operation may be one on a cut.
func readsOrWrites(op block.Op) bool {
	return op == block.OpRead || op == block.OpHash || op == block.OpWrite || op == block.OpZero || op == block.OpChanged
}

// seal completes a frame of which b is header and metadata. It refuses what the
// receiver would refuse.
func seal(b []byte, h *header, data *block.Buffer) error {
	meta := b[headerSize:]
	h.metaSize = uint32(len(meta))
	h.bodySum = block.Checksum(meta)
	if data != nil {
		h.dataSize = uint32(len(data.Data))
		h.bodySum = data.Checksum(h.bodySum)
	}
	if err := h.checkSizes(); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	h.encode(b)
	return nil
}

// decodeRequest makes a request of a frame and takes buf over.
func decodeRequest(h *header, meta []byte, buf *block.Buffer) (block.Request, error) {
	req := block.Request{
		Op: h.op, Flags: h.flags, Epoch: h.epoch, Session: h.session, Seq: h.seq,
		Offset: h.offset, Length: h.length, Buf: buf,
	}
	d := decoder{rest: meta}
	switch h.op {
	case block.OpOpen:
		req.Open = d.open()
		if req.Open.Replica != h.replica {
			d.fail("another replica than in the frame's header")
		}
	case block.OpFlush:
		req.Flush = d.flushNumber()
		req.Confirmed = d.confirmed()
	case block.OpUpdate:
		req.Update = d.update()
	default:
		if readsOrWrites(h.op) {
			req.Snapshot, req.Since = d.snapshotIDs(h.op == block.OpHash)
		}
	}
	if err := d.end(); err != nil {
		buf.Release()
		return block.Request{}, fmt.Errorf("request of operation %d: %w", h.op, err)
	}
	return req, nil
}

// decodeReply makes a reply of a frame and takes buf over.
func decodeReply(h *header, meta []byte, buf *block.Buffer) (block.Reply, error) {
	rep := block.Reply{
		Op: h.op, Epoch: h.epoch, Session: h.session, Seq: h.seq, Free: h.offset, Buf: buf,
	}
	if h.status != statusOK {
		rep.Err = errorOf(h.status, meta)
		return rep, nil
	}
	d := decoder{rest: meta}
	switch h.op {
	case block.OpOpen:
		rep.Opened = d.opened()
	case block.OpHash:
		rep.Hashes = d.hashes()
		rep.Next, _ = d.snapshotIDs(false)
	}
	if err := d.end(); err != nil {
		buf.Release()
		return block.Reply{}, fmt.Errorf("reply to operation %d: %w", h.op, err)
	}
	return rep, nil
}
