package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
	"github.com/holdfast-io/holdfast/replica/store"
	"github.com/holdfast-io/holdfast/test/harness"
)

const (
	// fillerRest is what prepareStarving leaves of the tight disk's data file: what a
	// run may need before the fault.
	fillerRest = 48 << 20
	// fillerPiece is written at once beside the database: its commits wait for what the
	// file system has.
	fillerPiece = 512 << 10
	// tightTag is that of the disk that is starved.
	tightTag = "tight"
)

func (t *test) fillerPath() string { return filepath.Join(t.nodes()[attached].TargetPath(), "filler") }

// prepareStarving fills the tight disk with a volume of its own, until it has little
// left.
func (t *test) prepareStarving(ctx context.Context) (err error) {
	if err := t.settle(ctx); err != nil {
		return err
	}
	// From here on the store of the tight disk does not grow.
	if err := t.disks[starved].Leave(store.DefaultReserve); err != nil {
		return err
	}
	size, err := t.waitTight(ctx)
	if err != nil {
		return err
	}
	n := t.nodes()[starved]
	t.ballast, err = n.CreateVolume(ctx, "ballast", size, map[string]string{"replicas": "1", "diskTags": tightTag})
	if err != nil {
		return err
	}
	at := n.Place("-ballast")
	if err := n.MountAt(ctx, t.ballast, at); err != nil {
		return err
	}
	device, err := deviceOf(at.Path())
	if err != nil {
		return err
	}
	t.devices = append(t.devices, device)
	if err := t.fillTight(ctx, filepath.Join(at.Path(), "filler"), size); err != nil {
		return err
	}
	return n.UnmountFrom(ctx, t.ballast, at)
}

// waitTight waits until the cluster knows that the tight disk does not grow, and returns
// what it holds, in bytes: the cluster hears from time to time what room a disk has.
func (t *test) waitTight(ctx context.Context) (size int64, err error) {
	err = harness.Wait(ctx, "the tight disk to be known as such", func(ctx context.Context) error {
		data, err := os.Stat(filepath.Join(t.disks[starved].StorePath(), "data"))
		if err != nil {
			return err
		}
		disk, err := t.tightDisk(ctx)
		if err != nil {
			return err
		}
		if size = disk.GetCapacityBytes(); size > data.Size() {
			return fmt.Errorf("%d bytes, and its file has %d", size, data.Size())
		}
		return nil
	})
	return size, err
}

// fillTight writes a file until the tight disk has little left, in ever smaller pieces:
// what a file system adds to them is not known.
func (t *test) fillTight(ctx context.Context, path string, size int64) error {
	for range size / fillerPiece {
		left, err := t.tightBytesLeft(ctx)
		if err != nil || left <= fillerRest {
			return err
		}
		if err := growFiller(ctx, path, max((left-fillerRest)/4, fillerPiece)); err != nil {
			return err
		}
	}
	return fmt.Errorf("the tight disk does not fill: %w", errStandstill)
}

// starve takes what is left of the tight disk's file system, and lets the volume grow
// further, until the replica there cannot follow.
func (t *test) starve(ctx context.Context) error {
	if err := t.disks[starved].Leave(0); err != nil {
		return err
	}
	for range 3 * fillerRest / fillerPiece {
		if err := growFiller(ctx, t.fillerPath(), fillerPiece); err != nil {
			return err
		}
		if err := t.isAway(ctx, starved); err == nil {
			return nil
		}
	}
	return t.isAway(ctx, starved)
}

// settle lets the idle database and its file system write now what they would write
// later, and take the place for that: a checkpoint makes a new segment of the log.
func (t *test) settle(ctx context.Context) error {
	if _, err := t.database.Query(ctx, "CHECKPOINT"); err != nil {
		return err
	}
	return harness.SyncFileSystem(t.database.Data)
}

// growFiller adds so many bytes to a file.
func growFiller(ctx context.Context, path string, bytes int64) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = io.CopyN(file, rand.Reader, bytes)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("grow %s: %w", path, err)
	}
	return ctx.Err()
}

// tightBytesLeft is what the store on the tight disk has left of its data file.
func (t *test) tightBytesLeft(ctx context.Context) (int64, error) {
	list, err := t.nodes()[starved].Agent().ListReplicas(ctx, &holdfastv1.ListReplicasRequest{})
	if err != nil {
		return 0, err
	}
	disk, err := t.tightDisk(ctx)
	if err != nil {
		return 0, err
	}
	left := disk.GetCapacityBytes()
	for _, r := range list.GetReplicas() {
		left -= r.GetUsedBytes()
	}
	return left, nil
}

// tightDisk is what the cluster knows of the tight disk.
func (t *test) tightDisk(ctx context.Context) (*holdfastv1.Disk, error) {
	list, err := t.nodes()[attached].Cluster().ListDisks(ctx, &holdfastv1.ListDisksRequest{})
	if err != nil {
		return nil, err
	}
	for _, d := range list.GetDisks() {
		if d.GetNodeId() == t.nodes()[starved].ID() {
			return d, nil
		}
	}
	return nil, errors.New("the tight disk is not in the list")
}

// feed gives the disk back to the store, and takes away what filled it.
func (t *test) feed(ctx context.Context) error {
	_, err := controller(t.nodes()[attached]).DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: t.ballast})
	return errors.Join(err, t.disks[starved].Empty(), os.Remove(t.fillerPath()))
}
