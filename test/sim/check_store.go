package sim

import (
	"errors"
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
)

// storeIdleMax is how long, in virtual nanoseconds, a store may be busy when
// nobody asks it for anything.
const storeIdleMax = 10 * second

// checkStore verifies that each extent of a node's disk belongs to one place and
// that none is lost. (The store's own tests show its Check bad states.)
func (w *World) checkStore(n *node) {
	if n.storage == nil || n.storage.store == nil {
		return
	}
	deadline := w.loop.now + block.Instant(storeIdleMax)
	var err error
	w.advance(func() bool {
		err = n.storage.store.Check()
		return !errors.Is(err, block.ErrUnavailable) || w.loop.now > deadline
	})
	w.soundStore(n, err)
}

// checkOpened does the same for a store that was just opened, unless it goes on with a
// deletion.
func (w *World) checkOpened(n *node) {
	if err := n.storage.store.Check(); !errors.Is(err, block.ErrUnavailable) {
		w.soundStore(n, err)
	}
}

func (w *World) soundStore(n *node, err error) {
	if err != nil {
		w.fail("store", fmt.Sprintf("disk of %v: %v", n, err))
	}
}
