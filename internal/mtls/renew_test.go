package mtls_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-io/holdfast/internal/mtls"
	"github.com/holdfast-io/holdfast/test/harness/certs"
)

// TestFilesAreReadAgain: new ones are used, broken ones are counted and not used, and
// those that come after them are used again.
func TestFilesAreReadAgain(t *testing.T) {
	ours := authority(t)
	files := issue(t, ours, certs.Request{Name: mtls.Node})
	i := open(t, files, mtls.Node)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	done := make(chan error, 1)
	go func() { done <- i.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	registry := prometheus.NewRegistry()
	registry.MustRegister(i)
	renew := func(hours time.Duration) {
		ends := time.Now().Add(hours * time.Hour).Truncate(time.Second)
		if _, err := ours.Issue(filepath.Dir(files.Cert), certs.Request{Name: mtls.Node, Ends: ends}); err != nil {
			t.Fatal(err)
		}
		waitGauge(ctx, t, registry, "certificate_end", func(v float64) bool { return v == float64(ends.Unix()) })
		if leaf := i.Client().Certificates[0].Leaf; !leaf.NotAfter.Equal(ends) {
			t.Errorf("the next connection uses a certificate that ends %v, want %v", leaf.NotAfter, ends)
		}
	}
	renew(5)
	failures := func(v float64) float64 {
		return waitGauge(ctx, t, registry, "reload_failures", func(have float64) bool { return have >= v })
	}
	before := failures(0)
	if err := certs.Replace(files.Cert, []byte("nothing of use")); err != nil {
		t.Fatal(err)
	}
	failures(before + 1)
	if serverErr, clientErr := meet(t, i.Server(mtls.Node), i.Client()); serverErr != nil || clientErr != nil {
		t.Errorf("with a broken file: %v, %v", serverErr, clientErr)
	}
	renew(6)
}

// waitGauge waits until the metric with that in its name has a wanted value.
func waitGauge(ctx context.Context, t *testing.T, from prometheus.Gatherer, name string, wanted func(float64) bool) float64 {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		families, err := from.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			m := f.GetMetric()[0]
			// One of the two is not set, and 0.
			if v := m.GetGauge().GetValue() + m.GetCounter().GetValue(); strings.Contains(f.GetName(), name) && wanted(v) {
				return v
			}
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s does not come to the wanted value", name)
		case <-ticker.C:
		}
	}
}
