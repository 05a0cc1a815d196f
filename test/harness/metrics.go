package harness

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Metric reads a metric of a node, as a scraper does; client is one that reaches the node.
// If it has labels that name does not give, it is the sum over all of them.
func (n *Node) Metric(ctx context.Context, client *http.Client, name string) (float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.MetricsAddress+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, fmt.Errorf("read metrics of %s: %w", n.Name, err)
	}
	defer response.Body.Close()
	sum, err := sumMetric(response.Body, name)
	if err != nil {
		return 0, fmt.Errorf("metric %s of %s: %w", name, n.Name, err)
	}
	return sum, nil
}

// sumMetric sums the lines of a metric in the text form, `name{label="…"} value`.
func sumMetric(text io.Reader, name string) (float64, error) {
	sum, found := 0.0, false
	lines := bufio.NewScanner(text)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		value, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			return 0, err
		}
		sum, found = sum+value, true
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	if !found {
		return 0, block.ErrNotFound
	}
	return sum, nil
}
