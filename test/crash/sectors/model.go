// Package sectors knows what the sectors of some replicas may hold after a crash. It
// is the model that tests of the store compare with.
package sectors

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Model knows, for each sector of some replicas, every value that it may have
// after a crash. A sector's value is a tag that no other write uses; 0 is
// never written or zeroed.
type Model struct {
	// NextTag is the tag of the next sector that is written.
	NextTag uint64
	// Cuts are those that were asked for and not forgotten.
	Cuts []*Cut

	sectors map[byte][]history
	// origins are the replicas that clones show.
	origins map[byte]byte
	spoiled bool
}

// history is what happened to a sector, in the order of submission, from the
// newest value known to be durable on. Values that were acknowledged cannot be
// lost by a kill.
type history struct {
	events []Event
	// dropped counts the events that came before.
	dropped int
}

// Event is one write or zero of a sector.
type Event struct {
	tag   uint64
	acked bool
}

// New makes a model without replicas.
func New() *Model { return &Model{sectors: map[byte][]history{}, origins: map[byte]byte{}, NextTag: 1} }

// Add takes in a replica, of so many bytes, that was never written.
func (m *Model) Add(replica byte, size int64) {
	list := make([]history, size/block.SectorSize)
	for i := range list {
		list[i].events = []Event{{acked: true}}
	}
	m.sectors[replica] = list
}

// AddClone takes in a replica of so many bytes that begins as a cut.
func (m *Model) AddClone(replica byte, c *Cut, size int64) {
	m.Add(replica, size)
	m.origins[replica] = c.Replica
	for i, allowed := range c.Allowed {
		// Whichever the cut has: none is surer than another.
		h := &m.sectors[replica][i]
		h.events = slices.Clone(allowed)
		for j := range h.events {
			h.events[j].acked = j == 0
		}
	}
}

// Resize changes the size of a replica, in bytes; what is added was never written.
func (m *Model) Resize(replica byte, size int64) {
	list := m.sectors[replica]
	for len(list) < int(size/block.SectorSize) {
		list = append(list, history{events: []Event{{acked: true}}})
	}
	m.sectors[replica] = list
}

// Read recognizes the tag of a sector of a replica; a mixture is an error, and so is
// a sector of another replica that is not its origin.
func (m *Model) Read(b []byte, replica byte) (uint64, error) {
	tag, err := Read(b, replica)
	for err != nil {
		origin, inherits := m.origins[replica]
		if !inherits {
			break
		}
		replica = origin
		if found, err := Read(b, replica); err == nil {
			return found, nil
		}
	}
	return tag, err
}

// Begin notes a write (or a zero) of n sectors and returns its first tag.
func (m *Model) Begin(replica byte, first, n int, zero bool) uint64 {
	tag := m.NextTag
	for i := range n {
		e := Event{tag: tag + uint64(i)}
		if zero {
			e.tag = 0
		}
		h := &m.sectors[replica][first+i]
		h.events = append(h.events, e)
	}
	m.NextTag += uint64(n)
	return tag
}

// Ack notes that the oldest pending write of these sectors with those tags was
// acknowledged.
func (m *Model) Ack(replica byte, first, n int, tag uint64, zero bool) {
	for i := range n {
		h := m.sectors[replica][first+i].events
		want := tag + uint64(i)
		if zero {
			want = 0
		}
		for j := range h {
			if h[j].tag == want && !h[j].acked {
				h[j].acked = true
				break
			}
		}
	}
}

// Durable is Ack of a write that cannot be lost any more.
func (m *Model) Durable(replica byte, first, n int, tag uint64) {
	m.Ack(replica, first, n, tag, false)
	for i := range n {
		h := &m.sectors[replica][first+i]
		h.forget(slices.IndexFunc(h.events, func(e Event) bool { return e.tag == tag+uint64(i) }))
	}
}

// Mark remembers what a flush that begins now must make durable.
func (m *Model) Mark(replica byte) []int {
	marks := make([]int, len(m.sectors[replica]))
	for i, h := range m.sectors[replica] {
		marks[i] = h.dropped + h.lastAcked()
	}
	return marks
}

// Flushed forgets what a finished flush made impossible.
func (m *Model) Flushed(replica byte, marks []int) {
	for i := range marks {
		h := &m.sectors[replica][i]
		h.forget(marks[i] - h.dropped)
	}
}

// forget drops the n oldest events, which are known to be overwritten durably.
func (h *history) forget(n int) {
	if n > 0 {
		h.events = h.events[n:]
		h.dropped += n
	}
}

func (h *history) lastAcked() int {
	for j := len(h.events) - 1; j > 0; j-- {
		if h.events[j].acked {
			return j
		}
	}
	return 0
}

// May checks a value that was found: after a kill only values from the last
// acknowledged one on are allowed, after a loss of power all that the history has.
func (m *Model) May(replica byte, sector int, tag uint64, kill bool) error {
	h := &m.sectors[replica][sector]
	from := 0
	if kill {
		from = h.lastAcked()
	}
	if slices.ContainsFunc(h.events[from:], func(e Event) bool { return e.tag == tag }) {
		return nil
	}
	return fmt.Errorf("replica %d sector %d has tag %d, allowed are %v (kill %v)", replica, sector, tag, h.events[from:], kill)
}

// Survive checks the value found after a crash and makes it the sector's state.
// After a kill the history stays, for a power loss may follow.
func (m *Model) Survive(replica byte, sector int, tag uint64, kill bool) error {
	if err := m.May(replica, sector, tag, kill); err != nil {
		return err
	}
	h := &m.sectors[replica][sector]
	if kill {
		h.events = append(h.events, Event{tag: tag, acked: true})
	} else {
		*h = history{events: []Event{{tag: tag, acked: true}}}
	}
	return nil
}

// Fill writes the pattern of a tag.
func Fill(b []byte, replica byte, tag uint64) {
	binary.LittleEndian.PutUint64(b, tag)
	binary.LittleEndian.PutUint64(b[8:], tag<<8|uint64(replica))
	for n := 16; n < block.SectorSize; n *= 2 {
		copy(b[n:block.SectorSize], b[:n])
	}
}

// Read recognizes the tag of a sector; a mixture or another replica's
// sector is an error.
func Read(b []byte, replica byte) (uint64, error) {
	tag := binary.LittleEndian.Uint64(b)
	var want [block.SectorSize]byte
	if tag != 0 {
		Fill(want[:], replica, tag)
	}
	if string(b) != string(want[:]) {
		return 0, fmt.Errorf("tag %d, owner %#x: torn or foreign", tag, binary.LittleEndian.Uint64(b[8:])&0xff)
	}
	return tag, nil
}

// Clone is an independent copy.
func (m *Model) Clone() *Model {
	c := &Model{sectors: map[byte][]history{}, origins: maps.Clone(m.origins), NextTag: m.NextTag, Cuts: m.cloneCuts(), spoiled: m.spoiled}
	for n, list := range m.sectors {
		list = slices.Clone(list)
		for i := range list {
			list[i].events = slices.Clone(list[i].events)
		}
		c.sectors[n] = list
	}
	return c
}
