package socket

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

const inputMax = 256 << 10

// pieces is a connection on which pieces arrive one by one.
type pieces struct {
	sizes []int
	next  byte
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.sizes) == 0 {
		return 0, io.EOF
	}
	n := min(len(b), p.sizes[0])
	for i := range n {
		b[i] = p.next
		p.next++
	}
	if p.sizes[0] -= n; p.sizes[0] == 0 {
		p.sizes = p.sizes[1:]
	}
	return n, nil
}

// TestInputHoldsWhatItNeeds: large pieces once much arrives, and little memory when that is
// over; no byte is lost on the way.
func TestInputHoldsWhatItNeeds(t *testing.T) {
	from := &pieces{sizes: []int{100, 1 << 20}}
	for range lullReads + 1 {
		from.sizes = append(from.sizes, 100)
	}
	in := NewInput(from, inputMax, nil)
	want := byte(0)
	largest := 0
	for {
		err := in.More(1)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		largest = max(largest, len(in.data))
		for _, b := range in.Take(in.Buffered()) {
			if b != want {
				t.Fatalf("byte %d, want %d", b, want)
			}
			want++
		}
	}
	if largest != inputMax || len(in.data) != InputIdle {
		t.Errorf("at most %d bytes, in the end %d", largest, len(in.data))
	}
}

func TestInputMakesRoom(t *testing.T) {
	in := NewInput(&pieces{sizes: []int{InputIdle, 40}}, inputMax, []byte("ab"))
	if got := string(in.Take(2)); got != "ab" {
		t.Errorf("unread %q", got)
	}
	if err := in.More(1); err != nil {
		t.Fatal(err)
	}
	in.Take(in.Buffered() - 10)
	for in.Buffered() < 28 {
		if err := in.More(28); err != nil {
			t.Fatal(err)
		}
	}
	if got := in.Take(11)[10] - in.data[in.head-11]; got != 10 {
		t.Errorf("bytes that lay at the end of the memory are out of order by %d", got)
	}
}

func TestInputReadsLikeAReader(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 8<<10)
	if err := iotest.TestReader(NewInput(bytes.NewReader(content), inputMax, nil), content); err != nil {
		t.Error(err)
	}
}
