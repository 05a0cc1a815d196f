package rawdisk

import (
	"context"
	"fmt"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

// formatTimeout bounds the making of a file system. Discarding a large device may take
// minutes.
const formatTimeout = 15 * time.Minute

// Format makes a file system on the device at path and returns its UUID. A device that
// somebody uses is block.ErrInUse; one that holds data is block.ErrExists, unless force
// says that it may be lost. Once begun it goes on when ctx ends, so that a caller who
// gave up finds the device formatted or as it was, by and by.
func Format(ctx context.Context, path string, force bool) (uuid string, err error) {
	d, err := openDevice(path)
	if err != nil {
		return "", err
	}
	if err := checkFree(&d); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), formatTimeout)
	defer cancel()
	if force {
		// mkfs leaves signatures that XFS does not overwrite; wipefs also makes the
		// kernel forget the partitions.
		if _, err := run(ctx, "wipefs", "--all", "--force", d.path); err != nil {
			return "", err
		}
	} else if err := checkEmpty(ctx, &d); err != nil {
		return "", err
	}
	if _, err := run(ctx, "mkfs.xfs", append(mkfsOptions(&d, force), d.path)...); err != nil {
		return "", err
	}
	uuid, ours, err := readSuperblock(d.path)
	if err == nil && !ours {
		err = fmt.Errorf("%s is not labelled %q after mkfs.xfs: %w", d.path, Label, block.ErrCorrupt)
	}
	return uuid, err
}

func mkfsOptions(d *device, force bool) []string {
	options := []string{"-q", "-L", Label, "-m", "crc=1,finobt=1,reflink=0,rmapbt=0"}
	if force {
		options = append(options, "-f")
	}
	stripe := noStripe
	if d.attribute("alignment_offset") == 0 {
		stripe = stripeOf(ioHints{
			physical: d.attribute("queue/physical_block_size"),
			minimum:  d.attribute("queue/minimum_io_size"),
			optimal:  d.attribute("queue/optimal_io_size"),
		})
	}
	return append(options, "-d", stripe)
}

// ioHints are what a device says of itself, in bytes; 0 where it says nothing.
type ioHints struct{ physical, minimum, optimal int64 }

const (
	noStripe = "noalign"
	// maxStripe is above any stripe that is worth aligning to; devices on USB and
	// some virtual ones report nonsense beyond it.
	maxStripe = 16 << 20
)

// stripeOf is the -d option of mkfs.xfs that aligns to what the device likes best: the
// chunks of an array where its smallest efficient I/O is larger than a sector of the
// device, else its optimal I/O size.
func stripeOf(h ioHints) string {
	if h.optimal < block.BlockSize || h.optimal > maxStripe || h.optimal%block.BlockSize != 0 {
		return noStripe
	}
	unit := h.optimal
	if h.minimum > max(h.physical, block.BlockSize) && h.minimum%block.BlockSize == 0 && h.optimal%h.minimum == 0 {
		unit = h.minimum
	}
	return fmt.Sprintf("su=%d,sw=%d", unit, h.optimal/unit)
}
