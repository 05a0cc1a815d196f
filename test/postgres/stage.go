package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
	"github.com/holdfast-io/holdfast/replica/store"
	"github.com/holdfast-io/holdfast/test/harness"
)

// diskBytes is what a file system for a replica has: the volume, its snapshots, the head
// that a replica keeps until it is in sync again, what PostgreSQL changes in a restored
// volume, and what the store keeps for its metadata.
func (o options) diskBytes() int64 { return 4*o.volumeBytes() + store.DefaultReserve }

// The roles of the nodes. The volume is attached to the first; the last has a disk
// that is filled.
const (
	attached = 0
	other    = 1
	starved  = 2
)

// test is what the steps share.
type test struct {
	options options
	// spoilt: the next fault stops the engine as well.
	spoilt bool

	scratch  string
	cluster  *harness.Cluster
	disks    []*harness.Disk
	volume   string
	ballast  string
	kernel   *kernelLog
	devices  []string
	database *database
	accounts string
	runs     []*benchRun

	// second runs on restored volumes, on one node after another.
	second              *database
	shotCount, restores int
	// stale, if it is there, is the snapshot that checkShot takes for a fresh one.
	stale *shot
}

// startCluster starts three daemons, each with a small disk of its own.
func (t *test) startCluster(ctx context.Context) (string, error) {
	var err error
	if t.scratch, err = os.MkdirTemp(t.options.dir, "holdfast-postgres-"); err != nil {
		return "", err
	}
	// PostgreSQL's user has to come through to the volume, and to its home.
	if err := os.Chmod(t.scratch, 0o711); err != nil {
		return "", err
	}
	if t.kernel, err = openKernelLog(); err != nil {
		return "", err
	}
	binaries := harness.BinariesIn(t.options.binaries)
	if t.options.binaries == "" {
		if binaries, err = harness.Build(ctx, filepath.Join(t.scratch, "bin")); err != nil {
			return "", err
		}
	}
	t.cluster, err = harness.Start(ctx, harness.Options{
		Binaries: binaries, Dir: filepath.Join(t.scratch, "cluster"),
		// A restored volume is promised as much as the one that the disks are made for.
		DaemonArgs: []string{"--frontend", t.options.frontend, "--over-provisioning", "8"},
	})
	if err != nil {
		return "", err
	}
	if err := os.Chmod(t.cluster.Dir, 0o711); err != nil {
		return "", err
	}
	for i, n := range t.nodes() {
		if err := t.addDisk(ctx, i, n); err != nil {
			return "", err
		}
		if err := errors.Join(os.Chmod(n.Dir, 0o711), n.StartPlugin(ctx)); err != nil {
			return "", err
		}
	}
	return "", t.cluster.WaitVoters(ctx)
}

// addDisk gives a node a file system of its own: a device, or a file.
func (t *test) addDisk(ctx context.Context, i int, n *harness.Node) (err error) {
	device := filepath.Join(n.Dir, "disk.img")
	if len(t.options.disks) > 0 {
		device = t.options.disks[i]
	}
	disk, err := harness.NewDisk(ctx, filepath.Join(n.Dir, "disk"), device, t.options.diskBytes())
	if err != nil {
		return err
	}
	t.disks = append(t.disks, disk)
	var tags []string
	if i == starved {
		tags = []string{tightTag}
	}
	_, err = n.Cluster().AddDisk(ctx, &holdfastv1.AddDiskRequest{Path: disk.StorePath(), Class: "ssd", Tags: tags})
	if err != nil {
		return fmt.Errorf("add disk to %s: %w", n.Name, err)
	}
	return nil
}

func (t *test) makeVolume(ctx context.Context) (string, error) {
	var err error
	t.volume, err = t.nodes()[attached].CreateVolume(ctx, "postgres", t.options.volumeBytes(), map[string]string{"replicas": "3"})
	if err != nil {
		return "", err
	}
	return "", t.mount(ctx, t.nodes()[attached])
}

// mount mounts the volume on a node, where PostgreSQL's user finds it.
func (t *test) mount(ctx context.Context, n *harness.Node) error {
	if err := n.Mount(ctx, t.volume); err != nil {
		return err
	}
	device, err := deviceOf(n.TargetPath())
	if err != nil {
		return err
	}
	t.devices = append(t.devices, device)
	return nil
}

func (t *test) makeDatabase(ctx context.Context) (string, error) {
	var err error
	if t.database, err = newDatabase(filepath.Join(t.scratch, "database")); err != nil {
		return "", err
	}
	if err := t.database.Initialise(ctx, t.nodes()[attached].TargetPath()); err != nil {
		return "", err
	}
	if err := t.database.Start(ctx); err != nil {
		return "", err
	}
	if err := t.database.fill(ctx, t.options.scale); err != nil {
		return "", err
	}
	size, err := t.database.Query(ctx, "SELECT current_setting('server_version_num'), pg_database_size(current_database()) >> 20, pg_relation_filepath('pgbench_accounts')")
	if err != nil {
		return "", err
	}
	var version, mebibytes int
	if _, err := fmt.Sscan(size, &version, &mebibytes, &t.accounts); err != nil {
		return "", fmt.Errorf("answer %q: %w", size, err)
	}
	return fmt.Sprintf("PostgreSQL %d.%d, %d MiB, on /dev/%s", version/10000, version%10000, mebibytes, t.devices[0]), nil
}

// load starts the next run of pgbench.
func (t *test) load(ctx context.Context) (*benchRun, error) {
	r, err := t.database.load(ctx, len(t.runs)+1, t.options)
	if r != nil {
		t.runs = append(t.runs, r)
	}
	return r, err
}

// loadFor runs pgbench for so long.
func (t *test) loadFor(ctx context.Context, length time.Duration) error {
	r, err := t.load(ctx)
	if err != nil {
		return err
	}
	rest(ctx, length)
	return r.finish(ctx)
}

func (t *test) detach(ctx context.Context) (string, error) {
	return "", t.nodes()[attached].Unmount(ctx, t.volume)
}

// move mounts the volume on another node and starts the database there.
func (t *test) move(ctx context.Context) (string, error) {
	n := t.nodes()[other]
	if err := t.mount(ctx, n); err != nil {
		return "", err
	}
	t.database.Data = filepath.Join(n.TargetPath(), "data")
	if err := t.database.Start(ctx); err != nil {
		return "", err
	}
	return t.checkLedger(ctx)
}

// detachMoved unmounts the volume where move mounted it.
func (t *test) detachMoved(ctx context.Context) (string, error) {
	return "", t.nodes()[other].Unmount(ctx, t.volume)
}

// cleanUp ends and removes everything, whatever the test has come to.
func (t *test) cleanUp(ctx context.Context, failed bool) (err error) {
	var errs []error
	if t.cluster != nil {
		logs, err := t.keepLogs()
		errs = append(errs, err)
		defer func() {
			if !failed && err == nil {
				err = os.RemoveAll(logs)
			} else {
				fmt.Fprintln(os.Stderr, "\nThe logs are in", logs)
			}
		}()
		// What waits for the volume can end only when that answers.
		for _, n := range t.nodes() {
			errs = append(errs, n.Thaw())
			if !n.Running() {
				errs = append(errs, n.Start(ctx))
			}
		}
	}
	if t.second != nil {
		errs = append(errs, t.second.Kill(ctx))
	}
	if t.database != nil {
		errs = append(errs, t.database.Kill(ctx))
		for _, r := range t.runs {
			r.giveUp()
		}
	}
	if t.cluster != nil {
		errs = append(errs, t.cluster.Stop(ctx))
	}
	if t.kernel != nil {
		errs = append(errs, t.kernel.close())
	}
	if t.scratch != "" {
		errs = append(errs, os.RemoveAll(t.scratch), nothingLeft(t.scratch))
	}
	return errors.Join(errs...)
}

// keepLogs gives all logs a second name, beside what will be removed.
func (t *test) keepLogs() (string, error) {
	dir := t.scratch + "-logs"
	errs := []error{os.Mkdir(dir, 0o750)}
	for _, pattern := range []string{filepath.Join(t.cluster.Dir, "*.log"), filepath.Join(t.scratch, "database", "[rs]*")} {
		logs, err := filepath.Glob(pattern)
		errs = append(errs, err)
		for _, log := range logs {
			errs = append(errs, os.Link(log, filepath.Join(dir, filepath.Base(log))))
		}
	}
	if t.second != nil {
		errs = append(errs, os.Link(t.second.LogPath(), filepath.Join(dir, "restored.log")))
	}
	return dir, errors.Join(errs...)
}

// nothingLeft looks for processes and mounts that name a directory.
func nothingLeft(dir string) error {
	var errs []error
	for _, pattern := range []string{"/proc/[0-9]*/cmdline", "/proc/self/mountinfo", "/sys/block/loop*/loop/backing_file"} {
		files, err := filepath.Glob(pattern)
		errs = append(errs, err)
		for _, file := range files {
			if names(file, dir) {
				errs = append(errs, fmt.Errorf("left behind: %s names %s", file, dir))
			}
		}
	}
	return errors.Join(errs...)
}
