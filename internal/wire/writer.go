package wire

import (
	"net"
)

// coalesceMax is the size of the pieces in which a connection without writev
// (TLS) is written, in bytes.
const coalesceMax = 256 << 10

// writer sends the messages of an outbox, all that are there with one writev.
// One goroutine runs it.
type writer[M message] struct {
	conn   net.Conn
	outbox *outbox[M]
	// append appends header and metadata of a message.
	append func(b []byte, m *M) ([]byte, error)
	// written is told each batch after it was written, before its data are
	// released. It may be nil.
	written func([]M)

	// heads is the memory of headers and metadata of a batch, cuts where in it
	// the data of messages belong.
	heads []byte
	cuts  []cut
	// vector and rest are the pieces to write; rest is consumed by the write.
	vector [][]byte
	rest   net.Buffers
	flat   []byte
}

// cut says that data follow the first end bytes of writer.heads.
type cut struct {
	end  int
	data []byte
}

// run writes until the outbox is closed (nil) or the connection fails.
func (w *writer[M]) run() error {
	var batch []M
	var bytes int64
	for {
		if batch = w.outbox.take(batch, bytes); len(batch) == 0 {
			return nil
		}
		err := w.write(batch)
		if err == nil && w.written != nil {
			w.written(batch)
		}
		bytes = 0
		for i := range batch {
			if data := dataOf(&batch[i]); data != nil {
				bytes += int64(len(data.Data))
				data.Release()
			}
		}
		if err != nil {
			return err
		}
	}
}

// write sends one batch.
func (w *writer[M]) write(batch []M) error {
	w.heads = w.heads[:0]
	w.cuts = w.cuts[:0]
	for i := range batch {
		var err error
		if w.heads, err = w.append(w.heads, &batch[i]); err != nil {
			return err
		}
		if data := dataOf(&batch[i]); data != nil {
			w.cuts = append(w.cuts, cut{end: len(w.heads), data: data.Data})
		}
	}
	w.arrange()
	defer w.forget()
	if _, ok := w.conn.(*net.TCPConn); ok {
		w.rest = w.vector
		_, err := w.rest.WriteTo(w.conn)
		return err
	}
	return w.writeFlat()
}

// arrange lays heads and data out in the order in which they go.
func (w *writer[M]) arrange() {
	w.vector = w.vector[:0]
	start := 0
	for _, c := range w.cuts {
		w.vector = append(w.vector, w.heads[start:c.end], c.data)
		start = c.end
	}
	if start < len(w.heads) {
		w.vector = append(w.vector, w.heads[start:])
	}
}

// writeFlat writes the vector in few pieces, at the price of a copy.
func (w *writer[M]) writeFlat() error {
	if w.flat == nil {
		w.flat = make([]byte, 0, coalesceMax)
	}
	w.flat = w.flat[:0]
	for _, piece := range w.vector {
		for len(piece) > 0 {
			n := min(len(piece), coalesceMax-len(w.flat))
			w.flat = append(w.flat, piece[:n]...)
			piece = piece[n:]
			if len(w.flat) == coalesceMax {
				if _, err := w.conn.Write(w.flat); err != nil {
					return err
				}
				w.flat = w.flat[:0]
			}
		}
	}
	_, err := w.conn.Write(w.flat)
	return err
}

// forget drops references to data, and memory that an extraordinary batch took.
func (w *writer[M]) forget() {
	clear(w.cuts)
	clear(w.vector)
	w.rest = nil
	if cap(w.heads) > 1<<20 {
		w.heads = nil
	}
}
