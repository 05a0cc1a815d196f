package stamp

import (
	"errors"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

func TestStamps(t *testing.T) {
	p := make([]byte, 2*block.BlockSize)
	Put(p[:block.BlockSize], 8192, 42)
	values, err := Read(p, 8192)
	if err != nil || values[0] != 42 || values[7] != 42 || values[8] != Zeroed {
		t.Errorf("read %v, %v", values, err)
	}
	if _, err := Read(p, 4096); !errors.Is(err, block.ErrCorrupt) {
		t.Errorf("bytes of another place answer %v", err)
	}
	for _, at := range []int{0, 9, 17, 100, 511} {
		p[at] ^= 1
		if _, err := Read(p, 8192); !errors.Is(err, block.ErrCorrupt) {
			t.Errorf("a flipped bit at %d answers %v", at, err)
		}
		p[at] ^= 1
	}
}
