package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
	"github.com/holdfast-io/holdfast/test/harness"
)

// rowsPerStep is how many rows the database must commit for a step to count it
// as going on.
const rowsPerStep = 200

// copyFactor is what a resync may copy at most, as a multiple of the extents
// that differ.
const copyFactor = 1.5

func (d *demo) startDatabase(ctx context.Context) (string, error) {
	var err error
	d.ledger, err = startLedger(ctx, d.engineNode().TargetPath(), filepath.Join(d.scratch, "acknowledged"))
	if err != nil {
		return "", err
	}
	if d.broken {
		if err := d.ledger.writers[0].cmd.Process.Kill(); err != nil {
			return "", err
		}
	}
	return "", d.ledger.advance(ctx)
}

func (d *demo) crashReplica(ctx context.Context) (string, error) {
	d.ledger.longestPause()
	if err := d.replicaNode().Kill(); err != nil {
		return "", err
	}
	if d.broken {
		if err := d.engineNode().Freeze(); err != nil {
			return "", err
		}
	}
	if err := d.ledger.advance(ctx); err != nil {
		return "", err
	}
	gap := d.ledger.longestPause()
	// What differs afterwards is counted from here on, by reading a replica that
	// stays. It stands still for that, so that the count is exact.
	var err error
	if d.before, err = d.stillCopy(ctx); err != nil {
		return "", err
	}
	if err := writeRandom(ctx, filepath.Join(d.engineNode().TargetPath(), "missed"), missedBytes, io.Discard); err != nil {
		return "", err
	}
	if err := d.ledger.advance(ctx); err != nil {
		return "", err
	}
	after, err := d.stillCopy(ctx)
	if err != nil {
		return "", err
	}
	d.missed = len(d.before.Differing(after))
	return fmt.Sprintf("the database went on, its longest pause was %d ms; %d extents of 64 KiB differ now", gap.Milliseconds(), d.missed), nil
}

// stillCopy holds the database, and reads the extents of a replica that is
// there.
func (d *demo) stillCopy(ctx context.Context) (harness.Sums, error) {
	defer d.ledger.resume()
	if err := d.ledger.hold(ctx); err != nil {
		return harness.Sums{}, err
	}
	if err := syncFileSystem(d.engineNode().TargetPath()); err != nil {
		return harness.Sums{}, err
	}
	all, err := d.cluster.Copies(ctx, d.volume)
	if err != nil {
		return harness.Sums{}, err
	}
	for _, c := range all {
		if c.Node == d.otherNode() {
			return c.Sums(ctx)
		}
	}
	return harness.Sums{}, fmt.Errorf("no replica on %s", d.otherNode().Name)
}

func syncFileSystem(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(dir.Fd())), dir.Close())
}

func (d *demo) resync(ctx context.Context) (string, error) {
	copiedBefore, err := copiedBytes(ctx, d.engineNode())
	if err != nil {
		return "", err
	}
	if d.broken {
		if err := scramble(d.replicaNode()); err != nil {
			return "", err
		}
	}
	began := time.Now()
	if err := d.replicaNode().Start(ctx); err != nil {
		return "", err
	}
	if err := d.waitInSync(ctx); err != nil {
		return "", err
	}
	took := time.Since(began)
	copiedAfter, err := copiedBytes(ctx, d.engineNode())
	if err != nil {
		return "", err
	}
	copied := int64(copiedAfter - copiedBefore)
	differ := int64(d.missed) * block.ExtentSize
	factor := float64(copied) / float64(differ)
	if copied == 0 || factor > copyFactor {
		return "", fmt.Errorf("copied %d bytes where %d differ: %.2f times, want above 0 and at most %.1f", copied, differ, factor, copyFactor)
	}
	return fmt.Sprintf("in sync %.1f s after the start of the daemon; copied %d MiB where %d MiB differ: %.2f times",
		took.Seconds(), copied>>20, differ>>20, factor), d.ledger.advance(ctx)
}

// scramble overwrites the beginning of a stopped node's data file, so that
// nothing there can be kept.
func scramble(n *harness.Node) error {
	paths, err := filepath.Glob(filepath.Join(n.Dir, "disks", "*", "data"))
	if err != nil || len(paths) == 0 {
		return fmt.Errorf("find data file of %s: %w", n.Name, errors.Join(err, block.ErrNotFound))
	}
	file, err := os.OpenFile(paths[0], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	// The superblock stays, or the store would not open at all.
	_, err = io.CopyN(io.NewOffsetWriter(file, 16<<20), rand.Reader, dataBytes)
	return errors.Join(err, file.Sync(), file.Close())
}

func (d *demo) waitInSync(ctx context.Context) error {
	return harness.Wait(ctx, "all replicas in sync", func(ctx context.Context) error {
		v, err := d.otherNode().Volumes().GetVolume(ctx, &holdfastv1.GetVolumeRequest{Id: d.volume})
		if err != nil {
			return err
		}
		in := 0
		for _, r := range v.GetReplicas() {
			if r.GetInSync() {
				in++
			}
		}
		if in < len(v.GetReplicas()) {
			return fmt.Errorf("%d of %d", in, len(v.GetReplicas()))
		}
		return nil
	})
}

// copiedBytes is what the engines of a node have copied by resync.
func copiedBytes(ctx context.Context, n *harness.Node) (float64, error) {
	return n.Metric(ctx, http.DefaultClient, "holdfast_engine_resync_copied_bytes_total")
}

func (d *demo) crashEngine(ctx context.Context) (string, error) {
	d.ledger.longestPause()
	if err := d.engineNode().Kill(); err != nil {
		return "", err
	}
	if d.broken {
		if err := killHelper(d.engineNode()); err != nil {
			return "", err
		}
	}
	if err := d.engineNode().Start(ctx); err != nil {
		return "", err
	}
	if err := d.ledger.advance(ctx); err != nil {
		return "", err
	}
	gap := d.ledger.longestPause()
	if err := d.waitInSync(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("no I/O error above; the database's longest pause was %d ms", gap.Milliseconds()), nil
}

// killHelper ends the process that shows the device, and so the device.
func killHelper(n *harness.Node) error {
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, path := range processes {
		line, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(line), "fuse-device") || !strings.Contains(string(line), n.Dir) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			return err
		}
		return syscall.Kill(pid, syscall.SIGKILL)
	}
	return fmt.Errorf("device of %s: %w", n.Name, block.ErrNotFound)
}
