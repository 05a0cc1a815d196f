package postgresql

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// Summary is what pgbench says at its end.
type Summary struct {
	// Processed transactions were acknowledged, Failed ones given up.
	Processed, Failed int
	// Rate is in transactions each second, without the time of connecting.
	Rate float64
	// Latency is the average of a transaction.
	Latency time.Duration
}

var (
	processedLine = regexp.MustCompile(`(?m)^number of transactions actually processed: (\d+)`)
	failedLine    = regexp.MustCompile(`(?m)^number of failed transactions: (\d+)`)
	latencyLine   = regexp.MustCompile(`(?m)^latency average = ([\d.]+) ms`)
	rateLine      = regexp.MustCompile(`(?m)^tps = ([\d.]+) \(without initial connection time\)`)
)

// ParseSummary reads the end of what pgbench has said.
func ParseSummary(said string) (Summary, error) {
	var values [4]float64
	for i, line := range []*regexp.Regexp{processedLine, failedLine, rateLine, latencyLine} {
		match := line.FindStringSubmatch(said)
		if match == nil {
			return Summary{}, fmt.Errorf("pgbench does not say %q: %s", line, said)
		}
		var err error
		if values[i], err = strconv.ParseFloat(match[1], 64); err != nil {
			return Summary{}, fmt.Errorf("pgbench says %q: %w", match[0], err)
		}
	}
	return Summary{
		Processed: int(values[0]), Failed: int(values[1]), Rate: values[2],
		Latency: time.Duration(values[3] * float64(time.Millisecond)),
	}, nil
}
