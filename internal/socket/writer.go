package socket

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// piecesMax is how many pieces the kernel takes at once (IOV_MAX).
	piecesMax = 1024
	// flatBytes is the size of the pieces in which a connection that cannot take
	// several at once (TLS) is written: one record holds many messages.
	flatBytes = 256 << 10
)

// Writer gathers pieces and sends them together, in their order. One goroutine at a
// time uses it.
type Writer struct {
	socket *Socket
	plain  bool
	// pieces from first on are not sent yet.
	pieces [][]byte
	first  int
	// once and whole are sendOnce and sendWhole, bound once; vector is their memory and
	// err their result.
	once, whole func(fd uintptr) bool
	vector      []unix.Iovec
	err         error
	// flat is the memory in which pieces are joined.
	flat []byte
}

// NewWriter makes a Writer to a socket.
func NewWriter(s *Socket) *Writer {
	w := &Writer{socket: s, plain: s.Plain()}
	w.once, w.whole = w.sendOnce, w.sendWhole
	return w
}

// Add adds a piece. It must stay as it is until all is sent.
func (w *Writer) Add(piece []byte) {
	if len(piece) > 0 {
		w.pieces = append(w.pieces, piece)
	}
}

// Try sends what can be sent without waiting for the peer, and reports whether that
// was all. What is left is for Flush, or for another Try.
func (w *Writer) Try() (all bool, err error) {
	if !w.plain {
		return len(w.pieces) == 0, nil
	}
	err = w.send(w.once)
	if err != nil || w.first == len(w.pieces) {
		w.forget()
		return true, err
	}
	return false, nil
}

// Flush sends all there is, and waits for the peer to take it.
func (w *Writer) Flush() error {
	defer w.forget()
	if w.plain {
		return w.send(w.whole)
	}
	return w.flushFlat()
}

func (w *Writer) send(attempt func(fd uintptr) bool) error {
	err := w.socket.write(attempt)
	if err == nil {
		err, w.err = w.err, nil
	}
	return err
}

// sendOnce makes system calls until nothing is left, or the socket takes no more.
func (w *Writer) sendOnce(fd uintptr) bool {
	w.sendWhole(fd)
	return true
}

// sendWhole does the same, and reports whether nothing more is to be done.
func (w *Writer) sendWhole(fd uintptr) bool {
	for w.first < len(w.pieces) {
		w.vector = w.vector[:0]
		for _, p := range w.pieces[w.first:min(len(w.pieces), w.first+piecesMax)] {
			w.vector = append(w.vector, unix.Iovec{Base: &p[0]})
			w.vector[len(w.vector)-1].SetLen(len(p))
		}
		n, _, errno := unix.Syscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&w.vector[0])), uintptr(len(w.vector)))
		switch errno {
		case 0:
			w.sent(int(n))
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			w.err = os.NewSyscallError("writev", errno)
			return true
		}
	}
	return true
}

// sent leaves out the next n bytes.
func (w *Writer) sent(n int) {
	for n > 0 {
		p := w.pieces[w.first]
		if n < len(p) {
			w.pieces[w.first] = p[n:]
			return
		}
		n -= len(p)
		w.first++
	}
}

// flushFlat sends joined pieces, at the price of a copy.
func (w *Writer) flushFlat() error {
	if w.flat == nil {
		w.flat = make([]byte, 0, flatBytes)
	}
	for _, p := range w.pieces[w.first:] {
		for len(p) > 0 {
			n := min(len(p), flatBytes-len(w.flat))
			w.flat = append(w.flat, p[:n]...)
			p = p[n:]
			if len(w.flat) == flatBytes {
				if err := w.writeFlat(); err != nil {
					return err
				}
			}
		}
	}
	return w.writeFlat()
}

func (w *Writer) writeFlat() error {
	if len(w.flat) == 0 {
		return nil
	}
	err := w.socket.writeFlat(w.flat)
	w.flat = w.flat[:0]
	return err
}

// forget drops the pieces.
func (w *Writer) forget() {
	clear(w.pieces)
	clear(w.vector)
	w.pieces, w.vector, w.first = w.pieces[:0], w.vector[:0], 0
	w.flat = w.flat[:0]
}
