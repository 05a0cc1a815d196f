package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/test/harness"
)

// runLimit bounds the test of a line, the build included.
const runLimit = 5 * time.Minute

// TestOneSample takes one sample of a line on real daemons, and then shows that the
// verification sees a write that the volume does not hold.
func TestOneSample(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root, which make test has")
	}
	ctx, cancel := context.WithTimeout(t.Context(), runLimit)
	defer cancel()
	dir, err := os.MkdirTemp("/var/tmp", "holdfast-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	r := &runner{options: options{Samples: 1}, dir: dir, line: line{name: "test"}}
	if r.binaries, err = harness.Build(ctx, filepath.Join(dir, "bin")); err != nil {
		t.Fatal(err)
	}
	rows, err := replicaDies(ctx, r)
	if err := errors.Join(err, r.uncleaned); err != nil {
		t.Fatal(err)
	}
	if len(rows) != 1 || len(rows[0].Samples) != 1 || rows[0].Samples[0] <= 0 || r.writes < flowing || r.reads < smallVolume/4096 {
		t.Errorf("rows %+v, %d blocks written, %d read", rows, r.writes, r.reads)
	}

	b, err := r.newBed(ctx, smallVolume)
	if err != nil {
		t.Fatal(err)
	}
	defer r.clean(ctx, b)
	spans := pieces(b.whole(), mebibyte)[:4]
	if err := errors.Join(fill(ctx, b.device, b.ledger, spans), r.verify(ctx, b)); err != nil {
		t.Fatal(err)
	}
	b.ledger.wrote(spans[1], b.ledger.draw())
	if err := r.verify(ctx, b); !errors.Is(err, errLost) {
		t.Errorf("a write that never happened is verified: %v", err)
	}
}
