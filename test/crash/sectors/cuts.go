package sectors

import (
	"fmt"
	"slices"
)

// Cut is what is known of a cut: for each sector the values that it may have.
// What a read has returned is the only one from then on.
type Cut struct {
	Name    byte
	Replica byte
	Allowed [][]Event
	// Acked: the Update that takes it has ended; Flushed: a flush that began after
	// that, too, so that the cut is valid. Dropping: its end was asked for.
	Acked, Flushed, Dropping bool
	// Target: it becomes valid by an Update alone.
	Target bool
	// Spoiled: a write had failed halfway when it was taken. An engine writes again
	// before it takes a cut.
	Spoiled bool
}

// BeginCut notes a cut that is asked for now: it has what was acknowledged, and of
// what is under way the old or the new, but nothing that is asked for later.
func (m *Model) BeginCut(replica, name byte) *Cut {
	c := &Cut{Name: name, Replica: replica, Allowed: make([][]Event, len(m.sectors[replica]))}
	for i := range c.Allowed {
		h := &m.sectors[replica][i]
		c.Allowed[i] = slices.Clip(h.events[h.lastAcked():])
	}
	c.Spoiled = m.spoiled
	m.Cuts = append(m.Cuts, c)
	return c
}

// May checks a value that was read.
func (c *Cut) May(sector int, tag uint64) error {
	if slices.ContainsFunc(c.Allowed[sector], func(e Event) bool { return e.tag == tag }) {
		return nil
	}
	return fmt.Errorf("cut %d of replica %d, sector %d has tag %d, allowed are %v", c.Name, c.Replica, sector, tag, c.Allowed[sector])
}

// Observe takes a value that was read.
func (c *Cut) Observe(sector int, tag uint64) error {
	if err := c.May(sector, tag); err != nil {
		return err
	}
	c.Allowed[sector] = []Event{{tag: tag}}
	return nil
}

// Overwrite notes that a layer write gives n sectors other bytes, the first of which
// has that tag.
func (c *Cut) Overwrite(first, n int, tag uint64) {
	for i := range n {
		c.Allowed[first+i] = []Event{{tag: tag + uint64(i)}}
	}
}

func (m *Model) cloneCuts() (cuts []*Cut) {
	for _, c := range m.Cuts {
		d := *c
		d.Allowed = slices.Clone(c.Allowed)
		cuts = append(cuts, &d)
	}
	return cuts
}

// Spoil notes that a write failed.
func (m *Model) Spoil() {
	m.spoiled = true
	for _, c := range m.Cuts {
		c.Spoiled = c.Spoiled || !c.Acked
	}
}

// ForgetCut notes that a cut is gone.
func (m *Model) ForgetCut(c *Cut) {
	m.Cuts = slices.DeleteFunc(m.Cuts, func(d *Cut) bool { return d == c })
}

// DropReplicaCuts forgets the cuts of a deleted replica.
func (m *Model) DropReplicaCuts(replica byte) {
	m.Cuts = slices.DeleteFunc(m.Cuts, func(d *Cut) bool { return d.Replica == replica })
}
