package core

import (
	"bytes"
	"fmt"
	"math/bits"

	"github.com/holdfast-io/holdfast/internal/block"
)

const (
	// revertLanes bounds the pieces that a Revert works on at once. Each holds at most
	// three times block.MaxTransfer bytes.
	revertLanes = 4
	// RevertRequests bounds the requests that a Revert has under way.
	RevertRequests = 2 * revertLanes
)

// Revert gives the head of a volume the content of a snapshot. It is no part of the
// core but a client of it, the only one: Next says what is to be asked, Done hears of
// each end. It knows no clock and no goroutine, so that the simulator can run it, too.
//
// Rule 26 (heads): what may differ is asked of a member, which knows it without reading
// (ChangedRequest). Of that, snapshot and head are read and verified as every client's
// reads are, and what does differ is written, or zeroed, as every client's writes are: so
// members, absent replicas, targets and crashes are dealt with as always, and a revert
// that begins again only finds less to do. What lies beyond the end of the snapshot reads
// as zeros. In the end all of it is flushed; until then the intent in Raft must stay.
type Revert struct {
	snapshot block.Snapshot
	size     int64
	stage    revertStage
	// at is where the next window begins, window the one whose changes are known, from
	// where they have not been dealt with.
	at      int64
	window  block.Span
	changed []byte
	// extent is the first of the window that was not looked at.
	extent int
	lanes  [revertLanes]lane
	// open are the requests under way.
	open        int
	done, total int64
	err         error
}

type revertStage uint8

const (
	// revertCounting: how much may differ is found out, for the progress alone.
	revertCounting revertStage = iota
	revertCopying
	revertFlushing
	revertEnded
)

// lane is a piece of the volume that a Revert works on.
type lane struct {
	span block.Span
	// want and have are what the snapshot and the head hold.
	want, have *block.Buffer
	// asked of the two reads, by bit.
	asked uint8
	// next is where the next write begins, in bytes of the piece.
	next    int64
	writing bool
}

// Tags of the requests of a Revert: lane and what for.
const (
	tagWant = iota
	tagHave
	tagWrite
	tagKinds
	tagChanged = tagKinds * revertLanes
	tagFlush   = tagChanged + 1
	// RevertTags is above every tag.
	RevertTags = tagFlush + 1
)

// NewRevert begins to give a volume the content of a snapshot of its view.
func NewRevert(view *block.View, snapshot block.SnapshotID) (*Revert, error) {
	s := view.Snapshot(snapshot)
	if s == nil {
		return nil, fmt.Errorf("revert volume %s: snapshot %s: %w", view.Volume, snapshot, block.ErrNotFound)
	}
	return &Revert{snapshot: *s, size: view.Size}, nil
}

// Progress is how much of what may differ was dealt with, and how much that is, in
// bytes. The total is 0 until it is known.
func (r *Revert) Progress() (done, total int64) {
	if r.stage == revertCounting {
		return 0, 0
	}
	return r.done, r.total
}

// Ended reports that nothing more is to be asked and nothing is under way, and why: nil
// says that the head is the snapshot, durably.
func (r *Revert) Ended() (bool, error) {
	return r.open == 0 && (r.err != nil || r.stage == revertEnded), r.err
}

// Stop ends it with an error as soon as what is under way has ended.
func (r *Revert) Stop(err error) {
	if r.err == nil {
		r.err = err
	}
}

// Next is a request that is to be made now, if there is one. Its Tag is to be given to
// Done; of its Buf one reference goes along.
func (r *Revert) Next() (Request, bool) {
	req, more := r.next()
	if more {
		r.open++
	}
	return req, more
}

func (r *Revert) next() (Request, bool) {
	if r.err != nil || r.stage == revertEnded {
		return Request{}, false
	}
	if r.stage == revertCopying {
		for i := range r.lanes {
			if req, more := r.advance(i); more {
				return req, true
			}
		}
	}
	if r.open > 0 {
		return Request{}, false
	}
	// The window is done.
	if r.at < r.size {
		r.window = block.Span{Offset: r.at, Length: min(block.ChangedMax, r.size-r.at)}
		return Request{Kind: ChangedRequest, Tag: tagChanged, Offset: r.window.Offset, Length: r.window.Length, Snapshot: r.snapshot.ID}, true
	}
	if r.stage == revertCounting {
		r.stage, r.at = revertCopying, 0
		return r.next()
	}
	r.stage = revertFlushing
	return Request{Kind: FlushRequest, Tag: tagFlush}, true
}

// advance is what a lane is to ask next. An idle one takes the next piece.
func (r *Revert) advance(i int) (Request, bool) {
	l := &r.lanes[i]
	if l.span.Length == 0 && !r.take(l) {
		return Request{}, false
	}
	tag := uint64(i * tagKinds)
	if l.asked&(1<<tagWant) == 0 {
		l.asked |= 1 << tagWant
		length := min(l.span.Length, r.snapshot.Size-l.span.Offset)
		return Request{Kind: ReadRequest, Tag: tag + tagWant, Offset: l.span.Offset, Length: length, Snapshot: r.snapshot.ID}, true
	}
	if l.asked&(1<<tagHave) == 0 {
		l.asked |= 1 << tagHave
		return Request{Kind: ReadRequest, Tag: tag + tagHave, Offset: l.span.Offset, Length: l.span.Length}, true
	}
	if l.want == nil || l.have == nil || l.writing {
		return Request{}, false
	}
	req, more := l.write()
	if more {
		l.writing = true
		req.Tag = tag + tagWrite
		return req, true
	}
	r.done += l.span.Length
	l.clear()
	return r.advance(i)
}

// take gives a lane the next run of extents that may differ, if there is one. What the
// snapshot does not reach is wanted as zeros.
func (r *Revert) take(l *lane) bool {
	has := func(e int) bool { return e/8 < len(r.changed) && r.changed[e/8]&(1<<uint(e%8)) != 0 }
	for r.extent < 8*len(r.changed) && !has(r.extent) {
		r.extent++
	}
	first := r.extent
	for has(r.extent) && r.extent-first < block.MaxTransfer/block.ExtentSize {
		r.extent++
	}
	if r.extent == first {
		return false
	}
	start := r.window.Offset + int64(first)*block.ExtentSize
	end := min(r.window.Offset+int64(r.extent)*block.ExtentSize, r.window.End())
	*l = lane{span: block.Span{Offset: start, Length: end - start}}
	if start >= r.snapshot.Size {
		l.want = block.NewBuffer(int(l.span.Length))
		clear(l.want.Data)
		l.asked = 1 << tagWant
	}
	return true
}

// write is the next run of blocks in which the head is not what is wanted.
func (l *lane) write() (Request, bool) {
	var kind RequestKind
	first := int64(-1)
	at := l.next
	for ; at < l.span.Length; at += block.BlockSize {
		end := min(at+block.BlockSize, l.span.Length)
		want := l.want.Data[at:end]
		k := RequestKind(0)
		switch {
		case bytes.Equal(want, l.have.Data[at:end]):
		case allZero(want):
			k = ZeroRequest
		default:
			k = WriteRequest
		}
		if first >= 0 && k != kind {
			break
		}
		if k != 0 && first < 0 {
			first, kind = at, k
		}
	}
	l.next = min(at, l.span.Length)
	if first < 0 {
		return Request{}, false
	}
	req := Request{Kind: kind, Offset: l.span.Offset + first, Length: l.next - first}
	if kind == WriteRequest {
		req.Buf = block.NewBuffer(int(req.Length))
		copy(req.Buf.Data, l.want.Data[first:l.next])
	}
	return req, true
}

func (l *lane) clear() {
	l.want.Release()
	l.have.Release()
	*l = lane{}
}

// Done is the end of a request. It takes over one reference of buf.
func (r *Revert) Done(tag uint64, err error, buf *block.Buffer) {
	r.open--
	if err != nil {
		r.Stop(err)
	}
	switch {
	case r.err != nil:
		buf.Release()
	case tag == tagFlush:
		r.stage = revertEnded
	case tag == tagChanged:
		r.windowKnown(buf)
	default:
		r.lanes[tag/tagKinds].done(tag%tagKinds, buf)
	}
	if over, _ := r.Ended(); over {
		for i := range r.lanes {
			r.lanes[i].clear()
		}
	}
}

// windowKnown takes in what may differ in the window.
func (r *Revert) windowKnown(buf *block.Buffer) {
	r.at = r.window.End()
	if r.stage == revertCounting {
		for _, b := range buf.Data {
			r.total += int64(bits.OnesCount8(b)) * block.ExtentSize
		}
	} else {
		r.changed, r.extent = append(r.changed[:0], buf.Data...), 0
	}
	buf.Release()
}

func (l *lane) done(what uint64, buf *block.Buffer) {
	switch what {
	case tagHave:
		l.have = buf
	case tagWrite:
		l.writing = false
	case tagWant:
		l.want = buf
		if short := int64(len(buf.Data)); short < l.span.Length {
			// The snapshot ends here.
			l.want = block.NewBuffer(int(l.span.Length))
			copy(l.want.Data, buf.Data)
			clear(l.want.Data[short:])
			buf.Release()
		}
	}
}
