package explore

import (
	"context"
	"testing"
)

// TestQuick explores the configurations that take seconds. `make explore` does
// all of them.
func TestQuick(t *testing.T) {
	for _, config := range Configs() {
		if !config.Quick {
			continue
		}
		t.Run(config.Name, func(t *testing.T) {
			r, err := explorerOf(t, config).Run(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d states, %d transitions, %d rests, depth %d in %v", r.States, r.Transitions, r.Rests, r.Depth, r.Elapsed)
			if r.Violation != nil {
				v, text := r.Violation.Shorten()
				t.Fatalf("%v\n%s", v.Err, text)
			}
			if !r.Complete {
				t.Error("not every state was visited")
			}
		})
	}
}
