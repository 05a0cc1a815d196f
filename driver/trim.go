package driver

import (
	"context"
	"math/rand/v2"
	"time"

	"k8s.io/klog/v2"

	"github.com/holdfast-io/holdfast/driver/mount"
)

// trimmer gives back the space that the file systems on this node no longer use.
type trimmer struct {
	*node
	// interval is the time from the end of a round to the next.
	interval time.Duration
}

// run trims in rounds until the context ends. The first comes after a part of the
// interval that chance decides, so that nodes started together do not trim together.
func (t *trimmer) run(ctx context.Context) {
	timer := time.NewTimer(rand.N(t.interval))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		t.round(ctx)
		timer.Reset(t.interval)
	}
}

// round trims each file system once, one after the other.
func (t *trimmer) round(ctx context.Context) {
	logger := klog.FromContext(ctx).WithName("trim")
	points, err := t.mounter.Mounts(t.devices)
	if err != nil {
		logger.Error(err, "Mounts cannot be listed")
		return
	}
	seen := make(map[mount.DeviceName]bool)
	for _, p := range points {
		// The first mount is that of staging, which stays when pods come and go.
		if p.FSType == "" || p.ReadOnly || seen[p.Device] || ctx.Err() != nil {
			continue
		}
		seen[p.Device] = true
		logger := logger.WithValues("volume", p.Device.Volume, "path", p.Path)
		switch said, err := t.trim(ctx, p); {
		case err != nil:
			logger.Info("Volume not trimmed", "why", err.Error())
		default:
			logger.Info("Volume trimmed", "result", said)
		}
	}
}

// trim trims one file system, unless a call for its volume is running or comes: that
// goes first, and the next round makes up for it. A volume whose I/O waits is left
// alone, because a trim of it could not be ended.
func (t *trimmer) trim(ctx context.Context, p mount.Point) (string, error) {
	ctx, done, err := t.running.beginYielding(ctx, p.Device.Volume.String())
	if err != nil {
		return "", err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, trimTimeout)
	defer cancel()
	volume, err := t.findVolume(ctx, p.Device.Volume.String())
	if err != nil {
		return "", err
	}
	if frozen := volume.GetEngine().GetFrozen(); frozen != "" {
		return "", failedPrecondition("its I/O waits: %s", frozen)
	}
	if _, err := t.mountsNow(volume, "trim"); err != nil {
		return "", err
	}
	return t.mounter.Trim(ctx, p.Path)
}
