package explore

import (
	"errors"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

var errAny = errors.New("stopped")

// TestHistory shows the judge of clients' answers good and bad ones.
func TestHistory(t *testing.T) {
	engines := func(i int) block.Epoch { return block.Epoch(i + 1) }
	for _, c := range []struct {
		name string
		run  func(h *history) error
		want string
	}{
		{"a read sees the write that ended", func(h *history) error {
			w := h.beginWrite(0, 1, 0)
			r := h.beginRead(0, 1, 0)
			return errors.Join(h.endWrite(w, true), h.endRead(r, true, 0), h.endRead(h.beginRead(0, 1, 0), true, 2))
		}, ""},
		{"a read misses the write that ended", func(h *history) error {
			return errors.Join(h.endWrite(h.beginWrite(0, 1, 0), true), h.endRead(h.beginRead(0, 1, 0), true, 0))
		}, "linearizable"},
		{"reads go back", func(h *history) error {
			h.beginWrite(0, 1, 0)
			return errors.Join(h.endRead(h.beginRead(0, 1, 0), true, 2), h.endRead(h.beginRead(0, 1, 0), true, 0))
		}, "linearizable"},
		{"a write that failed shows later", func(h *history) error {
			return errors.Join(h.endWrite(h.beginWrite(0, 1, 0), false), h.endRead(h.beginRead(0, 1, 0), true, 0),
				h.endRead(h.beginRead(0, 1, 0), true, 2))
		}, ""},
		{"a write of an older engine shows after it did not", func(h *history) error {
			h.beginWrite(0, 1, 0)
			h.serves(2, engines)
			return errors.Join(h.endRead(h.beginRead(1, 2, 0), true, 0), h.endRead(h.beginRead(1, 2, 0), true, 2))
		}, "linearizable"},
		{"an older engine goes on", func(h *history) error {
			h.serves(2, engines)
			return h.endRead(h.beginRead(0, 1, 0), true, 0)
		}, "one engine"},
		{"an older engine stops", func(h *history) error {
			h.serves(2, engines)
			return h.endRead(h.beginRead(0, 1, 0), false, 0)
		}, ""},
		{"what was not flushed is lost with all memory", func(h *history) error {
			err := h.endWrite(h.beginWrite(0, 1, 0), true)
			h.lost = true
			h.serves(2, engines)
			return errors.Join(err, h.endRead(h.beginRead(1, 2, 0), true, 0))
		}, ""},
		{"what was flushed is lost with all memory", func(h *history) error {
			err := h.endWrite(h.beginWrite(0, 1, 0), true)
			err = errors.Join(err, h.endFlush(h.beginFlush(0, 1), true))
			h.lost = true
			h.serves(2, engines)
			return errors.Join(err, h.endRead(h.beginRead(1, 2, 0), true, 0))
		}, "linearizable"},
	} {
		h := newHistory(0)
		err := c.run(&h)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	h := newHistory(0)
	if err := h.completed(tagOf(2, h.beginWrite(0, 1, 0)), errAny, nil); err != nil || h.writes[0].state != opUnknown {
		t.Errorf("a failed write is in state %d, %v", h.writes[0].state, err)
	}
}
