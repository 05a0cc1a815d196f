package explore

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
)

var mergeCount = flag.Int("explore.merges", 250, "how many merged states TestMerge compares, for each configuration")

// TestMerge holds the canonical form to its word: of states that are taken for
// one, the same can happen. For each state that is reached a second time, the
// successors of both are compared, by what they are taken for.
func TestMerge(t *testing.T) {
	for _, config := range mergeConfigs() {
		t.Run(config.Name, func(t *testing.T) {
			m := merger{t: t, x: explorerOf(t, config), first: make(map[key]*world)}
			w, err := begin(m.x.setting)
			if err != nil {
				t.Fatal(err)
			}
			m.visit(w)
			rng := rand.New(rand.NewPCG(1, 1))
			for len(m.stack) > 0 && m.compared < *mergeCount {
				n := rng.IntN(len(m.stack))
				next := m.stack[n]
				m.stack[n] = m.stack[len(m.stack)-1]
				m.stack = m.stack[:len(m.stack)-1]
				before := next.key(m.x.canon())
				for _, s := range m.successors(next) {
					m.visit(s)
				}
				if next.key(m.x.canon()) != before {
					t.Fatal("a step changed the state that it began from")
				}
			}
			t.Logf("%d states, %d compared", len(m.first), m.compared)
			if m.compared == 0 {
				t.Error("no state was reached twice")
			}
		})
	}
}

// merger explores, and compares what is merged.
type merger struct {
	t        *testing.T
	x        *Explorer
	first    map[key]*world
	stack    []*world
	compared int
}

func (m *merger) successors(w *world) []*world {
	var list []*world
	for _, a := range w.actions(nil) {
		if n := w.apply(&a); n != nil {
			list = append(list, n)
		}
	}
	return list
}

func (m *merger) visit(w *world) {
	c := m.x.canon()
	k := w.key(c)
	known := m.first[k]
	if known == nil {
		m.first[k] = w
		m.stack = append(m.stack, w)
		return
	}
	m.compared++
	if a, b := m.keys(known), m.keys(w); !maps.EqualFunc(a, b, func(string, string) bool { return true }) {
		m.t.Fatalf("two states are taken for one, but only one can go on like this:\n%v", differing(a, b))
	}
}

// keys are what the successors of a state are taken for, and how they come about. One that
// is taken for the state itself is none: an answer that nobody waits for any more.
func (m *merger) keys(w *world) map[string]string {
	c := m.x.canon()
	own := w.key(c)
	list := make(map[string]string)
	for _, a := range w.actions(nil) {
		if n := w.apply(&a); n != nil && (n.key(c) != own || n.violation != nil) {
			list[fmt.Sprintf("%x %v", n.key(c), n.violation)] = w.describe(&a)
		}
	}
	return list
}

// differing are the entries that only one of two lists has.
func differing(a, b map[string]string) []string {
	var list []string
	for k := range a {
		if _, ok := b[k]; !ok {
			list = append(list, "first: "+a[k])
		}
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			list = append(list, "second: "+b[k])
		}
	}
	return list
}

func mergeConfigs() []Config {
	base := Config{Replicas: 2, Members: 2, MinInSync: 1, Blocks: 1, Window: 2, Serving: true}
	a := base
	a.Name, a.Bounds = "engines", Bounds{Engines: 1, Writes: 1, Reads: 1, Links: 1, Units: 3, Hints: 1, Unknowns: 1}
	b := base
	b.Name, b.Members, b.Bounds = "target", 1, Bounds{Writes: 2, Flushes: 1, Links: 1, Kills: 1, Clears: 1}
	b.Suspect = true
	c := base
	c.Name, c.Replicas, c.Members, c.Blocks = "three", 3, 2, 2
	c.Bounds = Bounds{Writes: 2, Reads: 1, Losses: 1, Clears: 1, Engines: 1, Detaches: 1, Pauses: 1}
	d := base
	d.Name, d.Blocks, d.Apart, d.Bounds = "apart", 2, true, Bounds{Writes: 2, Flushes: 2, Links: 1, Clears: 1, PutBacks: 1}
	e := base
	e.Name, e.Members, e.Missed, e.Bounds = "snapshots", 1, true, Bounds{Writes: 1, Reads: 1, Links: 1, Kills: 1, Engines: 1, Snapshots: 1, Clears: 1}
	return []Config{a, b, c, d, e}
}

func explorerOf(t testing.TB, config Config) *Explorer {
	t.Helper()
	x, err := New(config, Options{Workers: 2, Bytes: 1 << 28})
	if err != nil {
		t.Fatal(err)
	}
	return x
}
