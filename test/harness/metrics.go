package harness

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Metric reads a metric without labels of a node, as a scraper does; client is one that
// reaches the node.
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
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseFloat(value, 64)
		}
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("read metrics of %s: %w", n.Name, err)
	}
	return 0, fmt.Errorf("metric %s of %s: %w", name, n.Name, block.ErrNotFound)
}
