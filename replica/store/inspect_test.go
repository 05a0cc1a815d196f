package store

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

// inspected is everything that an inspector shows of a structure, as rows.
func inspected(t *testing.T, path, name string) (rows [][]string) {
	t.Helper()
	i, err := Inspect(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := i.Close(); err != nil {
			t.Error(err)
		}
	}()
	columns, err := i.Columns(name)
	if err != nil {
		t.Fatal(err)
	}
	err = i.Each(name, func(r Record) error {
		row := r.Row()
		if len(row) != len(columns) {
			t.Errorf("%s: %d cells under %d titles", name, len(row), len(columns))
		}
		if _, err := json.Marshal(r); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		rows = append(rows, row)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// TestInspect shows each structure of a disk that was killed, and leaves it as it is.
func TestInspect(t *testing.T) {
	path := usedDisk(t)
	s := openDisk(t, path, diskOptions(t))
	r, err := s.Replica(replicaID(1))
	if err != nil {
		t.Fatal(err)
	}
	view := block.View{Volume: block.VolumeID{ID: testID(101)}, Generation: 1, Epoch: 3, Revision: 7, Size: testSize}
	if err := errors.Join(
		wait(r, &Op{Kind: Fence, NewFence: block.Fence{Epoch: 3}}),
		wait(r, &Op{Kind: Update, Meta: &block.Update{View: &view}}),
		wait(r, writeOp(30*block.ExtentSize, fill(4096, 9))),
	); err != nil {
		t.Fatal(err)
	}
	killed := filepath.Join(t.TempDir(), "killed")
	if err := os.CopyFS(killed, os.DirFS(path)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before := content(t, killed)
	for name, want := range map[string]struct {
		rows int
		has  string
	}{
		"superblock": {1, sampleIdentity().Disk.String()},
		"replicas":   {2, replicaID(2).String()},
		"map":        {2 * 19, "0-4@"},
		"log":        {2, replicaID(1).String()},
		"cuts":       {0, ""},
		"dirty":      {0, ""},
		"journal":    {1, "30"},
		"flush":      {2, "1/1"},
		"seal":       {0, ""},
	} {
		rows := inspected(t, killed, name)
		shown := false
		for _, row := range rows {
			shown = shown || slices.ContainsFunc(row, func(cell string) bool { return strings.Contains(cell, want.has) })
			if row[len(row)-1] != "" && name != "superblock" {
				t.Errorf("%s: %v", name, row)
			}
		}
		if len(rows) != want.rows || want.rows > 0 && !shown {
			t.Errorf("%s: %v, want %d with %s", name, rows, want.rows, want.has)
		}
	}
	if got := inspected(t, killed, "replicas"); got[0][6] != "3" || got[0][7] != "7" {
		t.Errorf("epoch and revision: %v", got[0])
	}
	if after := content(t, killed); len(after) != len(before) {
		t.Error("looking at the disk changed it")
	}
	if len(Structures()) != 9 {
		t.Errorf("structures %v", Structures())
	}
}

// TestInspectDamage: what is damaged is shown with what is wrong, and the rest as ever.
func TestInspectDamage(t *testing.T) {
	path := usedDisk(t)
	flip(t, filepath.Join(path, dataName), flushOffset(1, 1)+30)
	rows := inspected(t, path, "flush")
	if len(rows) != 2 || rows[0][6] != "" || !strings.Contains(rows[1][6], "checksum") {
		t.Errorf("flush slots %v", rows)
	}
	if rows := inspected(t, path, "seal"); len(rows) < 3 || rows[0][4] != "" || rows[len(rows)-1][4] == "" {
		t.Errorf("a seal, of whose last flush record a bit is flipped: %v", rows)
	}
	flip(t, filepath.Join(path, sealName), 30)
	if rows := inspected(t, path, "seal"); len(rows) != 1 || !strings.Contains(rows[0][4], "checksum") {
		t.Errorf("a damaged seal: %v", rows)
	}
	i, err := Inspect(path)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	if err := i.Each("weather", nil); !errors.Is(err, block.ErrInvalid) || !strings.Contains(err.Error(), "superblock") {
		t.Errorf("an unknown structure: %v", err)
	}
	if _, err := Inspect(path); !errors.Is(err, block.ErrInUse) {
		t.Errorf("a disk in use: %v", err)
	}
	if _, err := Inspect(t.TempDir()); !errors.Is(err, block.ErrNotFound) {
		t.Errorf("no disk: %v", err)
	}
}
