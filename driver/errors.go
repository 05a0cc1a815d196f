package driver

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/driver/mount"
)

// daemonCode says with which code the plugin passes on an answer of the daemon.
// The specification gives most codes a meaning for each call; what it does not
// name must still be sorted into "failed" and "may have happened" (UNAVAILABLE),
// because the callers retry the one and undo the other.
func daemonCode(code codes.Code) codes.Code {
	switch code {
	case codes.OK, codes.InvalidArgument, codes.NotFound, codes.AlreadyExists,
		codes.FailedPrecondition, codes.ResourceExhausted, codes.OutOfRange,
		codes.Aborted, codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return code
	case codes.Unknown:
		return codes.Unavailable
	case codes.Unimplemented:
		// A daemon older than the plugin, while a cluster is upgraded: it passes.
		return codes.Unavailable
	case codes.PermissionDenied, codes.Unauthenticated:
		// The plugin's own credentials, not the caller's.
		return codes.Internal
	case codes.DataLoss, codes.Internal:
		return codes.Internal
	default:
		return codes.Unavailable
	}
}

// mountCode says which code an error of package mount gets.
func mountCode(err error) codes.Code {
	switch {
	case errors.Is(err, mount.ErrForeignData), errors.Is(err, mount.ErrUnformatted), errors.Is(err, mount.ErrBusy):
		return codes.FailedPrecondition
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	default:
		return codes.Internal
	}
}

// mountAdvice adds what can be done about an error of package mount.
func mountAdvice(err error) string {
	switch {
	case errors.Is(err, mount.ErrForeignData):
		return "; it was left untouched: use the volume as it was used before (fsType, volumeMode), or create another one"
	case errors.Is(err, mount.ErrUnformatted):
		return "; mount it for writing once, so that a file system is made"
	case errors.Is(err, mount.ErrBusy):
		return "; end what has files open below it (\"fuser -vm\" shows it) and call again"
	case errors.Is(err, mount.ErrDamaged):
		return "; stop the pod, attach the volume with \"holdfast volume attach\" and repair the file system by hand"
	default:
		return ""
	}
}

// fromDaemon translates an error of the daemon; op says what was tried, on what.
func fromDaemon(err error, op string, args ...any) error {
	if err == nil {
		return nil
	}
	s := status.Convert(err)
	return status.Errorf(daemonCode(s.Code()), "%s: %s", fmt.Sprintf(op, args...), s.Message())
}

// fromMount translates an error of package mount.
func fromMount(err error, op string, args ...any) error {
	if err == nil {
		return nil
	}
	return status.Errorf(mountCode(err), "%s: %v%s", fmt.Sprintf(op, args...), err, mountAdvice(err))
}

// Short forms of the codes that requests are refused with.

func invalid(format string, args ...any) error {
	return status.Errorf(codes.InvalidArgument, format, args...)
}

func notFound(format string, args ...any) error {
	return status.Errorf(codes.NotFound, format, args...)
}

func failedPrecondition(format string, args ...any) error {
	return status.Errorf(codes.FailedPrecondition, format, args...)
}
