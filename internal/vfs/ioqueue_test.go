package vfs

import (
	"slices"
	"testing"
)

// TestQueueJoins what lies behind each other on the disk and in memory, and nothing
// else.
func TestQueueJoins(t *testing.T) {
	memory := blocks(0, 400)
	piece := func(kind IOKind, offset, at, n int) *IO {
		return &IO{Kind: kind, Offset: int64(offset) * 4096, Data: memory[at*4096 : (at+n)*4096]}
	}
	for name, c := range map[string]struct {
		ios  []*IO
		want []int // how many are joined
	}{
		"a request of three":    {[]*IO{piece(Write, 7, 1, 2), piece(Write, 9, 3, 2), piece(Write, 11, 5, 1)}, []int{3}},
		"apart on the disk":     {[]*IO{piece(Read, 7, 1, 2), piece(Read, 10, 3, 2)}, []int{1, 1}},
		"apart in memory":       {[]*IO{piece(Read, 7, 1, 2), piece(Read, 9, 4, 2)}, []int{1, 1}},
		"the other way round":   {[]*IO{piece(Read, 9, 3, 2), piece(Read, 7, 1, 2)}, []int{1, 1}},
		"a read behind a write": {[]*IO{piece(Write, 7, 1, 2), piece(Read, 9, 3, 2)}, []int{1, 1}},
		"a sync between":        {[]*IO{piece(Write, 7, 1, 2), {Kind: Sync}, piece(Write, 9, 3, 2)}, []int{1, 1, 1}},
		"discards":              {[]*IO{{Kind: Discard, Length: 4096}, {Kind: Discard, Offset: 4096, Length: 4096}}, []int{1, 1}},
		"too long":              {[]*IO{piece(Write, 0, 0, 200), piece(Write, 200, 200, 56), piece(Write, 256, 256, 1)}, []int{2, 1}},
	} {
		var q ioQueue
		for _, io := range c.ios {
			q.push(io)
		}
		var got []int
		for q.first != nil {
			io := q.take()
			data, count := io.joined()
			length := 0
			for rest := io; rest != nil; rest = rest.rest {
				length += len(rest.Data)
			}
			if len(data) != length || len(data) > 0 && address(data) != address(io.Data) {
				t.Errorf("%s: %d bytes joined to %d", name, length, len(data))
			}
			got = append(got, count)
		}
		if !slices.Equal(got, c.want) || q.last != nil {
			t.Errorf("%s: joined are %v, want %v", name, got, c.want)
		}
	}
}
