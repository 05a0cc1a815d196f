package main

import (
	"bytes"
	"errors"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

// TestHolds: bytes that read as something else are lost writes.
func TestHolds(t *testing.T) {
	disk := bytes.Repeat([]byte{7}, 2*block.BlockSize)
	want := bytes.Repeat([]byte{7}, block.BlockSize)
	if err := holds(bytes.NewReader(disk), block.BlockSize, want); err != nil {
		t.Error(err)
	}
	disk[len(disk)-1] = 8
	if err := holds(bytes.NewReader(disk), block.BlockSize, want); !errors.Is(err, errLost) {
		t.Errorf("a byte that differs: %v", err)
	}
	if err := holds(bytes.NewReader(disk[:block.BlockSize]), block.BlockSize, want); err == nil {
		t.Error("bytes are held that are not there")
	}
}
