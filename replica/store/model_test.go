package store

import (
	"encoding/binary"
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
)

// model knows, for each sector of some replicas, every value that it may have
// after a crash. A sector's value is a tag that no other write uses; 0 is
// never written or zeroed.
type model struct {
	sectors map[byte][]history
	nextTag uint64
}

// history is what happened to a sector, in the order of submission, from the
// newest value known to be durable on. Values that were acknowledged cannot be
// lost by a kill.
type history struct {
	events []event
	// dropped counts the events that came before.
	dropped int
}

type event struct {
	tag   uint64
	acked bool
}

func newModel() *model { return &model{sectors: map[byte][]history{}, nextTag: 1} }

func (m *model) add(replica byte, size int64) {
	list := make([]history, size/block.SectorSize)
	for i := range list {
		list[i].events = []event{{acked: true}}
	}
	m.sectors[replica] = list
}

// begin notes a write (or a zero) of n sectors and returns its first tag.
func (m *model) begin(replica byte, first, n int, zero bool) uint64 {
	tag := m.nextTag
	for i := range n {
		e := event{tag: tag + uint64(i)}
		if zero {
			e.tag = 0
		}
		h := &m.sectors[replica][first+i]
		h.events = append(h.events, e)
	}
	m.nextTag += uint64(n)
	return tag
}

// ack notes that the oldest pending write of these sectors with those tags was
// acknowledged.
func (m *model) ack(replica byte, first, n int, tag uint64, zero bool) {
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

// mark remembers what a flush that begins now must make durable.
func (m *model) mark(replica byte) []int {
	marks := make([]int, len(m.sectors[replica]))
	for i, h := range m.sectors[replica] {
		marks[i] = h.dropped + h.lastAcked()
	}
	return marks
}

// flushed forgets what a finished flush made impossible.
func (m *model) flushed(replica byte, marks []int) {
	for i := range m.sectors[replica] {
		h := &m.sectors[replica][i]
		if n := marks[i] - h.dropped; n > 0 {
			h.events = h.events[n:]
			h.dropped += n
		}
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

// survive checks the value found after a crash and makes it the sector's state.
// After a kill only values from the last acknowledged one on are allowed; the
// history stays, for a power loss may follow.
func (m *model) survive(replica byte, sector int, tag uint64, kill bool) error {
	h := &m.sectors[replica][sector]
	from := 0
	if kill {
		from = h.lastAcked()
	}
	for _, e := range h.events[from:] {
		if e.tag != tag {
			continue
		}
		if kill {
			h.events = append(h.events, event{tag: tag, acked: true})
		} else {
			*h = history{events: []event{{tag: tag, acked: true}}}
		}
		return nil
	}
	return fmt.Errorf("replica %d sector %d has tag %d, allowed are %v (kill %v)", replica, sector, tag, h.events[from:], kill)
}

// fillSector writes the pattern of a tag.
func fillSector(b []byte, replica byte, tag uint64) {
	for i := 0; i < block.SectorSize; i += 16 {
		binary.LittleEndian.PutUint64(b[i:], tag)
		binary.LittleEndian.PutUint64(b[i+8:], tag<<8|uint64(replica))
	}
}

// readSector recognizes the tag of a sector; a mixture or another replica's
// sector is an error.
func readSector(b []byte, replica byte) (uint64, error) {
	tag := binary.LittleEndian.Uint64(b)
	var want [block.SectorSize]byte
	if tag != 0 {
		fillSector(want[:], replica, tag)
	}
	if string(b) != string(want[:]) {
		return 0, fmt.Errorf("tag %d, owner %#x: torn or foreign", tag, binary.LittleEndian.Uint64(b[8:])&0xff)
	}
	return tag, nil
}
