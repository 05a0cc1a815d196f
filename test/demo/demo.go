package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/test/harness"
)

const (
	volumeBytes = 2 << 30
	dataBytes   = 1 << 30
	// missedBytes are written to a file of their own while a replica is away.
	missedBytes = 64 << 20
)

// demo is what the steps share. The engine runs on the first node, the replica
// that crashes is on the third, and the volume moves to the second.
type demo struct {
	// broken: the present step is sabotaged.
	broken bool

	scratch string
	cluster *harness.Cluster
	volume  string
	ledger  *ledger
	dataSum [32]byte
	before  harness.Sums
	missed  int
}

func (d *demo) engineNode() *harness.Node  { return d.cluster.Nodes[0] }
func (d *demo) otherNode() *harness.Node   { return d.cluster.Nodes[1] }
func (d *demo) replicaNode() *harness.Node { return d.cluster.Nodes[2] }

func (d *demo) startCluster(ctx context.Context) (string, error) {
	scratch, err := os.MkdirTemp("/var/tmp", "holdfast-demo-")
	if err != nil {
		return "", err
	}
	d.scratch = scratch
	binaries, err := harness.Build(ctx, filepath.Join(scratch, "bin"))
	if err != nil {
		return "", err
	}
	d.cluster, err = harness.Start(ctx, harness.Options{Binaries: binaries, Dir: filepath.Join(scratch, "cluster")})
	if err != nil {
		return "", err
	}
	if err := d.cluster.AddDisks(ctx, "ssd"); err != nil {
		return "", err
	}
	for _, n := range d.cluster.Nodes {
		if err := n.StartPlugin(ctx); err != nil {
			return "", err
		}
	}
	if d.broken {
		if err := d.replicaNode().Kill(); err != nil {
			return "", err
		}
	}
	return "", d.cluster.WaitVoters(ctx)
}

func (d *demo) makeVolume(ctx context.Context) (string, error) {
	parameters := map[string]string{"replicas": "3"}
	if d.broken {
		parameters["replicas"] = "4" // there are three nodes
	}
	volume, err := d.engineNode().CreateVolume(ctx, "demo", volumeBytes, parameters)
	if err != nil {
		return "", err
	}
	d.volume = volume
	return "", d.engineNode().Mount(ctx, d.volume)
}

func (d *demo) dataFile(n *harness.Node) string { return filepath.Join(n.TargetPath(), "data") }

func (d *demo) writeData(ctx context.Context) (string, error) {
	path := d.dataFile(d.engineNode())
	sum := sha256.New()
	if err := writeRandom(ctx, path, dataBytes, sum); err != nil {
		return "", err
	}
	sum.Sum(d.dataSum[:0])
	if d.broken {
		if err := harness.FlipByte(path, dataBytes/2); err != nil {
			return "", err
		}
	}
	return "", d.checkData(ctx, path)
}

// checkData reads the data back from the volume.
func (d *demo) checkData(ctx context.Context, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	// What the page cache holds says nothing of the volume.
	if err := unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("drop page cache of %s: %w", path, err)
	}
	sum := sha256.New()
	n, err := io.Copy(sum, until(ctx, file))
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if n != dataBytes || [32]byte(sum.Sum(nil)) != d.dataSum {
		return fmt.Errorf("%s is not what was written: %d bytes with another SHA-256", path, n)
	}
	return nil
}

// writeRandom writes n random bytes to a file, durably, and to sum.
func writeRandom(ctx context.Context, path string, n int64, sum io.Writer) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.CopyN(io.MultiWriter(file, sum), until(ctx, rand.Reader), n)
	err = errors.Join(err, file.Sync(), file.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// readerFunc is a reader made of a function.
type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// until ends a long copy from r when ctx ends.
func until(ctx context.Context, r io.Reader) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return r.Read(p)
	})
}

// ledgerLimit bounds the end of the database, and leaves time to clean up the rest.
const ledgerLimit = 15 * time.Second

// endLedger kills the database. Its processes end when the engine answers them, so
// a frozen one goes on first.
func (d *demo) endLedger(ctx context.Context) error {
	if err := d.engineNode().Thaw(); err != nil {
		return err
	}
	d.ledger.kill()
	ctx, cancel := context.WithTimeout(ctx, ledgerLimit)
	defer cancel()
	var killed *exec.ExitError
	if err := d.ledger.reap(ctx); err != nil && !errors.As(err, &killed) {
		return err
	}
	return nil
}

// cleanUp ends and removes everything, whatever the demo has come to.
func (d *demo) cleanUp(ctx context.Context, failed bool) error {
	var errs []error
	if d.ledger != nil {
		errs = append(errs, d.endLedger(ctx))
	}
	if d.cluster != nil {
		if failed {
			fmt.Fprintln(os.Stderr, d.cluster.LogTails())
		}
		errs = append(errs, d.cluster.Stop(ctx))
	}
	if d.scratch != "" {
		errs = append(errs, os.RemoveAll(d.scratch))
	}
	return errors.Join(errs...)
}
