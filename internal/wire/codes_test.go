package wire

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

// TestEverySentinelHasANumber: an error that is decided by on one node is
// decided by on the other.
func TestEverySentinelHasANumber(t *testing.T) {
	codes := make(map[uint16]error)
	for _, s := range statuses() {
		if other, twice := codes[s.code]; twice || s.code == statusOK {
			t.Errorf("number %d of %v is %v's", s.code, s.err, other)
		}
		codes[s.code] = s.err
	}
	for _, sentinel := range block.Sentinels() {
		err := fmt.Errorf("do something: %w", sentinel)
		code := statusOf(err)
		if !errors.Is(codes[code], sentinel) {
			t.Errorf("%v has no number", sentinel)
			continue
		}
		if got := errorOf(code, nil); !errors.Is(got, sentinel) {
			t.Errorf("%v came back as %v", sentinel, got)
		}
		got := errorOf(code, []byte(err.Error()))
		if !errors.Is(got, sentinel) || got.Error() != err.Error() {
			t.Errorf("%v came back as %v", err, got)
		}
	}
}

func TestStrangeErrors(t *testing.T) {
	if got := errorOf(statusOf(errors.New("strange")), nil); !errors.Is(got, block.ErrIO) {
		t.Errorf("an error without sentinel came back as %v", got)
	}
	if got := errorOf(9999, []byte("x")); !errors.Is(got, block.ErrProtocol) {
		t.Errorf("an unknown number came back as %v", got)
	}
	if got := errorText(errors.New(strings.Repeat("x", 5000))); len(got) != maxErrorText {
		t.Errorf("text of %d bytes", len(got))
	}
}
