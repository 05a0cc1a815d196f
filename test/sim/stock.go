package sim

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"github.com/holdfast-io/holdfast/engine"
	"github.com/holdfast-io/holdfast/engine/frontend"
	"github.com/holdfast-io/holdfast/internal/block"
)

// stock is a daemon that has just started and looks at the devices that the one before
// has left, before it starts an engine.
type stock struct {
	node   *node
	listed []frontend.Identity
}

// stockRetry is how long a daemon waits before it asks Raft again.
const stockRetry = 200 * millisecond

// takeStock begins as soon as the daemon runs.
func (n *node) takeStock() {
	n.stocking = true
	s := &stock{node: n}
	for _, v := range n.world.volumes {
		if a := n.devices[v]; !a.IsZero() {
			s.listed = append(s.listed, frontend.Identity{Volume: v.id, Attachment: a})
		}
	}
	s.ask(n.process)
}

func (s *stock) ask(p *process) {
	w := s.node.world
	var shown []engine.Attachment
	w.truth.command(s.node, p, func() { shown = s.attachments() }, func(known bool) {
		if !known {
			w.loop.after(p, stockRetry, func() { s.ask(p) })
			return
		}
		s.sweep(shown)
		s.node.stocking = false
	})
}

// attachments are those that Raft shows on the node.
func (s *stock) attachments() []engine.Attachment {
	var all []engine.Attachment
	for v := range s.node.world.truth.state.Volumes() {
		if v.View.Owner == s.node.id && !v.View.Attachment.IsZero() {
			all = append(all, engine.Attachment{Volume: v.ID, ID: v.View.Attachment})
		}
	}
	return all
}

// sweep removes what Raft does not show, and verifies that nothing else is left.
func (s *stock) sweep(shown []engine.Attachment) {
	w := s.node.world
	ask := func(context.Context) ([]engine.Attachment, error) { return shown, nil }
	if _, clean, err := engine.Sweep(context.Background(), s, ask, slog.New(slog.DiscardHandler)); !clean || err != nil {
		w.fail("attachments", fmt.Sprintf("%v cannot take stock: %v", s.node, err))
	}
	for _, v := range w.volumes {
		a := s.node.devices[v]
		if !a.IsZero() && !slices.Contains(shown, engine.Attachment{Volume: v.id, ID: a}) {
			w.fail("attachments", fmt.Sprintf("%v keeps a device of %s, and its attachment has ended", s.node, v.name))
		}
	}
}

// List implements engine.Leftovers.
func (s *stock) List(context.Context) ([]frontend.Identity, error) { return s.listed, nil }

// Remove implements engine.Leftovers.
func (s *stock) Remove(_ context.Context, id frontend.Identity) error {
	w := s.node.world
	w.paths.count("attach: device of an ended attachment removed")
	v := w.volumeOf(id.Volume)
	if s.node.devices[v] != id.Attachment {
		return fmt.Errorf("device of %s: %w", v.name, block.ErrNotFound)
	}
	delete(s.node.devices, v)
	return nil
}
