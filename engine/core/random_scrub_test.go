package core

// scrub begins a walk, or calls one off. Whatever goes wrong meanwhile, it reports no
// difference: replicas that are in sync have none (scrubSaid).
func (w *storm) scrub(e *stormEngine) {
	if e.stopped {
		return
	}
	var asked *Scrub
	if w.random.IntN(8) > 0 {
		asked = &Scrub{From: w.random.Int64N(2) * w.random.Int64N(stormSize), Rate: w.random.Int64N(3) * 64 * mib}
		for _, node := range w.nodes {
			asked.Covered = append(asked.Covered, node.id)
		}
	}
	w.step(e, Event{Kind: EventScrub, Scrub: asked})
}

// scrubSaid holds what a core reports against what can be.
func (w *storm) scrubSaid(e *stormEngine, f *Effect) {
	switch {
	case f.Kind == EffectNotice && f.Notice.Kind == NoticeDiffer && f.Notice.Err == nil:
		w.fatal("engine %d reports that %s differs at %d", e.number, f.Notice.Replica, f.Notice.Offset)
	case f.Kind == EffectNotice && f.Notice.Kind == NoticeUnreadable:
		w.fatal("engine %d reports that nobody has %d intact", e.number, f.Notice.Offset)
	case f.Kind == EffectScrubbed:
		e.scrubbed = f.Scrubbed
	}
}

// scrubAll verifies everything while all is well.
func (w *storm) scrubAll() {
	e, size := w.current(), w.view.Size
	e.scrubbed = Scrubbed{}
	w.step(e, Event{Kind: EventScrub, Scrub: &Scrub{}})
	for n := 0; !e.scrubbed.Done && e == w.current(); n++ {
		if n > 100_000 {
			w.fatal("a scrub does not end: %+v", e.core.Status())
		}
		if !w.network() {
			w.pass()
		}
		w.raft(e)
		if e.stopped {
			w.settle()
		}
	}
	if s := &e.scrubbed; e == w.current() && s.Offset < size {
		w.fatal("a scrub ended at %d of %d", s.Offset, size)
	}
}
