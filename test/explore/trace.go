package explore

import (
	"fmt"
	"slices"
	"strings"
)

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
	replay(s, best, &b)
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
			if err := w.finish(again); err != nil {
				return taken, err
			}
		}
	}
	return taken, nil
}
