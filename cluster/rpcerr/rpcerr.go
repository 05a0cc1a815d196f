// Package rpcerr is the gRPC edge of the sentinel errors: it turns them into
// status codes on the way out and back into themselves on the way in, so that
// errors.Is works across daemons.
//
// The code is for clients that know nothing of Holdfast; between daemons the
// sentinel travels as the reason of a google.rpc.ErrorInfo of domain
// "holdfast.io".
package rpcerr

import (
	"context"
	"errors"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/internal/block"
)

const domain = "holdfast.io"

type entry struct {
	sentinel error
	reason   string
	code     codes.Code
}

func table() []entry {
	return []entry{
		{block.ErrInvalid, "INVALID", codes.InvalidArgument},
		{block.ErrNotFound, "NOT_FOUND", codes.NotFound},
		{block.ErrExists, "EXISTS", codes.AlreadyExists},
		{block.ErrInUse, "IN_USE", codes.FailedPrecondition},
		{block.ErrStaleEpoch, "STALE_EPOCH", codes.FailedPrecondition},
		{block.ErrStaleSession, "STALE_SESSION", codes.FailedPrecondition},
		{block.ErrConflict, "CONFLICT", codes.Aborted},
		{block.ErrUnknown, "OUTCOME_UNKNOWN", codes.Unknown},
		{block.ErrNoSpace, "NO_SPACE", codes.ResourceExhausted},
		{block.ErrNoCapacity, "NO_CAPACITY", codes.ResourceExhausted},
		{block.ErrChecksum, "CHECKSUM", codes.DataLoss},
		{block.ErrDiskFailed, "DISK_FAILED", codes.Internal},
		{block.ErrCorrupt, "CORRUPT", codes.DataLoss},
		{block.ErrVersion, "VERSION", codes.FailedPrecondition},
		{block.ErrForeign, "FOREIGN", codes.FailedPrecondition},
		{block.ErrProtocol, "PROTOCOL", codes.Internal},
		{block.ErrUnavailable, "UNAVAILABLE", codes.Unavailable},
		{block.ErrNotLeader, "NOT_LEADER", codes.FailedPrecondition},
		{block.ErrDetached, "DETACHED", codes.FailedPrecondition},
		{block.ErrIO, "IO", codes.Internal},
		{block.ErrClosed, "CLOSED", codes.Unavailable},
	}
}

// ToStatus is err as a gRPC status. The first sentinel of the table that err
// wraps decides; a status error is passed on as it is; anything else is INTERNAL,
// but for the ends of a context.
func ToStatus(err error) error {
	if err == nil {
		return nil
	}
	var came *remoteError
	if errors.As(err, &came) {
		passed := came.status.Proto()
		passed.Message = err.Error()
		return status.FromProto(passed).Err()
	}
	for _, e := range table() {
		if errors.Is(err, e.sentinel) {
			s, detailErr := status.New(e.code, err.Error()).WithDetails(&errdetails.ErrorInfo{Reason: e.reason, Domain: domain})
			if detailErr != nil {
				return status.Error(e.code, err.Error())
			}
			return s.Err()
		}
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, err.Error())
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, err.Error())
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Error(codes.Internal, err.Error())
}

// FromStatus is the error of a gRPC call with the sentinel that it stands for: the
// one that was sent, or else block.ErrUnavailable for UNAVAILABLE,
// block.ErrInvalid for INVALID_ARGUMENT and so on where a code says enough. The
// status can still be had with status.FromError.
func FromStatus(err error) error {
	s, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	e := &remoteError{status: s}
	for _, d := range s.Details() {
		info, ok := d.(*errdetails.ErrorInfo)
		if !ok || info.GetDomain() != domain {
			continue
		}
		for _, known := range table() {
			if known.reason == info.GetReason() {
				e.sentinel, e.answered = known.sentinel, true
			}
		}
	}
	if e.sentinel == nil {
		e.sentinel = byCode(s.Code())
	}
	return e
}

func byCode(code codes.Code) error {
	switch code {
	case codes.InvalidArgument:
		return block.ErrInvalid
	case codes.NotFound:
		return block.ErrNotFound
	case codes.AlreadyExists:
		return block.ErrExists
	case codes.Unavailable:
		return block.ErrUnavailable
	case codes.DeadlineExceeded:
		return context.DeadlineExceeded
	case codes.Canceled:
		return context.Canceled
	default:
		return nil
	}
}

// Answered reports whether err is what a daemon's own code answered, rather than
// a failure of the transport or a deadline.
func Answered(err error) bool {
	var e *remoteError
	return errors.As(err, &e) && e.answered
}

// remoteError is an error that a daemon sent.
type remoteError struct {
	status   *status.Status
	sentinel error
	answered bool
}

func (e *remoteError) Error() string              { return e.status.Message() }
func (e *remoteError) Unwrap() error              { return e.sentinel }
func (e *remoteError) GRPCStatus() *status.Status { return e.status }

// UnaryServerInterceptor turns the errors of handlers into statuses. Every server
// of the control API needs it.
func UnaryServerInterceptor(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	resp, err := handler(ctx, req)
	return resp, ToStatus(err)
}

// UnaryClientInterceptor turns statuses back into errors.
func UnaryClientInterceptor(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return FromStatus(invoker(ctx, method, req, reply, cc, opts...))
}
