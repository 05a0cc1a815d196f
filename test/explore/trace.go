package explore

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// recorded is a trace as it is kept in a file.
type recorded struct {
	Config Config
	Steps  []step
}

// step is an action with its fields named for the file.
type step struct {
	Kind            actionKind
	Engine, Replica uint8           `json:",omitempty"`
	At              uint8           `json:",omitempty"`
	Forget          bool            `json:",omitempty"`
	Done            [maxEngines]int `json:",omitzero"`
	Left            [maxBlocks]int  `json:",omitzero"`
}

// Encode is the trace as Replay takes it.
func (v *Violation) Encode() ([]byte, error) {
	r := recorded{Config: v.config}
	for _, a := range v.Trace {
		s := step{Kind: a.kind, Engine: a.engine, Replica: a.replica, At: a.at, Forget: a.forget}
		for i := range a.done {
			s.Done[i] = int(a.done[i])
		}
		for b := range a.left {
			s.Left[b] = int(a.left[b])
		}
		r.Steps = append(r.Steps, s)
	}
	return json.Marshal(r)
}

// Replay repeats a trace and says how it reads. Steps that are not possible any
// more are left out. The violation is nil if nothing is broken.
func Replay(data []byte) (text string, broken error, err error) {
	var r recorded
	if err := json.Unmarshal(data, &r); err != nil {
		return "", nil, fmt.Errorf("read trace: %w", err)
	}
	if err := r.Config.Validate(); err != nil {
		return "", nil, fmt.Errorf("read trace: %w", err)
	}
	var trace []action
	for _, s := range r.Steps {
		a := action{kind: s.Kind, engine: s.Engine, replica: s.Replica, at: s.At, forget: s.Forget}
		for i := range a.done {
			a.done[i] = uint8(s.Done[i])
		}
		for b := range a.left {
			a.left[b] = uint8(s.Left[b])
		}
		trace = append(trace, a)
	}
	var b strings.Builder
	_, broken = replay(newSetting(r.Config), trace, &b)
	return b.String(), broken, nil
}

// Shorten leaves out of a violation's trace what it does not need, and says how
// it reads.
func (v *Violation) Shorten() (*Violation, string) {
	s := newSetting(v.config)
	best := v.Trace
	err := v.Err
	for size := max(len(best)/2, 1); size >= 1; size /= 2 {
		for at := 0; at+size <= len(best); {
			trial := slices.Concat(best[:at], best[at+size:])
			if done, broken := replay(s, trial, nil); broken != nil {
				best, err = done, broken
			} else {
				at++
			}
		}
	}
	var b strings.Builder
	if _, broken := replay(s, best, &b); broken != nil {
		err = broken
	}
	return &Violation{Err: err, Trace: best, config: v.config}, b.String()
}

// replay takes the actions of a trace that are possible. It returns those taken
// up to the first violation, and that.
func replay(s *setting, trace []action, to *strings.Builder) (taken []action, broken error) {
	w, err := begin(s)
	if err != nil {
		return nil, err
	}
	tell := func(text string) {
		if to != nil {
			fmt.Fprintf(to, "%3d  %-60s %s %s\n", len(taken), text, describeView(w.view()), w.describeReplicas())
		}
	}
	tell("begins")
	for k := range trace {
		a := &trace[k]
		if !slices.Contains(w.actions(nil), *a) {
			continue
		}
		n := w.apply(a)
		if n == nil {
			continue
		}
		text := w.describe(a)
		w = n
		taken = append(taken, *a)
		tell(text)
		if w.violation != nil {
			return taken, w.violation
		}
	}
	if w.quiet() {
		for _, again := range []bool{false, true} {
			if err := w.finish(again, nil, nil); err != nil {
				return taken, err
			}
		}
	}
	return taken, nil
}
