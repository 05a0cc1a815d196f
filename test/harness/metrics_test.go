package harness

import (
	"errors"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

// TestSumMetric: labels are summed, and a name that another one begins with is another.
func TestSumMetric(t *testing.T) {
	const text = "# HELP syncs_total Some {help} 7\nsyncs_total{disk=\"a b\"} 3\nsyncs_total{disk=\"c\"} 4\nsyncs_total_more 9\nplain 5\n"
	for name, want := range map[string]float64{"syncs_total": 7, `syncs_total{disk="c"}`: 4, "plain": 5} {
		if got, err := sumMetric(strings.NewReader(text), name); err != nil || got != want {
			t.Errorf("%s: %g (%v), want %g", name, got, err, want)
		}
	}
	if _, err := sumMetric(strings.NewReader(text), "sync"); !errors.Is(err, block.ErrNotFound) {
		t.Errorf("a metric that is not there: %v", err)
	}
	if _, err := sumMetric(strings.NewReader("plain five\n"), "plain"); err == nil {
		t.Error("a word is a number")
	}
}
