package robustness

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
	"github.com/holdfast-io/holdfast/test/harness/stamp"
)

// moment is a time of a history, in nanoseconds since its beginning.
type moment int64

// value names the write that a sector is of.
type value = stamp.Value

// zeroed is a sector of zeros: never written, or trimmed.
const zeroed = stamp.Zeroed

// forever is the end of what may still happen.
const forever moment = math.MaxInt64

// outcome is what became of a request.
type outcome uint8

const (
	// unknown: no answer came.
	unknown outcome = iota
	acknowledged
	// refused: the answer was an error. It may have happened all the same.
	refused
)

func (o outcome) String() string { return [...]string{"unknown", "ok", "error"}[o] }

// op is one request of a history.
type op struct {
	client int
	kind   nbd.Kind
	span   block.Span
	// wrote is the value of a write; read has that of each sector that was read.
	wrote value
	read  []value
	// from is when it was sent, to when it was answered or could no longer happen.
	from, to moment
	outcome  outcome
	err      error
	// connection counts the connections so far.
	connection int
}

func (o *op) String() string {
	to := "…"
	if o.to != forever {
		to = fmt.Sprintf("%.6f", time.Duration(o.to).Seconds())
	}
	text := fmt.Sprintf("%12.6f %12s  client %d.%d  %-5s %9d +%-7d %s", time.Duration(o.from).Seconds(), to,
		o.client, o.connection, o.kind, o.span.Offset, o.span.Length, o.outcome)
	if o.wrote != 0 {
		text += fmt.Sprintf(" value %x", uint64(o.wrote))
	}
	if o.err != nil {
		text += " " + o.err.Error()
	}
	return text
}

// mutates reports whether the request changes what is read later.
func (o *op) mutates() bool {
	return o.kind == nbd.KindWrite || o.kind == nbd.KindZero || o.kind == nbd.KindTrim
}

// history is what clients saw. It is safe for concurrent use.
type history struct {
	began time.Time

	mu   sync.Mutex
	ops  []*op
	acks []moment
	// events are the faults, for people.
	events []event
}

type event struct {
	at   moment
	text string
}

func newHistory() *history { return &history{began: time.Now()} }

func (h *history) now() moment { return moment(time.Since(h.began)) }

// begin notes a request that is about to be sent.
func (h *history) begin(o op) *op {
	o.to, o.outcome = forever, unknown
	h.mu.Lock()
	defer h.mu.Unlock()
	o.from = h.now()
	h.ops = append(h.ops, &o)
	return &o
}

// answer notes the answer to a request.
func (h *history) answer(o *op, read []value, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	o.read, o.err, o.outcome = read, err, acknowledged
	o.to = h.now()
	if err != nil {
		// Who was told of a failure is told nothing of when it ends.
		o.outcome, o.to = refused, forever
		return
	}
	if o.mutates() {
		h.acks = append(h.acks, o.to)
	}
}

// connected notes that connection number n is served: what the earlier ones left
// unanswered has happened by now, or never will.
func (h *history) connected(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	for _, o := range h.ops {
		if o.outcome == unknown && o.to == forever && o.connection < n {
			o.to = now
		}
	}
}

// note puts an event for people into the history.
func (h *history) note(format string, args ...any) moment {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	h.events = append(h.events, event{at: now, text: fmt.Sprintf(format, args...)})
	return now
}

// acknowledgedWrites counts the writes acknowledged so far.
func (h *history) acknowledgedWrites() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.acks)
}

// pause is the longest time without an acknowledged write between two moments. A
// pause that has not ended goes on until the acknowledgement that ends it.
func (h *history) pause(from, to moment) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	longest, last := moment(0), from
	for _, at := range h.acks {
		if at <= from {
			continue
		}
		longest = max(longest, at-last)
		if at > to {
			return time.Duration(longest)
		}
		last = at
	}
	return time.Duration(max(longest, h.now()-last))
}

// counts says how many requests there were, and of which outcome.
func (h *history) counts() (all, lost, failed int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, o := range h.ops {
		switch o.outcome {
		case unknown:
			lost++
		case refused:
			failed++
		}
	}
	return len(h.ops), lost, failed
}

// firstRefused is a request that was answered with an error, or nil.
func (h *history) firstRefused() *op {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, o := range h.ops {
		if o.outcome == refused {
			return o
		}
	}
	return nil
}

// excerpt is what the history says of a sector, events included, from one moment
// on.
func (h *history) excerpt(sector int64, from moment) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var text strings.Builder
	span := block.Span{Offset: sector * block.SectorSize, Length: block.SectorSize}
	events := h.events
	flush := func(until moment) {
		for len(events) > 0 && events[0].at <= until {
			fmt.Fprintf(&text, "%12.6f %s\n", time.Duration(events[0].at).Seconds(), events[0].text)
			events = events[1:]
		}
	}
	for _, o := range h.ops {
		if o.kind == nbd.KindFlush || !o.span.Overlaps(span) || o.to < from {
			continue
		}
		flush(o.from)
		fmt.Fprint(&text, o)
		if o.read != nil {
			fmt.Fprintf(&text, " read %x", uint64(o.read[sector-o.span.Offset/block.SectorSize]))
		}
		text.WriteByte('\n')
	}
	flush(forever)
	return text.String()
}
