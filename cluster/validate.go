package cluster

import (
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

const (
	// sizeUnit is what sizes of volumes are rounded up to.
	sizeUnit = 1 << 20
	// replicasMax bounds the replicas of a volume.
	replicasMax = 5
	// snapshotsMax bounds how many snapshots a volume may ask to have.
	snapshotsMax  = 10_000
	nameLengthMax = 128
	tagLengthMax  = 64
	tagsMax       = 32
)

// diskClasses are the classes a disk may have.
func diskClasses() []string { return []string{"nvme", "ssd", "hdd"} }

// checkName wants what can be shown in a table and typed in a shell.
func checkName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("the name is empty: %w", block.ErrInvalid)
	case len(name) > nameLengthMax:
		return fmt.Errorf("the name has %d bytes, at most %d are allowed: %w", len(name), nameLengthMax, block.ErrInvalid)
	}
	return checkWord("name", name)
}

func checkWord(what, word string) error {
	for _, r := range word {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/@+", r) {
			return fmt.Errorf("%s %q contains %q; letters, digits and -_.:/@+ are allowed: %w", what, word, r, block.ErrInvalid)
		}
	}
	return nil
}

// checkTags is the tags sorted and without repetition.
func checkTags(tags []string) ([]string, error) {
	if len(tags) > tagsMax {
		return nil, fmt.Errorf("%d tags, at most %d are allowed: %w", len(tags), tagsMax, block.ErrInvalid)
	}
	for _, tag := range tags {
		if tag == "" || len(tag) > tagLengthMax {
			return nil, fmt.Errorf("tag %q: 1 to %d bytes are allowed: %w", tag, tagLengthMax, block.ErrInvalid)
		}
		if err := checkWord("tag", tag); err != nil {
			return nil, err
		}
	}
	if len(tags) == 0 {
		return nil, nil
	}
	tags = slices.Clone(tags)
	slices.Sort(tags)
	return slices.Compact(tags), nil
}

func checkClass(class string) error {
	if class != "" && !slices.Contains(diskClasses(), class) {
		return fmt.Errorf("disk class %q is not one of %s: %w", class, strings.Join(diskClasses(), ", "), block.ErrInvalid)
	}
	return nil
}

// checkParameters checks what a volume asks for. min_in_sync is 1 unless it is set;
// the number of replicas has no default.
func checkParameters(p *holdfastv1.VolumeParameters) (state.Parameters, error) {
	q := state.Parameters{Replicas: int(p.GetReplicas()), MinInSync: int(p.GetMinInSync()), DiskClass: p.GetDiskClass(), SnapshotsMax: int(p.GetMaxSnapshots())}
	if q.MinInSync == 0 {
		q.MinInSync = 1
	}
	switch {
	case q.Replicas < 1 || q.Replicas > replicasMax:
		return q, fmt.Errorf("%d replicas: 1 to %d are possible: %w", q.Replicas, replicasMax, block.ErrInvalid)
	case q.MinInSync < 1 || q.MinInSync > q.Replicas:
		return q, fmt.Errorf("min_in_sync %d: 1 to the number of replicas, %d, is possible: %w", q.MinInSync, q.Replicas, block.ErrInvalid)
	case q.SnapshotsMax < 0 || q.SnapshotsMax > snapshotsMax:
		return q, fmt.Errorf("max_snapshots %d: 1 to %d is possible: %w", q.SnapshotsMax, snapshotsMax, block.ErrInvalid)
	}
	if q.SnapshotsMax == state.SnapshotsDefault {
		q.SnapshotsMax = 0 // the same wish in other words
	}
	err := checkClass(q.DiskClass)
	if err != nil {
		return q, err
	}
	if q.SnapshotSpace, err = checkLimit(p.GetMaxSnapshotSpace()); err != nil {
		return q, fmt.Errorf("max_snapshot_space: %w", err)
	}
	if q.DiskTags, err = checkTags(p.GetDiskTags()); err != nil {
		return q, fmt.Errorf("disk tags: %w", err)
	}
	if q.NodeTags, err = checkTags(p.GetNodeTags()); err != nil {
		return q, fmt.Errorf("node tags: %w", err)
	}
	return q, nil
}

// checkSize is the size rounded up to a whole MiB.
func checkSize(size int64) (int64, error) {
	switch {
	case size <= 0:
		return 0, fmt.Errorf("size %d: it must be above zero: %w", size, block.ErrInvalid)
	case size > block.MaxVolumeSize:
		return 0, fmt.Errorf("size %s: at most %s is possible: %w", showBytes(size), showBytes(block.MaxVolumeSize), block.ErrInvalid)
	}
	return (size + sizeUnit - 1) / sizeUnit * sizeUnit, nil
}

func parseVolumeID(id string) (block.VolumeID, error) {
	v, err := block.ParseID(id)
	if err != nil {
		return block.VolumeID{}, fmt.Errorf("volume %w", err)
	}
	return block.VolumeID{ID: v}, nil
}

func parseDiskID(id string) (block.DiskID, error) {
	v, err := block.ParseID(id)
	if err != nil {
		return block.DiskID{}, fmt.Errorf("disk %w", err)
	}
	return block.DiskID{ID: v}, nil
}

func parseSnapshotID(id string) (block.SnapshotID, error) {
	v, err := block.ParseID(id)
	if err != nil {
		return block.SnapshotID{}, fmt.Errorf("snapshot %w", err)
	}
	return block.SnapshotID{ID: v}, nil
}

func parseNodeID(id string) (block.NodeID, error) {
	v, err := block.ParseID(id)
	if err != nil {
		return block.NodeID{}, fmt.Errorf("node %w", err)
	}
	return block.NodeID{ID: v}, nil
}
