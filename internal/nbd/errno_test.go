package nbd

import (
	"errors"
	"fmt"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

func TestEverySentinelHasOneVerdict(t *testing.T) {
	known := map[error]int{}
	for _, v := range verdicts() {
		known[v.err]++
	}
	for _, sentinel := range block.Sentinels() {
		if known[sentinel] != 1 {
			t.Errorf("%q has %d verdicts, want 1", sentinel, known[sentinel])
		}
		errno, _ := judge(fmt.Errorf("read block 7: %w", sentinel))
		switch errno {
		case EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP, ESHUTDOWN:
		default:
			t.Errorf("%q becomes error number %d, which the standard does not have", sentinel, errno)
		}
	}
	if len(known) != len(block.Sentinels()) {
		t.Errorf("%d verdicts for %d sentinels", len(known), len(block.Sentinels()))
	}
}

func TestUnknownErrorIsAnIOError(t *testing.T) {
	if errno, hold := judge(errors.New("surprise")); errno != EIO || hold {
		t.Fatalf("got %v, hold %v", errno, hold)
	}
}

func TestErrnosUnwrapToSentinels(t *testing.T) {
	for errno, want := range map[Errno]error{
		EPERM: block.ErrInvalid, EIO: block.ErrIO, ENOMEM: block.ErrUnavailable, EINVAL: block.ErrInvalid,
		ENOSPC: block.ErrNoSpace, EOVERFLOW: block.ErrInvalid, ENOTSUP: block.ErrInvalid,
		ESHUTDOWN: block.ErrDetached, Errno(999): block.ErrIO,
	} {
		if !errors.Is(errno, want) {
			t.Errorf("%d is not %q", errno, want)
		}
	}
}
