package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// TestProfilesHaveAnAddressOfTheirOwn: who may scrape metrics is not shown the
// inside.
func TestProfilesHaveAnAddressOfTheirOwn(t *testing.T) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "holdfast_test"}))
	for name, handler := range map[string]http.Handler{"metrics": metricsHandler(registry), "profiles": profileHandler()} {
		for path, owner := range map[string]string{"/metrics": "metrics", "/debug/pprof/": "profiles", "/debug/pprof/allocs?debug=1": "profiles"} {
			answer := httptest.NewRecorder()
			handler.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
			want := http.StatusNotFound
			if name == owner {
				want = http.StatusOK
			}
			if answer.Code != want {
				t.Errorf("%s of the %s address: %d, want %d", path, name, answer.Code, want)
			}
		}
	}
}

func TestServeHTTPEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := serveHTTP(ctx, listener, profileHandler()); err != nil {
		t.Error(err)
	}
}

func TestFrontendFlag(t *testing.T) {
	for frontend, why := range map[string]string{"auto": "", "nbd": "", "fuse": "", "socket": "", "iscsi": "want auto, nbd, fuse or socket"} {
		c := config{name: "n", dataDir: "d", runDir: "r", frontend: frontend, listenControl: "127.0.0.1:1", listenData: "127.0.0.1:2", listenRaft: "127.0.0.1:3", overProvision: 1, diskIO: "auto"}
		err := c.validate()
		if (err == nil) != (why == "") || err != nil && !strings.Contains(err.Error(), why) {
			t.Errorf("--frontend %s: %v", frontend, err)
		}
	}
}
