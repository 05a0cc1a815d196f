package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/nbd"
	"github.com/holdfast-io/holdfast/internal/nbd/nbdtest"
)

// durableWorkload is that of the volumes.
func durableWorkload(t *testing.T) workload {
	t.Helper()
	all := workloads()
	i := slices.IndexFunc(all, func(w workload) bool { return w.Durable })
	if i < 0 {
		t.Fatal("no workload of durable writes")
	}
	return all[i]
}

// TestDurableLoadOfAServer: every write reaches an NBD server, and as one with FUA.
func TestDurableLoadOfAServer(t *testing.T) {
	o := options{Runtime: 50 * time.Millisecond, SizeBytes: 1 << 20}
	disk := nbdtest.NewMemory(nbdtest.Info("", o.SizeBytes, 4096))
	server, err := nbd.NewServer(nbd.ServerConfig{Exports: nbdtest.Exports{"": disk}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	listener, err := net.Listen("unix", socketPath(dir, "disk"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(ctx, listener); err != nil {
			t.Error(err)
		}
	})
	l, err := durableLoads(socketTarget(dir, "disk"), o)(t.Context(), durableWorkload(t), 0)
	if err != nil || l.Operations == 0 || l.Rate <= 0 || l.P50 <= 0 || l.P99 < l.P50 || disk.Durable.Load() != l.Operations {
		t.Errorf("%+v (%v), %d durable writes at the server", l, err, disk.Durable.Load())
	}
	cancel()
	serving.Wait()
}

// TestDurableLoadOfAFile: the file is written past the page cache, and no further than it is
// long.
func TestDurableLoadOfAFile(t *testing.T) {
	dir, err := os.MkdirTemp("/var/tmp", "hf")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "raw")
	o := options{Runtime: 20 * time.Millisecond, SizeBytes: 64 << 10}
	if err := os.WriteFile(path, make([]byte, o.SizeBytes), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := durableLoads(fileTarget(path), o)(t.Context(), durableWorkload(t), 0)
	if err != nil || l.Operations == 0 || l.P50 <= 0 {
		t.Errorf("%+v (%v)", l, err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != o.SizeBytes {
		t.Errorf("the file has %d bytes (%v)", info.Size(), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := durableLoads(fileTarget(path), o)(ctx, durableWorkload(t), 0); err == nil {
		t.Error("an interrupted load is a figure")
	}
	if _, err := durableLoads(target{"--ioengine=null"}, o)(t.Context(), durableWorkload(t), 0); err == nil {
		t.Error("durable writes to nothing")
	}
}
