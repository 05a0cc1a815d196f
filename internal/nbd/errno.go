package nbd

import (
	"errors"
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Errno is an error number of the transmission phase. The standard fixes the
// values; they are those of Linux.
type Errno uint32

// The error numbers of the standard.
const (
	EPERM     Errno = 1
	EIO       Errno = 5
	ENOMEM    Errno = 12
	EINVAL    Errno = 22
	ENOSPC    Errno = 28
	EOVERFLOW Errno = 75
	ENOTSUP   Errno = 95
	ESHUTDOWN Errno = 108
)

// Error implements error.
func (e Errno) Error() string {
	switch e {
	case EPERM:
		return "operation not permitted"
	case EIO:
		return "input/output error"
	case ENOMEM:
		return "out of memory"
	case EINVAL:
		return "invalid argument"
	case ENOSPC:
		return "no space left"
	case EOVERFLOW:
		return "value too large"
	case ENOTSUP:
		return "operation not supported"
	case ESHUTDOWN:
		return "server is shutting down"
	default:
		return fmt.Sprintf("error number %d", uint32(e))
	}
}

// Unwrap is the sentinel a client's caller decides by.
func (e Errno) Unwrap() error {
	switch e {
	case EPERM, EINVAL, EOVERFLOW, ENOTSUP:
		return block.ErrInvalid
	case ENOMEM:
		return block.ErrUnavailable
	case ENOSPC:
		return block.ErrNoSpace
	case ESHUTDOWN:
		return block.ErrDetached
	default:
		return block.ErrIO
	}
}

// verdict is how the completion of a request with an error is answered.
type verdict struct {
	err   error
	errno Errno
	// hold: the error speaks of whoever served the request, not of the request.
	// Another engine, or this one later, may well do it; a connection with
	// HoldErrors ends without an answer, so that it is asked again.
	hold bool
}

// verdicts is the one table from Holdfast's errors to this protocol's.
func verdicts() []verdict {
	return []verdict{
		{err: block.ErrInvalid, errno: EINVAL},
		{err: block.ErrNoSpace, errno: ENOSPC},
		{err: block.ErrNoCapacity, errno: ENOSPC},
		{err: block.ErrDetached, errno: ESHUTDOWN},
		{err: block.ErrIO, errno: EIO},
		{err: block.ErrChecksum, errno: EIO},
		{err: block.ErrDiskFailed, errno: EIO},
		{err: block.ErrCorrupt, errno: EIO},
		{err: block.ErrNotFound, errno: EIO},
		{err: block.ErrExists, errno: EIO},
		{err: block.ErrInUse, errno: EIO},
		{err: block.ErrVersion, errno: EIO},
		{err: block.ErrForeign, errno: EIO},
		{err: block.ErrProtocol, errno: EIO},
		{err: block.ErrClosed, errno: ESHUTDOWN, hold: true},
		{err: block.ErrStaleEpoch, errno: ESHUTDOWN, hold: true},
		{err: block.ErrStaleSession, errno: ESHUTDOWN, hold: true},
		{err: block.ErrConflict, errno: EIO, hold: true},
		{err: block.ErrUnknown, errno: EIO, hold: true},
		{err: block.ErrUnavailable, errno: EIO, hold: true},
		{err: block.ErrNotLeader, errno: EIO, hold: true},
	}
}

// judge looks an error up. An error of no sentinel is an I/O error.
func judge(err error) (errno Errno, hold bool) {
	var direct Errno
	if errors.As(err, &direct) {
		return direct, false
	}
	for _, v := range verdicts() {
		if errors.Is(err, v.err) {
			return v.errno, v.hold
		}
	}
	return EIO, false
}

// refusal is the option reply for an export that could not be opened.
func refusal(err error) ReplyType {
	switch {
	case errors.Is(err, block.ErrNotFound), errors.Is(err, block.ErrDetached):
		return RepErrUnknown
	case errors.Is(err, block.ErrInvalid), errors.Is(err, block.ErrProtocol):
		return RepErrInvalid
	case errors.Is(err, block.ErrInUse), errors.Is(err, block.ErrForeign), errors.Is(err, block.ErrExists):
		return RepErrPolicy
	case errors.Is(err, block.ErrVersion):
		return RepErrPlatform
	default:
		return RepErrShutdown
	}
}

// OptionError is a server's refusal of a handshake option.
type OptionError struct {
	Option Option
	Reply  ReplyType
	// Text is the server's, for people.
	Text string
}

// Error implements error.
func (e *OptionError) Error() string {
	name := fmt.Sprintf("reply %#x", uint32(e.Reply))
	switch e.Reply {
	case RepErrUnsup:
		name = "not supported"
	case RepErrPolicy:
		name = "forbidden by policy"
	case RepErrInvalid:
		name = "malformed"
	case RepErrPlatform:
		name = "not supported on this platform"
	case RepErrTLSRequired:
		name = "TLS required"
	case RepErrUnknown:
		name = "no such export"
	case RepErrShutdown:
		name = "server is shutting down"
	case RepErrBlockSizeReqd:
		name = "block sizes must be asked for"
	case RepErrTooBig:
		name = "too big"
	}
	if e.Text == "" {
		return fmt.Sprintf("option %d refused: %s", e.Option, name)
	}
	return fmt.Sprintf("option %d refused: %s: %s", e.Option, name, e.Text)
}

// Unwrap is the sentinel to decide by.
func (e *OptionError) Unwrap() error {
	switch e.Reply {
	case RepErrUnknown:
		return block.ErrNotFound
	case RepErrShutdown:
		return block.ErrUnavailable
	case RepErrUnsup, RepErrPlatform:
		return block.ErrVersion
	default:
		return block.ErrInvalid
	}
}
