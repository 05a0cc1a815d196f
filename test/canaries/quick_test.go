package canaries

import (
	"path/filepath"
	"testing"
	"time"
)

// TestQuick plants the bugs that are caught within seconds. `make canaries` plants
// all of them.
func TestQuick(t *testing.T) {
	edits, err := Load(".")
	if err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	r, edits, err := NewRunner(root, edits, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, e := range edits {
		if !e.Quick {
			continue
		}
		t.Run(e.Name, func(t *testing.T) {
			t.Parallel()
			catches, err := r.Show(t.Context(), &e)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range catches {
				if !c.Caught {
					t.Errorf("not caught by %s:\n%s", c.By, c.Output)
				}
				t.Logf("caught by %s, %s, after %d events in %d runs, %v", c.By, c.Checker, c.Events, c.Runs, c.Took)
			}
		})
	}
}
