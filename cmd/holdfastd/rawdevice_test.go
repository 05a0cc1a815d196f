package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// listedDisk is what disk list says of a disk.
type listedDisk struct {
	ID, Node, Path, Device, Failure string
	Replicas                        int
	Cordoned                        bool
}

func (p *place) disks() []listedDisk {
	p.t.Helper()
	o := p.holdfast("disk", "list", "-o", "json")
	var disks []listedDisk
	if err := json.Unmarshal([]byte(o.stdout), &disks); err != nil {
		p.t.Fatal(o.stdout, o.stderr, err)
	}
	return disks
}

// awaitDisk waits until a node's only disk is as it should be.
func (p *place) awaitDisk(what, node string, right func(d listedDisk) bool) listedDisk {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		var last listedDisk
		for _, d := range p.disks() {
			if d.Node == node {
				last = d
			}
		}
		if last.ID != "" && right(last) {
			return last
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("waited in vain for %s; the disk is %+v", what, last)
		}
	}
}

func (p *place) must(args ...string) outcome {
	p.t.Helper()
	o := p.holdfast(args...)
	if o.code != 0 {
		p.t.Fatalf("holdfast %s: %s", strings.Join(args, " "), o.stderr)
	}
	return o
}

func losetup(t *testing.T, file string) string {
	t.Helper()
	output, err := exec.CommandContext(t.Context(), "losetup", "--find", "--show", file).Output()
	if err != nil {
		t.Fatalf("losetup: %v", err)
	}
	path := strings.TrimSpace(string(output))
	t.Cleanup(func() { _ = exec.Command("losetup", "--detach", path).Run() }) // the test may have done it
	return path
}

func sparse(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, 2<<30); err != nil {
		t.Fatal(err)
	}
	return name
}

// reboot takes a device away and gives it back under another name, if one is free.
func reboot(t *testing.T, disk listedDisk, file string) (device string) {
	t.Helper()
	if err := unix.Unmount(disk.Path, 0); err != nil {
		t.Fatalf("unmount %s: %v", disk.Path, err)
	}
	if output, err := exec.Command("losetup", "--detach", disk.Device).CombinedOutput(); err != nil {
		t.Fatalf("losetup --detach: %v: %s", err, output)
	}
	losetup(t, sparse(t))
	return losetup(t, file)
}

// TestRawDevice: a device is formatted and mounted when it is added, found again after
// a reboot under another name, moves to another node with what is on it, and is
// unmounted when it is removed.
func TestRawDevice(t *testing.T) {
	programs := buildPrograms(t)
	first, second := newPlace(t, programs), newPlace(t, programs)
	first.start("--bootstrap")
	join := []string{"--join", first.control, "--name", "n2"}
	stop := second.start(join...)

	file := sparse(t)
	device := losetup(t, file)
	if err := os.WriteFile(device, []byte("precious"), 0); err != nil {
		t.Fatal(err)
	}
	if o := second.holdfast("disk", "add", device); o.code != 4 || !strings.Contains(o.stderr, "force") {
		t.Fatalf("a device with data: exit code %d: %s", o.code, o.stderr)
	}
	second.must("disk", "add", device, "--force", "--class", "ssd")
	disk := second.awaitDisk("the disk", "n2", func(d listedDisk) bool { return d.Device == device })
	if filepath.Dir(disk.Path) != second.path("data/disks") {
		t.Errorf("it is mounted at %s", disk.Path)
	}
	t.Cleanup(func() {
		_ = unix.Unmount(disk.Path, unix.MNT_DETACH)
		_ = unix.Unmount(first.path("data/disks/"+filepath.Base(disk.Path)), unix.MNT_DETACH)
	})
	again := second.must("disk", "add", device)
	if !strings.Contains(again.stdout, disk.ID) {
		t.Errorf("added again: %s", again.stdout)
	}
	first.must("volume", "create", "v", "--size", "16MiB", "--replicas", "1")

	stop()
	device = reboot(t, disk, file)
	stop = second.start("--name", "n2")
	second.awaitDisk("the disk under its new name", "n2", func(d listedDisk) bool { return d.Device == device && d.Replicas == 1 && d.Failure == "" })

	// It is pulled out and put into the other node.
	stop()
	if err := unix.Unmount(disk.Path, 0); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(patience)
	for first.holdfast("disk", "add", device).code != 0 {
		if time.Now().After(deadline) {
			t.Fatalf("the disk does not move: %s", first.holdfast("disk", "add", device).stderr)
		}
	}
	moved := first.awaitDisk("the moved disk", "n1", func(d listedDisk) bool { return d.Device == device && d.Replicas == 1 && d.Failure == "" })
	if moved.ID != disk.ID {
		t.Fatalf("moved as %s, was %s", moved.ID, disk.ID)
	}

	if o := first.holdfast("disk", "remove", device); o.code != 4 || !strings.Contains(o.stderr, `volume "v"`) {
		t.Fatalf("removed with a replica: exit code %d: %s", o.code, o.stderr)
	}
	first.must("volume", "delete", "v")
	deadline = time.Now().Add(patience)
	for first.holdfast("disk", "remove", device).code != 0 {
		if time.Now().After(deadline) {
			t.Fatalf("the disk is not removed: %s", first.holdfast("disk", "remove", device).stderr)
		}
	}
	for isMounted(t, moved.Path) {
		if time.Now().After(deadline) {
			t.Fatal("the device is not unmounted")
		}
	}
	if list, err := os.ReadFile(first.path("data/disks.json")); err != nil || strings.TrimSpace(string(list)) != "[]" {
		t.Errorf("the list is %s, %v", list, err)
	}
}

func isMounted(t *testing.T, path string) bool {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(mounts), " "+path+" ")
}
