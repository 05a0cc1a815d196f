package driver

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/driver/mount"
)

// maxCode is the last code that gRPC defines.
const maxCode = codes.Unauthenticated

func TestEveryCodeOfTheDaemonIsTranslated(t *testing.T) {
	want := map[codes.Code]codes.Code{
		codes.OK:                 codes.OK,
		codes.Canceled:           codes.Canceled,
		codes.Unknown:            codes.Unavailable,
		codes.InvalidArgument:    codes.InvalidArgument,
		codes.DeadlineExceeded:   codes.DeadlineExceeded,
		codes.NotFound:           codes.NotFound,
		codes.AlreadyExists:      codes.AlreadyExists,
		codes.PermissionDenied:   codes.Internal,
		codes.ResourceExhausted:  codes.ResourceExhausted,
		codes.FailedPrecondition: codes.FailedPrecondition,
		codes.Aborted:            codes.Aborted,
		codes.OutOfRange:         codes.OutOfRange,
		codes.Unimplemented:      codes.Unavailable,
		codes.Internal:           codes.Internal,
		codes.Unavailable:        codes.Unavailable,
		codes.DataLoss:           codes.Internal,
		codes.Unauthenticated:    codes.Internal,
	}
	for code := codes.OK; code <= maxCode; code++ {
		if got, ok := want[code]; !ok || daemonCode(code) != got {
			t.Errorf("%v becomes %v, want %v", code, daemonCode(code), got)
		}
	}
	err := fromDaemon(status.Error(codes.Unknown, "no quorum"), "create volume %q", "v")
	if got := status.Convert(err); got.Code() != codes.Unavailable || got.Message() != `create volume "v": no quorum` {
		t.Errorf("translated to %v", err)
	}
	if fromDaemon(nil, "x") != nil || fromMount(nil, "x") != nil {
		t.Error("success is translated to an error")
	}
}

func TestErrorsOfMounting(t *testing.T) {
	for _, test := range []struct {
		err    error
		code   codes.Code
		advice string
	}{
		{mount.ErrForeignData, codes.FailedPrecondition, "left untouched"},
		{mount.ErrUnformatted, codes.FailedPrecondition, "for writing once"},
		{mount.ErrDamaged, codes.Internal, "repair the file system"},
		{context.DeadlineExceeded, codes.DeadlineExceeded, ""},
		{context.Canceled, codes.Canceled, ""},
		{mount.ErrNotBlockDevice, codes.Internal, ""},
	} {
		err := status.Convert(fromMount(fmt.Errorf("mount: %w", test.err), "stage volume v"))
		if err.Code() != test.code || !strings.Contains(err.Message(), test.advice) {
			t.Errorf("%v becomes %v", test.err, err)
		}
	}
}
