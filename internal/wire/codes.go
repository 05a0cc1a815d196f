package wire

import (
	"errors"
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
)

const (
	// statusOK is the status of a request that succeeded.
	statusOK = 0
	// statusIO is that of an error which wraps no sentinel.
	statusIO = 20
)

// status pairs a sentinel with its number on the wire.
type status struct {
	code uint16
	err  error
}

// statuses is the one table between sentinel errors and the wire. Numbers are
// never given to another error.
func statuses() []status {
	return []status{
		{1, block.ErrInvalid},
		{2, block.ErrNotFound},
		{3, block.ErrExists},
		{4, block.ErrInUse},
		{5, block.ErrStaleEpoch},
		{6, block.ErrStaleSession},
		{7, block.ErrConflict},
		{8, block.ErrUnknown},
		{9, block.ErrNoSpace},
		{10, block.ErrNoCapacity},
		{11, block.ErrChecksum},
		{12, block.ErrDiskFailed},
		{13, block.ErrCorrupt},
		{14, block.ErrVersion},
		{15, block.ErrForeign},
		{16, block.ErrProtocol},
		{17, block.ErrUnavailable},
		{18, block.ErrNotLeader},
		{19, block.ErrDetached},
		{statusIO, block.ErrIO},
		{21, block.ErrClosed},
	}
}

// statusOf is the number of an error.
func statusOf(err error) uint16 {
	if err == nil {
		return statusOK
	}
	for _, s := range statuses() {
		if errors.Is(err, s.err) {
			return s.code
		}
	}
	return statusIO
}

// remoteError is an error that came over the wire: the other side's words, and
// the sentinel to decide by.
type remoteError struct {
	text     string
	sentinel error
}

// Error implements error.
func (e *remoteError) Error() string { return e.text }

// Unwrap makes errors.Is find the sentinel.
func (e *remoteError) Unwrap() error { return e.sentinel }

// errorOf is the error of a reply with that status and text.
func errorOf(code uint16, text []byte) error {
	for _, s := range statuses() {
		if s.code != code {
			continue
		}
		if len(text) == 0 {
			return s.err
		}
		return &remoteError{text: string(text), sentinel: s.err}
	}
	return fmt.Errorf("status %d, which this version does not know, from the peer (%q): %w", code, text, block.ErrProtocol)
}

// errorText is what an error says to the other side, within bounds.
func errorText(err error) string {
	text := err.Error()
	if len(text) > maxErrorText {
		text = text[:maxErrorText]
	}
	return text
}
