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
	// maxCuts bounds the cuts that one update may name.
	maxCuts = 16384

	knownFlags = block.FlagResync | block.FlagAcceptSuspect | block.FlagRepair | block.FlagDurable
)

// validate checks everything of a request that does not depend on who sent it.
func validate(req *block.Request, volume block.VolumeID, size int64) error {
	if req.Flags&^knownFlags != 0 {
		return fmt.Errorf("flags %#x: %w", req.Flags, block.ErrProtocol)
	}
	if (req.Op == block.OpWrite) != (req.Buf != nil) || (req.Op == block.OpUpdate) != (req.Update != nil) {
		return fmt.Errorf("operation %d with the wrong payload: %w", req.Op, block.ErrProtocol)
	}
	if err := validateSnapshot(req); err != nil {
		return err
	}
	ofCut := req.Op == block.OpWrite && !req.Snapshot.IsZero()
	ofHead := req.Op == block.OpWrite && req.Snapshot.IsZero()
	if req.Flags&block.FlagRepair != 0 && !ofCut || req.Flags&block.FlagDurable != 0 && !ofHead || !req.Since.IsZero() && req.Op != block.OpHash {
		return fmt.Errorf("operation %d with a flag or a snapshot of another: %w", req.Op, block.ErrProtocol)
	}
	switch req.Op {
	case block.OpRead, block.OpWrite, block.OpZero:
		return validateSpan(req, size)
	case block.OpHash:
		return validateExtents(req, size, maxHashLength)
	case block.OpChanged:
		return validateExtents(req, size, block.ChangedMax)
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

// validateSnapshot lets a resync alone change a cut. The store knows what cuts there
// are, and their sizes.
func validateSnapshot(req *block.Request) error {
	if req.Snapshot.IsZero() {
		if req.Op == block.OpChanged {
			return fmt.Errorf("changes since no snapshot: %w", block.ErrProtocol)
		}
		return nil
	}
	switch req.Op {
	case block.OpRead, block.OpHash, block.OpChanged:
		return nil
	case block.OpWrite, block.OpZero:
		if req.Flags&block.FlagResync == 0 {
			return fmt.Errorf("change of snapshot %s: %w", req.Snapshot, block.ErrInvalid)
		}
		return nil
	default:
		return fmt.Errorf("operation %d of snapshot %s: %w", req.Op, req.Snapshot, block.ErrProtocol)
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

// validateExtents wants extents from their beginning. The last one may be cut short: a
// volume is smaller than a replica that has grown for it.
func validateExtents(req *block.Request, size, most int64) error {
	span := req.Span()
	if !span.Within(size, block.SectorSize) || span.Offset%block.ExtentSize != 0 || span.Length > most {
		return fmt.Errorf("operation %d of range %d+%d in a volume of %d bytes: %w", req.Op, req.Offset, req.Length, size, block.ErrInvalid)
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
	if err := validateCuts(req, size); err != nil {
		return err
	}
	regions := block.RegionCount(max(size, u.Grow))
	if !u.ClearLog.Within(regions) || len(u.DropDirty) > maxMembers {
		return fmt.Errorf("regions beyond the volume's end: %w", block.ErrInvalid)
	}
	for _, sets := range [...][]block.DirtySet{u.SetDirty, u.AddDirty, u.ClearDirty} {
		if len(sets) > maxMembers {
			return fmt.Errorf("%d dirty sets: %w", len(sets), block.ErrInvalid)
		}
		for i := range sets {
			if !sets[i].Regions.Within(regions) {
				return fmt.Errorf("dirty set of replica %s beyond the volume's end: %w", sets[i].Replica, block.ErrInvalid)
			}
		}
	}
	return nil
}

// validateCuts checks what an update does to the cuts and the size.
func validateCuts(req *block.Request, size int64) error {
	u := req.Update
	if len(u.Cuts)+len(u.ValidCuts)+len(u.DropCuts) > maxCuts {
		return fmt.Errorf("update of more than %d cuts: %w", maxCuts, block.ErrInvalid)
	}
	for _, c := range u.Cuts {
		if c.Snapshot.IsZero() || c.Snapshot == block.KeptHead || c.Epoch > req.Epoch {
			return fmt.Errorf("cut for snapshot %s of epoch %d in epoch %d: %w", c.Snapshot, c.Epoch, req.Epoch, block.ErrInvalid)
		}
	}
	if u.Grow != 0 && (u.Grow < size || u.Grow > block.MaxVolumeSize || u.Grow%block.SectorSize != 0) {
		return fmt.Errorf("grow from %d to %d bytes: %w", size, u.Grow, block.ErrInvalid)
	}
	return nil
}
