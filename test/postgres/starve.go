package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

const (
	// fillerRest is what prepareStarving leaves of the tight disk's data file: what a
	// run may need before the fault.
	fillerRest = 6 << 20
	// fillerPiece is written at once: the database's commits wait for what the file
	// system has.
	fillerPiece = 512 << 10
)

func (t *test) fillerPath() string { return filepath.Join(t.nodes()[attached].TargetPath(), "filler") }

// prepareStarving lets the volume grow, by a file beside the database, until the tight
// disk has little left.
func (t *test) prepareStarving(ctx context.Context) error {
	// What is yet to be written would take its part later.
	if _, err := t.database.query(ctx, "CHECKPOINT"); err != nil {
		return err
	}
	if err := syncFileSystem(t.nodes()[attached].TargetPath()); err != nil {
		return err
	}
	// A piece may lie where the volume holds something already.
	for range t.options.volumeBytes() / fillerPiece {
		left, err := t.tightBytesLeft(ctx)
		if err != nil || left <= fillerRest {
			return err
		}
		if err := t.growFiller(ctx); err != nil {
			return err
		}
	}
	return fmt.Errorf("the volume does not grow: %w", errStandstill)
}

// starve takes what is left of the tight disk's file system, and lets the volume grow
// further, until the replica there cannot follow.
func (t *test) starve(ctx context.Context) error {
	if err := t.disks[starved].Leave(0); err != nil {
		return err
	}
	for range 12 * fillerRest / fillerPiece {
		if err := t.growFiller(ctx); err != nil {
			return err
		}
		if err := t.isAway(ctx, starved); err == nil {
			return nil
		}
	}
	return t.isAway(ctx, starved)
}

func syncFileSystem(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(dir.Fd())), dir.Close())
}

// growFiller adds a piece to the filler.
func (t *test) growFiller(ctx context.Context) error {
	file, err := os.OpenFile(t.fillerPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = io.CopyN(file, rand.Reader, fillerPiece)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("write filler: %w", err)
	}
	return ctx.Err()
}

// tightBytesLeft is what the store on the tight disk has left of its data file.
func (t *test) tightBytesLeft(ctx context.Context) (int64, error) {
	list, err := t.nodes()[starved].Agent().ListReplicas(ctx, &holdfastv1.ListReplicasRequest{VolumeId: t.volume})
	if err != nil {
		return 0, err
	}
	if len(list.GetReplicas()) != 1 {
		return 0, fmt.Errorf("%d replicas on the tight disk", len(list.GetReplicas()))
	}
	return t.tightBytes - list.GetReplicas()[0].GetUsedBytes(), nil
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

// feed gives the disk back to the store, and takes the filler away.
func (t *test) feed(context.Context) error {
	return errors.Join(t.disks[starved].Empty(), os.Remove(t.fillerPath()))
}
