package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
	"github.com/holdfast-io/holdfast/replica/store"
)

// writtenDisk is a disk with a replica that has a block of data.
func writtenDisk(t *testing.T) (path string) {
	t.Helper()
	path = t.TempDir()
	executor := vfs.NewGoExecutor(2)
	defer executor.Close()
	options := store.DiskOptions{Options: store.Options{Executor: executor, Logger: slog.New(slog.DiscardHandler), Reserve: 1 << 20, GrowStep: 16 << 20}}
	identity := store.Identity{Cluster: block.ClusterID{ID: block.ID{1}}, Node: block.NodeID{ID: block.ID{2}}, Disk: block.DiskID{ID: block.ID{3}}}
	if err := store.FormatDisk(path, options, identity); err != nil {
		t.Fatal(err)
	}
	s, err := store.OpenDisk(path, options)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Create(store.ReplicaSpec{Replica: block.ReplicaID{ID: block.ID{4}}, Volume: block.VolumeID{ID: block.ID{5}}, Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	r, err := s.Replica(block.ReplicaID{ID: block.ID{4}})
	if err != nil {
		t.Fatal(err)
	}
	do := func(op *store.Op) {
		done := make(chan struct{})
		op.Done = func(*store.Op) { close(done) }
		r.Submit(op)
		if <-done; op.Err != nil {
			t.Fatal(op.Err)
		}
	}
	buffer := block.NewBuffer(block.BlockSize)
	copy(buffer.Data, "precious")
	do(&store.Op{Kind: store.Write, Length: block.BlockSize, Buf: buffer})
	do(&store.Op{Kind: store.Flush})
	do(&store.Op{Kind: store.Update, Meta: &block.Update{ClearLog: r.Log()}})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func holdfast(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, complaint bytes.Buffer
	code = run(t.Context(), args, &out, &complaint)
	return code, out.String(), complaint.String()
}

// TestDiskCheck: exit codes and output of a check, of a disk in order, with a flipped
// byte, in use, and of none.
func TestDiskCheck(t *testing.T) {
	path := writtenDisk(t)
	if code, out, complaint := holdfast(t, "disk", "check", path); code != 0 || !strings.Contains(out, "Faults:     0\n") || !strings.Contains(out, "Verified:   4KiB\n") {
		t.Fatalf("exit code %d: %s%s", code, out, complaint)
	}
	data := filepath.Join(path, "data")
	content, err := os.ReadFile(data)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(content, []byte("precious"))
	f, err := os.OpenFile(data, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("P"), int64(at)); err != nil {
		t.Fatal(err)
	}
	f.Close()
	code, out, complaint := holdfast(t, "disk", "check", path)
	if place := fmt.Sprintf("%s, byte %d: block at byte 0 of replica 04", data, at); code != 1 || !strings.Contains(out, place) || !strings.Contains(complaint, "1 faults found") {
		t.Fatalf("exit code %d, want %s: %s%s", code, place, out, complaint)
	}
	code, out, _ = holdfast(t, "disk", "check", path, "-o", "json")
	var view checkView
	if err := json.Unmarshal([]byte(out), &view); err != nil || code != 1 || view.FaultCount != 1 || view.Faults[0].Offset != int64(at) {
		t.Fatalf("exit code %d, %v: %s", code, err, out)
	}
	held, err := vfs.OpenOSDevice(data, vfs.OSDeviceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if code, _, complaint := holdfast(t, "disk", "check", path); code != 4 || !strings.Contains(complaint, "stop the daemon") {
		t.Fatalf("in use: exit code %d: %s", code, complaint)
	}
	if code, _, complaint := holdfast(t, "disk", "check", t.TempDir()); code != 3 {
		t.Fatalf("no disk: exit code %d: %s", code, complaint)
	}
}

// TestDiskInspect prints structures as tables and as JSON.
func TestDiskInspect(t *testing.T) {
	path := writtenDisk(t)
	if code, out, complaint := holdfast(t, "disk", "inspect", path); code != 0 || !strings.HasPrefix(out, "FORMAT") || !strings.Contains(out, "0300000000") {
		t.Fatalf("exit code %d: %s%s", code, out, complaint)
	}
	for _, structure := range store.Structures() {
		if code, out, complaint := holdfast(t, "disk", "inspect", path, structure, "-o", "wide"); code != 0 || out == "" {
			t.Errorf("%s: exit code %d: %s", structure, code, complaint)
		}
	}
	code, out, _ := holdfast(t, "disk", "inspect", path, "map", "-o", "json")
	var entry store.MapRecord
	if err := json.Unmarshal([]byte(out), &entry); err != nil || code != 0 || len(entry.Blocks) != 1 || entry.Blocks[0].Block != 0 {
		t.Fatalf("exit code %d, %v: %s", code, err, out)
	}
	if code, _, complaint := holdfast(t, "disk", "inspect", path, "weather"); code != 2 || !strings.Contains(complaint, "superblock") {
		t.Fatalf("an unknown structure: exit code %d: %s", code, complaint)
	}
	if code, _, _ := holdfast(t, "disk", "inspect"); code != 2 {
		t.Fatalf("no directory: exit code %d", code)
	}
}
