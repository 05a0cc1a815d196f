package explore

import (
	"context"
	"testing"
)

// TestQuick explores the configurations with bounds for which a moment is enough,
// the race detector included. `make explore` does all of them in full.
func TestQuick(t *testing.T) {
	for _, config := range Configs() {
		if config.Quick == "" {
			continue
		}
		t.Run(config.Name, func(t *testing.T) {
			if err := config.Set(config.Quick); err != nil {
				t.Fatal(err)
			}
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
