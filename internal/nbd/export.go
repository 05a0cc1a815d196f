package nbd

import (
	"context"
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
)

// ExportInfo describes an export. Sizes are in bytes.
type ExportInfo struct {
	Name        string
	Description string
	// Size is a multiple of MinBlock.
	Size int64
	// MinBlock is 512 or 4096 for a server of ours; requests are multiples of
	// it. PreferredBlock is what a client does best to use (0: 4096), MaxBlock
	// the longest read or write (0: DefaultMaxBlock).
	MinBlock       uint32
	PreferredBlock uint32
	MaxBlock       uint32
	ReadOnly       bool
	// Flush, FUA, Trim and Zeroes: the backend takes such requests.
	Flush, FUA, Trim, Zeroes bool
	// MultiConn promises clients with several connections that a flush on one of them
	// covers what was answered on any, and that each reads what another has written.
	MultiConn bool
	// Contexts are the meta contexts for which the backend answers KindStatus.
	Contexts []string
}

// withDefaults fills in what may be left out.
func (i ExportInfo) withDefaults() ExportInfo {
	if i.PreferredBlock == 0 {
		i.PreferredBlock = max(i.MinBlock, block.BlockSize)
	}
	if i.MaxBlock == 0 {
		i.MaxBlock = DefaultMaxBlock
	}
	return i
}

// Validate reports what is wrong with the description of an export to serve.
func (i ExportInfo) Validate() error {
	i = i.withDefaults()
	switch {
	case i.MinBlock != block.SectorSize && i.MinBlock != block.BlockSize:
		return fmt.Errorf("export %q: minimum block size %d: %w", i.Name, i.MinBlock, block.ErrInvalid)
	case i.PreferredBlock < i.MinBlock || i.PreferredBlock&(i.PreferredBlock-1) != 0:
		return fmt.Errorf("export %q: preferred block size %d: %w", i.Name, i.PreferredBlock, block.ErrInvalid)
	case i.MaxBlock < i.PreferredBlock || i.MaxBlock > maxSkipPayload || i.MaxBlock%i.MinBlock != 0:
		return fmt.Errorf("export %q: maximum block size %d: %w", i.Name, i.MaxBlock, block.ErrInvalid)
	case i.Size < 0 || i.Size > block.MaxVolumeSize || i.Size%int64(i.MinBlock) != 0:
		return fmt.Errorf("export %q: size %d: %w", i.Name, i.Size, block.ErrInvalid)
	case len(i.Name) > maxNameLength || len(i.Description) > maxNameLength:
		return fmt.Errorf("export: name or description too long: %w", block.ErrInvalid)
	}
	return nil
}

// Flags are the transmission flags of the export, for a connection without
// structured replies.
func (i ExportInfo) Flags() TransmissionFlags {
	f := FlagHasFlags
	for _, s := range []struct {
		on   bool
		flag TransmissionFlags
	}{
		{i.ReadOnly, FlagReadOnly},
		{i.Flush, FlagSendFlush},
		{i.FUA, FlagSendFUA},
		{i.Trim && !i.ReadOnly, FlagSendTrim},
		{i.Zeroes && !i.ReadOnly, FlagSendWriteZeroes},
		{i.MultiConn, FlagCanMultiConn},
	} {
		if s.on {
			f |= s.flag
		}
	}
	return f
}

// setFlags is the inverse of Flags, for the client.
func (i *ExportInfo) setFlags(f TransmissionFlags) {
	i.ReadOnly = f&FlagReadOnly != 0
	i.Flush = f&FlagSendFlush != 0
	i.FUA = f&FlagSendFUA != 0
	i.Trim = f&FlagSendTrim != 0
	i.Zeroes = f&FlagSendWriteZeroes != 0
	i.MultiConn = f&FlagCanMultiConn != 0
}

// Export is one open export. Submit and Close come from the one connection that
// opened it.
type Export interface {
	Backend
	// Info describes the export; it does not change while it is open.
	Info() ExportInfo
	// Close ends the use of the export. No request of it is in flight then.
	Close() error
}

// Exports is where a Server finds what it serves. Its methods are called from
// many goroutines.
type Exports interface {
	// List names the exports to show to anybody who asks.
	List(ctx context.Context) []string
	// Open opens an export. An error that is block.ErrNotFound or
	// block.ErrDetached tells a Resilient client to give up; with any other it
	// tries again later.
	Open(ctx context.Context, name string) (Export, error)
}
