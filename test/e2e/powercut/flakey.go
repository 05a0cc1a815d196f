package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/test/crash/sectors"
)

// flakeyDisk is a file system on dm-flakey.
type flakeyDisk struct {
	size, disk, device string
}

// set makes the device work, or do what the feature says to writes.
func (f *flakeyDisk) set(ctx context.Context, feature string) error {
	table := fmt.Sprintf("0 %s flakey %s 0 3600 0", f.size, f.disk)
	if feature != "" {
		table = fmt.Sprintf("0 %s flakey %s 0 0 3600 1 %s", f.size, f.disk, feature)
	}
	if err := all(ctx, "dmsetup suspend --noflush --nolockfs flaky"); err != nil {
		return err
	}
	if _, err := command(ctx, "dmsetup", "load", "flaky", "--table", table); err != nil {
		return err
	}
	return all(ctx, "dmsetup resume flaky")
}

// flakey runs two loads. The device under one of them begins to do what the feature
// says; then it works again, as after a loss of power.
func flakey(ctx context.Context, feature, disk, other string) error {
	size, err := sectorsOf(ctx, disk)
	if err != nil {
		return err
	}
	f := &flakeyDisk{size: size, disk: disk}
	if f.device, err = mapped(ctx, "flaky", fmt.Sprintf("0 %s flakey %s 0 3600 0", size, disk)); err != nil {
		return err
	}
	bad, badPath, err := loadOn(ctx, f.device)
	if err != nil {
		return err
	}
	good, goodPath, err := loadOn(ctx, other)
	if err != nil {
		return err
	}
	flushed, err := f.worsen(ctx, feature, bad, good)
	if err != nil {
		return err
	}
	if err := good.close(); err != nil {
		return fmt.Errorf("close the other store: %w", err)
	}
	// What it says about a disk that fails is seen by worsen.
	_ = bad.close()
	if err := all(ctx, "umount "+badPath); err != nil {
		return err
	}
	if err := f.set(ctx, ""); err != nil {
		return err
	}
	if badPath, err = mount(ctx, "ext4", f.device); err != nil {
		return err
	}
	if err := look(badPath, between(flushed, bad.model)); err != nil {
		return fmt.Errorf("what was flushed before: %w", err)
	}
	if err := look(goodPath, good.model); err != nil {
		return fmt.Errorf("the other store: %w", err)
	}
	fmt.Printf("%s: ok\n", feature)
	return all(ctx, "umount "+badPath, "umount "+goodPath, "dmsetup remove flaky")
}

func loadOn(ctx context.Context, device string) (*load, string, error) {
	if err := makeFileSystem(ctx, "ext4", device); err != nil {
		return nil, "", err
	}
	path, err := mount(ctx, "ext4", device)
	if err != nil {
		return nil, "", err
	}
	l, err := newLoad(path, 2)
	return l, path, err
}

// worsen works on both, also while one is bad, and returns what was flushed before.
func (f *flakeyDisk) worsen(ctx context.Context, feature string, bad, good *load) (*sectors.Model, error) {
	const before, during = 4, 3
	for range before {
		if err := errors.Join(bad.turn(), good.turn(), bad.flush(nil), good.flush(nil)); err != nil {
			return nil, err
		}
	}
	flushed := bad.model.Clone()
	if err := f.set(ctx, feature); err != nil {
		return nil, err
	}
	bad.deaf = true
	for range during {
		if err := errors.Join(good.turn(), good.flush(nil)); err != nil {
			return nil, fmt.Errorf("the other store: %w", err)
		}
		// Either may fail: a disk that loses writes reads as it did before them.
		if bad.turn() == nil {
			_ = bad.flush(nil)
		}
	}
	failed := bad.store.Failed()
	if feature == "error_writes" && !errors.Is(failed, block.ErrDiskFailed) {
		return nil, fmt.Errorf("the disk refuses writes, and the store says %w", errors.Join(failed, errors.New("nothing else")))
	}
	return flushed, good.store.Failed()
}
