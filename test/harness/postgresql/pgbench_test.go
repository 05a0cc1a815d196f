package postgresql

import (
	"strings"
	"testing"
	"time"
)

const said = `duration: 2 s
number of transactions actually processed: 10336
number of failed transactions: 3 (0.029%)
latency average = 1.548 ms
initial connection time = 9.431 ms
tps = 5168.432100 (without initial connection time)
`

// TestParseSummary: what is said is read, and a line that is missing is missed.
func TestParseSummary(t *testing.T) {
	want := Summary{Processed: 10336, Failed: 3, Rate: 5168.4321, Latency: 1548 * time.Microsecond}
	if got, err := ParseSummary(said); got != want || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
	for line := range strings.Lines(said) {
		if strings.HasPrefix(line, "duration") || strings.HasPrefix(line, "initial") {
			continue
		}
		if got, err := ParseSummary(strings.Replace(said, line, "", 1)); err == nil {
			t.Errorf("without %q it reads %+v", line, got)
		}
	}
	if got, err := ParseSummary(strings.Replace(said, "1.548", "1.5.8", 1)); err == nil {
		t.Errorf("a latency that is no number reads %+v", got)
	}
}
