package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// fillerSlack is by how much the filler outgrows what the tight disk has left.
const fillerSlack = 24 << 20

func (t *test) fillerPath() string { return filepath.Join(t.nodes()[attached].TargetPath(), "filler") }

// starve takes what is left of the tight disk's file system, and lets the volume
// outgrow the store's data file by a file beside the database.
func (t *test) starve(ctx context.Context) error {
	if err := t.disks[starved].Leave(0); err != nil {
		return err
	}
	left, err := t.tightBytesLeft(ctx)
	if err != nil {
		return err
	}
	file, err := os.Create(t.fillerPath())
	if err != nil {
		return err
	}
	// In small pieces: the database's commits wait for what the file system has.
	const piece = 1 << 20
	for written := int64(0); written < left+fillerSlack && err == nil; written += piece {
		if _, err = io.CopyN(file, rand.Reader, piece); err == nil {
			err = errors.Join(file.Sync(), ctx.Err())
		}
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write filler: %w", err)
	}
	return nil
}

// tightBytesLeft is what the store on the tight disk has left of its data file, as
// its node last reported.
func (t *test) tightBytesLeft(ctx context.Context) (int64, error) {
	disk, err := t.tightDisk(ctx)
	return max(0, t.options.tightBytes()-(disk.GetCapacityBytes()-disk.GetFreeBytes())), err
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
