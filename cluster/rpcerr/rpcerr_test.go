package rpcerr

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/internal/block"
)

func TestEverySentinelTravels(t *testing.T) {
	reasons := map[string]bool{}
	for _, e := range table() {
		if reasons[e.reason] {
			t.Errorf("reason %s appears twice", e.reason)
		}
		reasons[e.reason] = true
	}
	for _, sentinel := range block.Sentinels() {
		sent := ToStatus(fmt.Errorf("do thing: %w", sentinel))
		if c := status.Code(sent); c == codes.OK || c == codes.Internal && !errors.Is(sentinel, block.ErrDiskFailed) &&
			!errors.Is(sentinel, block.ErrProtocol) && !errors.Is(sentinel, block.ErrIO) {
			t.Errorf("%v has no code of its own: %v", sentinel, c)
		}
		// Two hops, as when a follower passes on what the leader answered.
		back := FromStatus(sent)
		again := FromStatus(ToStatus(fmt.Errorf("forward: %w", back)))
		for _, err := range []error{back, again} {
			if !errors.Is(err, sentinel) || !Answered(err) {
				t.Errorf("%v came back as %v", sentinel, err)
			}
			for _, other := range block.Sentinels() {
				if !errors.Is(other, sentinel) && errors.Is(err, other) {
					t.Errorf("%v came back as %v too", sentinel, other)
				}
			}
		}
		if back.Error() != "do thing: "+sentinel.Error() || again.Error() != "forward: "+back.Error() {
			t.Errorf("messages %q and %q", back, again)
		}
		if status.Code(back) != status.Code(sent) || status.Code(ToStatus(again)) != status.Code(sent) {
			t.Errorf("%v changed its code on the way", sentinel)
		}
	}
}

func TestOtherErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		code codes.Code
	}{
		{nil, codes.OK},
		{context.DeadlineExceeded, codes.DeadlineExceeded},
		{context.Canceled, codes.Canceled},
		{errors.New("surprise"), codes.Internal},
		{status.Error(codes.Unimplemented, "no"), codes.Unimplemented},
	} {
		if got := status.Code(ToStatus(c.err)); got != c.code {
			t.Errorf("%v became %v, want %v", c.err, got, c.code)
		}
	}
	lost := FromStatus(status.Error(codes.Unavailable, "connection refused"))
	if !errors.Is(lost, block.ErrUnavailable) || Answered(lost) {
		t.Errorf("a lost connection became %v", lost)
	}
	if err := FromStatus(status.Error(codes.Internal, "x")); err == nil || Answered(err) {
		t.Errorf("an internal error became %v", err)
	}
	if FromStatus(nil) != nil {
		t.Error("no error became one")
	}
}
