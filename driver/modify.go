package driver

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// ControllerModifyVolume changes the parameters of a volume that may be changed, which a
// VolumeAttributesClass holds. A key that is not given changes nothing.
func (c *controller) ControllerModifyVolume(ctx context.Context, req *csi.ControllerModifyVolumeRequest) (*csi.ControllerModifyVolumeResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, invalid("no volume ID given")
	}
	changed := &holdfastv1.VolumeParameters{}
	if err := parseMutable(req.GetMutableParameters(), changed); err != nil {
		return nil, err
	}
	done, err := c.running.begin(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer done()
	if _, err := c.findVolume(ctx, req.GetVolumeId()); err != nil {
		return nil, err
	}
	_, err = c.volumes.SetVolume(ctx, &holdfastv1.SetVolumeRequest{Id: req.GetVolumeId(), MaxSnapshotSpace: changed.GetMaxSnapshotSpace()})
	if err != nil {
		return nil, fromDaemon(err, "modify volume %s", req.GetVolumeId())
	}
	return &csi.ControllerModifyVolumeResponse{}, nil
}

// parseMutable reads parameters that may be changed later into p.
func parseMutable(given map[string]string, p *holdfastv1.VolumeParameters) error {
	table := slices.DeleteFunc(parameters(), func(known parameter) bool { return !known.mutable })
	for _, key := range slices.Sorted(maps.Keys(given)) {
		i := slices.IndexFunc(table, func(known parameter) bool { return known.name == key })
		if i < 0 {
			return invalid("parameter %q cannot be changed; those that can are %s", key, namesOf(table))
		}
		if err := table[i].set(p, given[key]); err != nil {
			return invalid("parameter %s: %v", key, err)
		}
	}
	return nil
}

// confirmMutable tells why a volume is not as mutable parameters say, empty if it is.
func confirmMutable(given map[string]string, volume *holdfastv1.Volume) string {
	wanted := &holdfastv1.VolumeParameters{MaxSnapshotSpace: volume.GetMaxSnapshotSpace()}
	if err := parseMutable(given, wanted); err != nil {
		return err.Error()
	}
	if !sameLimit(wanted.GetMaxSnapshotSpace(), volume.GetMaxSnapshotSpace()) {
		return "the snapshots of the volume may hold another amount: " + volume.GetMaxSnapshotSpace().String()
	}
	return ""
}

// sameLimit takes an empty limit for none.
func sameLimit(a, b *holdfastv1.SpaceLimit) bool {
	return a.GetBytes() == b.GetBytes() && a.GetPercent() == b.GetPercent()
}

// maxPercent is the most that a limit in percent can say.
const maxPercent = 1000

// parseLimit reads 20Gi, 50%, or none, which is an empty limit.
func parseLimit(value string) (*holdfastv1.SpaceLimit, error) {
	if value == "none" {
		return &holdfastv1.SpaceLimit{}, nil
	}
	if digits, found := strings.CutSuffix(value, "%"); found {
		percent, err := parseCount(digits, maxPercent)
		return &holdfastv1.SpaceLimit{Percent: percent}, err
	}
	bytes, err := parseQuantity(value)
	return &holdfastv1.SpaceLimit{Bytes: bytes}, err
}

// parseQuantity reads a whole number of bytes as Kubernetes writes them, above zero.
func parseQuantity(value string) (int64, error) {
	unit := int64(1)
	digits := strings.TrimRight(value, "kKMGTPi")
	for i, suffix := range []string{"Ki", "Mi", "Gi", "Ti", "Pi"} {
		if value == digits+suffix {
			unit = 1 << (10 * (i + 1))
		}
	}
	decimal := int64(1)
	for _, suffix := range []string{"k", "M", "G", "T", "P"} {
		if decimal *= 1000; value == digits+suffix {
			unit = decimal
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 1 || n > block.MaxVolumeSize/unit*maxPercent/100 || unit == 1 && value != digits {
		return 0, fmt.Errorf("%q is neither a size such as 20Gi, nor 1%% to %d%%, nor none", value, maxPercent)
	}
	return n * unit, nil
}
