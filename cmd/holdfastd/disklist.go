package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/internal/block"
)

// diskList is the file that says which disks this node has, so that replicas are
// served after a restart before Raft has a leader. It is a JSON list of places.
type diskList struct {
	path string
	// mounts is the directory below which devices are mounted.
	mounts string
}

// diskPlace is where a disk is: a directory, or "xfs:" and the UUID of the file system of
// a device.
type diskPlace string

const uuidPrefix = "xfs:"

func devicePlace(uuid string) diskPlace { return diskPlace(uuidPrefix + uuid) }

// device is the UUID of a device's file system.
func (p diskPlace) device() (uuid string, ok bool) { return strings.CutPrefix(string(p), uuidPrefix) }

// dir is the directory of the store.
func (l *diskList) dir(p diskPlace) string {
	if uuid, ok := p.device(); ok {
		return filepath.Join(l.mounts, uuid)
	}
	return string(p)
}

func (l *diskList) read() ([]diskPlace, error) {
	data, err := os.ReadFile(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read list of disks: %w", err)
	}
	var places []diskPlace
	if err := json.Unmarshal(data, &places); err != nil {
		return nil, fmt.Errorf("list of disks %s: %w: %w: restore it, or write the disks of this node anew, as a JSON list of strings: "+
			"directories, and %sUUID for the file systems of devices", l.path, block.ErrCorrupt, err, uuidPrefix)
	}
	return places, nil
}

// add puts a place on the list, durably.
func (l *diskList) add(p diskPlace) error {
	places, err := l.read()
	if err != nil || slices.Contains(places, p) {
		return err
	}
	return l.write(append(places, p))
}

// remove takes a place off the list, durably.
func (l *diskList) remove(p diskPlace) error {
	places, err := l.read()
	if err != nil || !slices.Contains(places, p) {
		return err
	}
	return l.write(slices.DeleteFunc(places, func(q diskPlace) bool { return q == p }))
}

func (l *diskList) write(places []diskPlace) error {
	data, err := json.MarshalIndent(places, "", "  ")
	if err == nil {
		err = writeDurably(l.path, data)
	}
	if err != nil {
		return fmt.Errorf("write list of disks: %w", err)
	}
	return nil
}

// writeDurably replaces a file so that a crash leaves the old or the new one.
func writeDurably(path string, data []byte) error {
	temporary := path + ".new"
	file, err := os.OpenFile(temporary, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	err = errors.Join(err, file.Sync(), file.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
