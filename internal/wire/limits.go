package wire

import (
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Limits bound what one connection holds in memory.
type Limits struct {
	// Requests is the number of requests that an engine's end holds unsent; and
	// the number that a replica's end holds unanswered.
	Requests int
	// Bytes is the same for their data, in both directions.
	Bytes int64
}

// LinkLimits fit an engine's end: past them the link is given up, because Send
// never waits.
func LinkLimits() Limits { return Limits{Requests: 8192, Bytes: 256 << 20} }

// ServerLimits fit a replica's end: past them the connection is not read.
func ServerLimits() Limits { return Limits{Requests: 2048, Bytes: 64 << 20} }

// Validate checks the limits.
func (l Limits) Validate() error {
	if l.Requests < 1 || l.Bytes < block.MaxTransfer {
		return fmt.Errorf("limits %+v: want at least one request of %d bytes: %w", l, block.MaxTransfer, block.ErrInvalid)
	}
	return nil
}
