package main

import (
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/cluster"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
	"github.com/holdfast-io/holdfast/replica/rawdisk"
	"github.com/holdfast-io/holdfast/replica/server"
	"github.com/holdfast-io/holdfast/replica/store"
)

// newTestDisks are the disks of a node without a cluster member, and a formatted
// directory.
func newTestDisks(t *testing.T) (d *disks, id block.ClusterID, path string) {
	t.Helper()
	id, path = block.ClusterID{ID: block.ID{1}}, t.TempDir()
	d = newDisks(t.TempDir(), vfs.EngineAuto, 0, slog.New(slog.DiscardHandler))
	formatTestDisk(t, d, id, path)
	host, err := server.NewHost(id, server.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.open(t.Context(), id, host); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
	})
	return d, id, path
}

func formatTestDisk(t *testing.T, d *disks, id block.ClusterID, path string) {
	t.Helper()
	executor := vfs.NewGoExecutor(1)
	defer executor.Close()
	identity := store.Identity{Cluster: id, Node: block.NodeID{ID: block.ID{2}}, Disk: block.DiskID{ID: block.ID{3}}}
	options := d.options(id, executor)
	options.GrowStep = 16 << 20
	if err := store.FormatDisk(path, options, identity); err != nil {
		t.Fatal(err)
	}
}

// TestDisksOfNode adds a directory, removes it, and adds it again.
func TestDisksOfNode(t *testing.T) {
	d, id, path := newTestDisks(t)
	for range 2 {
		for range 2 {
			added, err := d.AddDisk(t.Context(), id, cluster.NewDisk{Path: path + "/"})
			if err != nil || added.Path != path || added.Device != "" {
				t.Fatalf("added %+v: %v", added, err)
			}
		}
		if reports := d.Disks(); len(reports) != 1 || reports[0].Failure != "" || reports[0].Capacity == 0 {
			t.Fatalf("reports %+v", reports)
		}
		if list, err := d.list.read(); err != nil || len(list) != 1 || list[0] != diskPlace(path) {
			t.Fatalf("list %v: %v", list, err)
		}
		for range 2 {
			if err := d.RemoveDisk(t.Context(), block.DiskID{ID: block.ID{3}}); err != nil {
				t.Fatal(err)
			}
		}
		if list, err := d.list.read(); err != nil || len(list) != 0 || len(d.Disks()) != 0 {
			t.Fatalf("list %v: %v", list, err)
		}
	}
	if _, err := d.AddDisk(t.Context(), id, cluster.NewDisk{Path: path, Force: true}); !errors.Is(err, block.ErrInvalid) {
		t.Fatalf("a directory by force: %v", err)
	}
}

// TestSpentIncarnation: a disk that has failed is not opened again as if nothing had
// been lost.
func TestSpentIncarnation(t *testing.T) {
	d, id, path := newTestDisks(t)
	if _, err := d.AddDisk(t.Context(), id, cluster.NewDisk{Path: path}); err != nil {
		t.Fatal(err)
	}
	disk := d.at(diskPlace(path))
	for n := 0; disk.store.Failed() == nil; n++ {
		// As if an operation did not return.
		disk.store.Tick(0)
		if n > 10 {
			t.Fatal("it does not fail")
		}
	}
	if reports := d.Disks(); len(reports) != 1 || !strings.Contains(reports[0].Failure, "does not return") {
		t.Fatalf("reports %+v", reports)
	}
	for range 2 {
		_, err := d.AddDisk(t.Context(), id, cluster.NewDisk{Path: path})
		if !errors.Is(err, block.ErrDiskFailed) || !strings.Contains(err.Error(), "mount it again") {
			t.Fatalf("added: %v", err)
		}
	}
	// A mount gives another one.
	d.mountedAnew(path)
	if _, err := d.AddDisk(t.Context(), id, cluster.NewDisk{Path: path}); err != nil {
		t.Fatal(err)
	}
}

// mountedAnew is as if the file system of a disk that has failed had been mounted anew.
func (d *disks) mountedAnew(path string) {
	spent := d.spent.of(path)
	spent.Superblock++
	d.spent.list[path] = spent
}

// TestDamagedListOfFailedDisks: it is not taken for an empty one.
func TestDamagedListOfFailedDisks(t *testing.T) {
	s := spentDisks{path: filepath.Join(t.TempDir(), "failed-disks.json")}
	if err := s.read(); err != nil {
		t.Fatal(err)
	}
	if err := writeDurably(s.path, []byte("{")); err != nil {
		t.Fatal(err)
	}
	if err := s.read(); !errors.Is(err, block.ErrCorrupt) || !strings.Contains(err.Error(), s.path) {
		t.Fatal(err)
	}
}

// restarted are the disks of the daemon that is started next.
func (d *disks) restarted(t *testing.T, id block.ClusterID) *disks {
	t.Helper()
	host, err := server.NewHost(id, server.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	after := newDisks(filepath.Dir(d.list.path), vfs.EngineAuto, 0, slog.New(slog.DiscardHandler))
	if err := after.open(t.Context(), id, host); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := after.close(); err != nil {
			t.Error(err)
		}
	})
	return after
}

// TestSpentIncarnationOutlivesTheDaemon: nor is it by a daemon that is started after the
// failure, whether the one before ended in order or was killed.
func TestSpentIncarnationOutlivesTheDaemon(t *testing.T) {
	for _, end := range []string{"in order", "killed"} {
		t.Run(end, func(t *testing.T) {
			d, id, path := newTestDisks(t)
			if _, err := d.AddDisk(t.Context(), id, cluster.NewDisk{Path: path}); err != nil {
				t.Fatal(err)
			}
			disk := d.at(diskPlace(path))
			for disk.store.Failed() == nil {
				disk.store.Tick(0)
			}
			if end == "killed" {
				disk.look(d)
				d.noting.Wait()
				if err := disk.close(); err != nil { // as the kernel closes files
					t.Fatal(err)
				}
			} else if err := d.close(); err != nil {
				t.Fatal(err)
			}

			after := d.restarted(t, id)
			if err := after.failed[path]; !errors.Is(err, block.ErrDiskFailed) || after.at(diskPlace(path)) != nil {
				t.Fatalf("it is served: %v", err)
			}
			after.mountedAnew(path)
			if _, err := after.AddDisk(t.Context(), id, cluster.NewDisk{Path: path}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestFailedDeviceIsMountedAnew: a daemon that is restarted mounts a device anew that had
// failed before, so that it shows that it may have lost something.
func TestFailedDeviceIsMountedAnew(t *testing.T) {
	d, id, _ := newTestDisks(t)
	device := losetup(t, sparse(t))
	uuid, err := rawdisk.Format(t.Context(), device, false)
	if err != nil {
		t.Fatal(err)
	}
	path := d.list.dir(devicePlace(uuid))
	t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	if _, err := rawdisk.Mount(t.Context(), uuid, path); err != nil {
		t.Fatal(err)
	}
	formatTestDisk(t, d, id, path)
	if _, err := d.AddDisk(t.Context(), id, cluster.NewDisk{Path: device}); err != nil {
		t.Fatal(err)
	}
	disk := d.at(devicePlace(uuid))
	before := disk.store.Incarnation()
	for disk.store.Failed() == nil {
		disk.store.Tick(0)
	}
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	after := d.restarted(t, id).at(devicePlace(uuid))
	if after == nil || after.store.Failed() != nil || after.store.Incarnation() == before {
		t.Fatalf("it is not served anew: %+v", after)
	}
}

// TestDiskList: places of directories and devices, and a damaged list.
func TestDiskList(t *testing.T) {
	l := diskList{path: filepath.Join(t.TempDir(), "disks.json"), mounts: "/data/disks"}
	for _, p := range []diskPlace{"/a", devicePlace("12-34"), "/a"} {
		if err := l.add(p); err != nil {
			t.Fatal(err)
		}
	}
	list, err := l.read()
	if err != nil || len(list) != 2 || l.dir(list[0]) != "/a" || l.dir(list[1]) != "/data/disks/12-34" {
		t.Fatalf("list %v: %v", list, err)
	}
	if err := errors.Join(l.remove("/a"), l.remove("/a")); err != nil {
		t.Fatal(err)
	}
	if list, err := l.read(); err != nil || len(list) != 1 {
		t.Fatalf("list %v: %v", list, err)
	}
	if err := writeDurably(l.path, []byte("{")); err != nil {
		t.Fatal(err)
	}
	if _, err := l.read(); !errors.Is(err, block.ErrCorrupt) {
		t.Fatalf("a damaged list: %v", err)
	}
}
