package socket

import (
	"io"

	"github.com/holdfast-io/holdfast/internal/block"
)

const (
	// InputIdle is the memory of an Input while little arrives: room for a write of 4 KiB,
	// or for dozens of requests without data.
	InputIdle = 8 << 10
	// lullReads is how many reads in a row that InputIdle had room for show that little
	// arrives.
	lullReads = 64
)

// Input reads a connection in large pieces where much arrives, and holds little memory
// where little does: a node has thousands of connections, most of which are idle.
type Input struct {
	from io.Reader
	max  int
	// large is the memory of large pieces, nil while little arrives; data is what is in
	// use.
	large      *block.Buffer
	data       []byte
	head, tail int
	// lull counts reads in a row that were small; full: the last one left no room.
	lull int
	full bool
}

// NewInput makes an Input whose pieces have at most max bytes, more than InputIdle; unread
// are bytes to begin with.
func NewInput(from io.Reader, max int, unread []byte) *Input {
	in := &Input{from: from, max: max, data: make([]byte, InputIdle+len(unread))}
	in.tail = copy(in.data, unread)
	return in
}

// Buffered is how many bytes are there.
func (in *Input) Buffered() int { return in.tail - in.head }

// Take returns the next n bytes of those that are there, valid until the next read.
func (in *Input) Take(n int) []byte {
	p := in.data[in.head : in.head+n]
	in.head += n
	return p
}

// More reads once, and makes room for n bytes in all before that.
func (in *Input) More(n int) error {
	if in.head == in.tail {
		in.head, in.tail = 0, 0
		in.resize()
	} else if len(in.data)-in.head < n {
		in.tail = copy(in.data, in.data[in.head:in.tail])
		in.head = 0
	}
	got, err := in.from.Read(in.data[in.tail:])
	in.tail += got
	in.note(got, in.tail == len(in.data))
	if got > 0 {
		return nil
	}
	return err
}

// Read implements io.Reader. What is longer than a piece goes straight to p.
func (in *Input) Read(p []byte) (int, error) {
	if in.Buffered() == 0 && len(p) >= len(in.data) {
		got, err := in.from.Read(p)
		in.note(got, false)
		return got, err
	}
	if in.Buffered() == 0 && len(p) > 0 {
		if err := in.More(1); err != nil {
			return 0, err
		}
	}
	return copy(p, in.Take(min(len(p), in.Buffered()))), nil
}

// note takes down how much a read got.
func (in *Input) note(got int, full bool) {
	in.full = full
	if in.lull++; got > InputIdle {
		in.lull = 0
	}
}

// resize changes the memory, which is empty, if what arrives calls for it.
func (in *Input) resize() {
	switch {
	case in.large == nil && in.full:
		in.large = block.NewBuffer(in.max)
		in.data = in.large.Data
		in.lull = 0
	case in.large != nil && in.lull >= lullReads:
		in.large.Release()
		in.large, in.data = nil, make([]byte, InputIdle)
	}
}
