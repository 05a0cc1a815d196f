package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

func TestPostgresFlags(t *testing.T) {
	o, err := parsePostgresFlags(strings.Fields("-rounds 3 -runtime 4s -size 700 -scale 9 -clients 4 -o json -dir d"))
	if err != nil || o.Rounds != 3 || o.Runtime != 4*time.Second || o.SizeBytes != 700<<20 || o.scale != 9 || o.clients != 4 ||
		o.Output != outputJSON || !filepath.IsAbs(o.Dir) || len(o.Workloads) != 1 {
		t.Errorf("%+v (%v)", o, err)
	}
	if o, err := parsePostgresFlags([]string{"-quick"}); err != nil || o.Rounds != 1 || o.clients != 8 {
		t.Errorf("%+v (%v)", o, err)
	}
	for flags, why := range map[string]string{
		"-clients 1": "-clients", "-scale 0": "-scale", "-scale 100": "wants at least 2256", "-frontend socket": "-frontend",
		"-rounds 0": "-rounds", "-runtime 1500ms": "whole seconds", "-o xml": "json", "more": "unexpected",
	} {
		if _, err := parsePostgresFlags(strings.Fields(flags)); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", flags, err)
		}
	}
}

// TestPostgresSummary: the machine was half as fast in the second round, and the ratios
// do not show it.
func TestPostgresSummary(t *testing.T) {
	o := postgresOptions{scale: 20, clients: 8, options: options{Rounds: 2, Runtime: 20 * time.Second, SizeBytes: 2 << 30, Engine: vfs.EngineAuto}}
	var all []measurement
	for round, speed := range []float64{1, 0.5} {
		for i, c := range postgresTitles {
			rate := speed * 1600 / float64(int(1)<<i)
			all = append(all, measurement{
				Round: round, Workload: o.workload(), Contender: c.name, Elapsed: 20 * time.Second,
				ServerCPU: time.Duration(20*rate*float64(i)*100) * time.Microsecond,
				load: load{
					Operations: int64(20 * rate), Rate: rate, Average: time.Duration(8 / rate * float64(time.Second)),
					ClientCPU: time.Duration(20*rate*500) * time.Microsecond,
				},
			})
		}
	}
	s := &postgresStage{options: o, version: "PostgreSQL 15.1", device: "kernel NBD"}
	r := summarizePostgres(hostFacts{
		Taken: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Commit: "0123456789", Go: "go1.26", CPU: "A CPU", CPUs: 2,
		MemoryBytes: 8 << 30, Kernel: "6.1", FileSystem: "ext4", Disk: "vda 100 GiB",
	}, s, all)
	last := r.Results[len(r.Results)-1]
	if last.Contender != holdfast3 || last.Against[fileBehindFrontend] != (spread{0.25, 0.25, 0.25}) || last.Against[holdfast1].Median != 0.5 ||
		last.Rate.Median != 150 || last.ServerCPU.Median != 300 || last.ClientCPU.Median != 500 || last.Latency.Min != 40 {
		t.Errorf("%+v", last)
	}
	for form, file := range map[string]string{outputTable: "postgres.txt", outputMarkdown: "postgres.md", outputJSON: "postgres.json"} {
		var got bytes.Buffer
		if err := r.write(&got, form); err != nil {
			t.Fatal(err)
		}
		golden(t, file, got.Bytes())
	}
}

// TestFileBackend: each kind of request does to the file what it should, and an error
// arrives.
func TestFileBackend(t *testing.T) {
	device := vfs.NewMemDevice(vfs.NewGoExecutor(2), 4*block.BlockSize)
	if err := device.Grow(4 * block.BlockSize); err != nil {
		t.Fatal(err)
	}
	do := func(kind nbd.Kind, index int64, fua bool, data byte) (byte, error) {
		t.Helper()
		var got byte
		var result error
		var buf *block.Buffer
		if kind == nbd.KindWrite {
			buf = block.NewBuffer(block.BlockSize)
			buf.Data[0] = data
		}
		var over sync.WaitGroup
		over.Add(1)
		fileBackend{device}.Submit(nbd.NewRequest(kind, block.Span{Offset: index * block.BlockSize, Length: block.BlockSize}, buf, fua,
			func(err error, buf *block.Buffer) {
				if result = err; buf != nil {
					got = buf.Data[0]
				}
				buf.Release()
				over.Done()
			}))
		over.Wait()
		return got, result
	}
	want := func(what string, fine bool) {
		t.Helper()
		if !fine {
			t.Error(what)
		}
	}
	_, err := do(nbd.KindWrite, 1, false, 7)
	want("a write is not there, or synced", err == nil && len(device.Unsynced()) == 1)
	got, err := do(nbd.KindRead, 1, false, 0)
	want("a read does not see it", err == nil && got == 7)
	_, err = do(nbd.KindFlush, 0, false, 0)
	want("a flush leaves it", err == nil && len(device.Unsynced()) == 0)
	_, err = do(nbd.KindWrite, 2, true, 8)
	want("a write with FUA is not durable", err == nil && len(device.Unsynced()) == 0)
	_, err = do(nbd.KindZero, 1, false, 0)
	got, readErr := do(nbd.KindRead, 1, false, 0)
	want("a zeroed block is not zeros", errors.Join(err, readErr) == nil && got == 0)
	device.Inject(func(*vfs.IO) error { return block.ErrDiskFailed })
	for _, kind := range []nbd.Kind{nbd.KindRead, nbd.KindWrite, nbd.KindZero, nbd.KindFlush} {
		_, err = do(kind, 1, kind == nbd.KindWrite, 0)
		want(kind.String()+" hides the error of the disk", errors.Is(err, block.ErrDiskFailed))
	}
	_, err = do(nbd.KindStatus, 1, false, 0)
	want("a status is answered", errors.Is(err, block.ErrInvalid))
}

// TestPostgresRun runs pgbench for a second on every contender, is interrupted then, and
// leaves nothing behind.
func TestPostgresRun(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making devices needs root, which make test has")
	}
	dir, err := os.MkdirTemp("/var/tmp", "hf")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), runLimit)
	defer cancel()
	o, err := parsePostgresFlags([]string{"-rounds", "1", "-runtime", "1s", "-size", "276", "-scale", "1", "-dir", dir})
	if err != nil {
		t.Fatal(err)
	}
	s, err := newPostgresStage(o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.strike(t.Context()); err != nil {
			t.Error(err)
		}
		wantEmpty(t, dir)
		if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || strings.Contains(string(mounts), dir) {
			t.Errorf("a mount is left (%v)", err)
		}
		if left, err := filepath.Glob("/sys/block/loop*/loop/backing_file"); err != nil || slices.ContainsFunc(left, func(path string) bool {
			file, err := os.ReadFile(path)
			return err == nil && strings.HasPrefix(string(file), dir)
		}) {
			t.Errorf("a loop device is left (%v)", err)
		}
	}()
	if err := s.set(ctx, newProgress(os.Stderr)); err != nil {
		t.Fatal(err)
	}
	var measured []string
	turns := schedule(o.Workloads, s.contenders, o.Rounds)
	for _, turn := range turns {
		m, err := turn.measure(ctx)
		if err != nil {
			t.Fatal(err)
		}
		measured = append(measured, m.Contender)
		if m.Operations == 0 || m.Average <= 0 || m.ClientCPU <= 0 || (m.Contender != fileUnderLoop && m.ServerCPU <= 0) {
			t.Errorf("%+v", m)
		}
	}
	if !slices.Equal(measured, []string{fileUnderLoop, fileBehindFrontend, holdfast1, holdfast3}) {
		t.Errorf("measured were %v", measured)
	}
	running := turns[len(turns)-1].Contender
	interrupted := make(chan error)
	go func() {
		_, err := running.load(ctx, o.workload(), 0)
		interrupted <- err
	}()
	cancel()
	if err := <-interrupted; !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}
