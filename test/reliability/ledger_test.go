package main

import (
	"errors"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/test/harness/stamp"
)

// TestLedger: what was acknowledged last must be read, or what was sent after it and
// never answered; and nothing that was seen to be replaced may come back.
func TestLedger(t *testing.T) {
	l := newLedger(4 * block.BlockSize)
	span := block.Span{Offset: block.BlockSize, Length: 2 * block.BlockSize}
	holds := func(values ...stamp.Value) []byte {
		p := make([]byte, span.Length)
		for i, v := range values {
			if v != stamp.Zeroed {
				stamp.Put(p[i*block.BlockSize:(i+1)*block.BlockSize], span.Offset+int64(i)*block.BlockSize, v)
			}
		}
		return p
	}
	check := func(want error, values ...stamp.Value) {
		t.Helper()
		if err := l.check(holds(values...), span.Offset); !errors.Is(err, want) {
			t.Errorf("blocks that hold %d are judged %v, want %v", values, err, want)
		}
	}
	check(nil, 0, 0)
	l.wrote(span, 7)
	check(nil, 7, 7)
	check(errLost, 7, 0)
	check(errLost, 6, 7)
	l.unanswered(span, 8)
	l.unanswered(span, 9)
	check(nil, 7, 8)
	check(errLost, 7, 7) // the second was seen to be 8
	check(nil, 9, 8)
	check(errLost, 8, 8) // the first was seen to be 9
	l.wrote(span, 10)
	check(errLost, 9, 10)
	check(nil, 10, 10)
}

// TestLedgerTornBlock: a block that a crash left half new keeps both in doubt.
func TestLedgerTornBlock(t *testing.T) {
	l := newLedger(block.BlockSize)
	span := block.Span{Length: block.BlockSize}
	l.wrote(span, 1)
	l.unanswered(span, 2)
	torn, old := make([]byte, block.BlockSize), make([]byte, block.BlockSize)
	stamp.Put(torn, 0, 2)
	stamp.Put(old, 0, 1)
	copy(torn[block.BlockSize/2:], old[block.BlockSize/2:])
	if err := errors.Join(l.check(torn, 0), l.check(torn, 0)); err != nil {
		t.Error(err)
	}
	torn[100] ^= 1
	if err := l.check(torn, 0); !errors.Is(err, errLost) {
		t.Errorf("a damaged block is judged %v", err)
	}
}

func TestLedgerCountsExtents(t *testing.T) {
	l := newLedger(4 * block.ExtentSize)
	before := l.snapshot()
	l.wrote(block.Span{Offset: block.ExtentSize - block.BlockSize, Length: 2 * block.BlockSize}, 5)
	if n := l.extentsSince(before); n != 2 {
		t.Errorf("%d extents have changed, want 2", n)
	}
}
