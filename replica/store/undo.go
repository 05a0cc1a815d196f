package store

import (
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/holdfast-io/holdfast/internal/block"
)

// An extent has a chain of states: those that cuts keep, by layer, and the head.
// A kept state of key k whose entry has layer e stands for the cuts from e to k.
// Layers that no state stands for have nothing of the extent but what shows
// through from the line's origin.

// undoChange is what the database lacks of a kept state.
type undoChange struct {
	layer uint32
	// state is nil for one that is removed.
	state *entryState
	// collected: the flush round in progress carries the change.
	collected bool
	next      *undoChange
}

func undoKey(b []byte, h handle, extent, layer uint32) []byte {
	b = binary.BigEndian.AppendUint32(handleKey(b, keyUndo, h), extent)
	return binary.BigEndian.AppendUint32(b, layer)
}

func splitUndoKey(key []byte) (h handle, extent, layer uint32, err error) {
	if len(key) != 13 || key[0] != keyUndo {
		return 0, 0, 0, fmt.Errorf("undo key %x: %w", key, block.ErrCorrupt)
	}
	be := binary.BigEndian
	return handle(be.Uint32(key[1:])), be.Uint32(key[5:]), be.Uint32(key[9:]), nil
}

// changeKey is the key that says that an extent changed while the head had a
// number.
func changeKey(b []byte, h handle, layer, extent uint32) []byte {
	b = binary.BigEndian.AppendUint32(handleKey(b, keyChange, h), layer)
	return binary.BigEndian.AppendUint32(b, extent)
}

func splitChangeKey(key []byte) (layer, extent uint32, err error) {
	if len(key) != 13 || key[0] != keyChange {
		return 0, 0, fmt.Errorf("change key %x: %w", key, block.ErrCorrupt)
	}
	return binary.BigEndian.Uint32(key[5:]), binary.BigEndian.Uint32(key[9:]), nil
}

// setUndo notes a change of a kept state.
func (e *entry) setUndo(layer uint32, state *entryState) {
	link := &e.undo
	for ; *link != nil; link = &(*link).next {
		if (*link).layer == layer {
			// The one before may be in a round, which keeps its own.
			*link = &undoChange{layer: layer, state: state, next: (*link).next}
			return
		}
	}
	*link = &undoChange{layer: layer, state: state}
}

// endUndo forgets the changes that a round has brought into the database.
func (e *entry) endUndo() {
	for link := &e.undo; *link != nil; {
		if (*link).collected {
			*link = (*link).next
		} else {
			link = &(*link).next
		}
	}
}

// chain reads the kept states of one extent, those that the database lacks
// included. Its owner stands in the queue of the extent, or reads a cut that never
// changes.
type chain struct {
	handle handle
	extent uint32
	undo   []undoChange
	it     *pebble.Iterator
}

// link is a kept state in a chain.
type link struct {
	layer uint32
	state *entryState
}

// chainOf is the chain of e as of now; it is opened without the mutex.
func chainOf(h handle, extent uint32, e *entry) chain {
	c := chain{handle: h, extent: extent}
	for u := e.undo; u != nil; u = u.next {
		c.undo = append(c.undo, *u)
	}
	return c
}

// changed finds what memory has of a layer.
func (c *chain) changed(layer uint32) bool {
	for i := range c.undo {
		if c.undo[i].layer == layer {
			return true
		}
	}
	return false
}

// from finds the oldest kept state whose layer is not below one; nil if there is
// none.
func (c *chain) from(layer uint32) (*link, error) {
	var found *link
	for i := range c.undo {
		u := &c.undo[i]
		if u.state != nil && u.layer >= layer && (found == nil || u.layer < found.layer) {
			found = &link{layer: u.layer, state: u.state}
		}
	}
	for ok := c.it.SeekGE(undoKey(nil, c.handle, c.extent, layer)); ok; ok = c.it.Next() {
		l, more, err := c.stored()
		if err != nil || !more {
			return found, err
		}
		if !c.changed(l.layer) {
			if found == nil || l.layer < found.layer {
				found = l
			}
			break
		}
	}
	return found, iteratorError(c.it)
}

// before finds the youngest kept state whose layer is below one.
func (c *chain) before(layer uint32) (*link, error) {
	var found *link
	for i := range c.undo {
		u := &c.undo[i]
		if u.state != nil && u.layer < layer && (found == nil || u.layer > found.layer) {
			found = &link{layer: u.layer, state: u.state}
		}
	}
	for ok := c.it.SeekLT(undoKey(nil, c.handle, c.extent, layer)); ok; ok = c.it.Prev() {
		l, more, err := c.stored()
		if err != nil || !more {
			return found, err
		}
		if !c.changed(l.layer) {
			if found == nil || l.layer > found.layer {
				found = l
			}
			break
		}
	}
	return found, iteratorError(c.it)
}

func iteratorError(it *pebble.Iterator) error {
	if err := it.Error(); err != nil {
		return databaseError(err)
	}
	return nil
}

// stored decodes where the iterator stands; false if it is another extent.
func (c *chain) stored() (*link, bool, error) {
	_, extent, layer, err := splitUndoKey(c.it.Key())
	if err != nil || extent != c.extent {
		return nil, false, err
	}
	l := &link{layer: layer, state: new(entryState)}
	if err := decodeEntry(c.it.Value(), l.state); err != nil {
		return nil, false, fmt.Errorf("undo key %x: %w", c.it.Key(), err)
	}
	return l, true, nil
}

// covering finds the kept state that stands for a cut; nil if there is none.
func (c *chain) covering(layer uint32) (*link, error) {
	l, err := c.from(layer)
	if err != nil || l == nil || l.state.layer > layer {
		return nil, err
	}
	return l, nil
}
