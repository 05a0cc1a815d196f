package server

import (
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
)

const (
	// maxMembers bounds the replicas of a volume that one message may name.
	maxMembers = 64
	// maxHashLength bounds the span of one OpHash.
	maxHashLength = block.RegionSize

	knownFlags = block.FlagResync | block.FlagAcceptSuspect
)

// validate checks everything of a request that does not depend on who sent it.
func validate(req *block.Request, volume block.VolumeID, size int64) error {
	if req.Flags&^knownFlags != 0 {
		return fmt.Errorf("flags %#x: %w", req.Flags, block.ErrProtocol)
	}
	if (req.Op == block.OpWrite) != (req.Buf != nil) || (req.Op == block.OpUpdate) != (req.Update != nil) {
		return fmt.Errorf("operation %d with the wrong payload: %w", req.Op, block.ErrProtocol)
	}
	switch req.Op {
	case block.OpRead, block.OpWrite, block.OpZero:
		return validateSpan(req, size)
	case block.OpHash:
		return validateHash(req, size)
	case block.OpFlush:
		return validateFlush(req)
	case block.OpUpdate:
		return validateUpdate(req, volume, size)
	case block.OpPing:
		return nil
	default:
		return fmt.Errorf("operation %d: %w", req.Op, block.ErrProtocol)
	}
}

func validateSpan(req *block.Request, size int64) error {
	if !req.Span().Within(size, block.SectorSize) {
		return fmt.Errorf("range %d+%d in a volume of %d bytes: %w", req.Offset, req.Length, size, block.ErrInvalid)
	}
	if req.Op != block.OpZero && req.Length > block.MaxTransfer {
		return fmt.Errorf("transfer of %d bytes, at most %d: %w", req.Length, block.MaxTransfer, block.ErrInvalid)
	}
	if req.Op == block.OpWrite && int64(len(req.Buf.Data)) != req.Length {
		return fmt.Errorf("write of %d bytes with %d bytes of data: %w", req.Length, len(req.Buf.Data), block.ErrProtocol)
	}
	return nil
}

// validateHash wants whole extents; the last one may end with the volume.
func validateHash(req *block.Request, size int64) error {
	span := req.Span()
	whole := span.Offset%block.ExtentSize == 0 && (span.Length%block.ExtentSize == 0 || span.End() == size)
	if !span.Within(size, block.SectorSize) || !whole || span.Length > maxHashLength {
		return fmt.Errorf("hash of range %d+%d in a volume of %d bytes: %w", req.Offset, req.Length, size, block.ErrInvalid)
	}
	return nil
}

func validateFlush(req *block.Request) error {
	if req.Flush.Epoch > req.Epoch {
		return fmt.Errorf("flush number of epoch %d in epoch %d: %w", req.Flush.Epoch, req.Epoch, block.ErrInvalid)
	}
	if len(req.Confirmed) > maxMembers {
		return fmt.Errorf("%d confirmed flush numbers: %w", len(req.Confirmed), block.ErrInvalid)
	}
	return nil
}

func validateUpdate(req *block.Request, volume block.VolumeID, size int64) error {
	u := req.Update
	if v := u.View; v != nil {
		if v.Volume != volume || len(v.Replicas) > maxMembers {
			return fmt.Errorf("view of volume %s with %d replicas: %w", v.Volume, len(v.Replicas), block.ErrInvalid)
		}
		if v.Epoch > req.Epoch {
			return fmt.Errorf("view of epoch %d in epoch %d: %w", v.Epoch, req.Epoch, block.ErrInvalid)
		}
	}
	if !regionsWithin(u.ClearLog, size) || len(u.DropDirty) > maxMembers {
		return fmt.Errorf("regions beyond the volume's end: %w", block.ErrInvalid)
	}
	for _, sets := range [...][]block.DirtySet{u.SetDirty, u.AddDirty, u.ClearDirty} {
		if len(sets) > maxMembers {
			return fmt.Errorf("%d dirty sets: %w", len(sets), block.ErrInvalid)
		}
		for i := range sets {
			if !regionsWithin(sets[i].Regions, size) {
				return fmt.Errorf("dirty set of replica %s beyond the volume's end: %w", sets[i].Replica, block.ErrInvalid)
			}
		}
	}
	return nil
}

// regionsWithin reports whether the set names no region past the end of a
// volume of size bytes.
func regionsWithin(s block.Regions, size int64) bool {
	count := block.RegionCount(size)
	for i, word := range s {
		switch first := i * 64; {
		case word == 0 || first+64 <= count:
		case first >= count || word>>(count-first) != 0:
			return false
		}
	}
	return true
}
