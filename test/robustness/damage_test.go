//go:build robust

package robustness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/test/harness"
	"github.com/holdfast-io/holdfast/test/harness/stamp"
)

// damaged is a volume that was written, flushed and detached, so that no intent log
// excuses what is then found on a disk.
type damaged struct {
	*stage
	t    *testing.T
	load *load
	// volume is what was read last, want the sums of what it must be.
	volume []byte
	want   harness.Sums
	// node is the one whose disk is tampered with.
	node int
	// saved is a copy of its disk from the middle of the writing.
	saved string
}

// newDamaged prepares the volume.
func newDamaged(t *testing.T) *damaged {
	t.Helper()
	binaries := binariesFor(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	dir := filepath.Join("/var/tmp", fmt.Sprintf("holdfast-d%d", os.Getpid()))
	s, err := newStage(ctx, rand.New(rand.NewPCG(7, 0)), stageOptions{binaries: binaries, dir: dir})
	t.Cleanup(func() {
		if t.Failed() && s.cluster != nil {
			t.Log(s.cluster.LogTails())
		}
		if err := s.clean(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	// Not where the engine is: that one is to come back to it.
	d := &damaged{stage: s, t: t, node: s.holders[1], saved: filepath.Join(dir, "saved")}
	s.home = s.holders[2]
	d.load = startLoad(ctx, 7, volumeLayout())
	t.Cleanup(func() {
		if err := d.load.stop(); err != nil {
			t.Error(err)
		}
	})
	d.attach(ctx, s.home)
	d.writes(ctx)
	n := d.stage.node(d.node)
	// A copy of the disk of a killed daemon is what a snapshot of a machine is.
	err = errors.Join(n.Kill(), run("cp", "-a", d.disks[d.node].StorePath(), d.saved), n.Start(ctx), d.inSync(ctx))
	if err != nil {
		t.Fatal(err)
	}
	d.writes(ctx)
	if err := d.inSync(ctx); err != nil {
		t.Fatal(err)
	}
	d.want = d.readAll(ctx)
	d.load.use(nil)
	if err := d.detach(ctx); err != nil {
		t.Fatal(err)
	}
	if err := d.compare(ctx, d.want); err != nil {
		t.Fatalf("before anything was damaged: %v", err)
	}
	return d
}

func run(name string, args ...string) error {
	if out, err := exec.CommandContext(context.Background(), name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

func (d *damaged) attach(ctx context.Context, node int) {
	d.t.Helper()
	dial, err := d.stage.attach(ctx, node)
	if err != nil {
		d.t.Fatal(err)
	}
	d.load.use(dial)
}

func (d *damaged) writes(ctx context.Context) {
	d.t.Helper()
	before := d.load.history.acknowledgedWrites()
	err := harness.Wait(ctx, "writes", func(context.Context) error {
		if n := d.load.history.acknowledgedWrites() - before; n < 1000 {
			return fmt.Errorf("%d", n)
		}
		return d.load.failure()
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

// readAll holds the load for good and reads the volume.
func (d *damaged) readAll(ctx context.Context) harness.Sums {
	d.t.Helper()
	if err := d.load.hold(ctx); err != nil {
		d.t.Fatal(err)
	}
	volume, err := d.load.readAll(ctx, finalReader)
	if err != nil {
		d.t.Fatal(err)
	}
	sums, err := harness.SumsOf(ctx, bytes.NewReader(volume))
	if err != nil {
		d.t.Fatal(err)
	}
	d.volume = volume
	return sums
}

// repaired attaches the volume at the damaged replica, whose disk is read by
// preference, and expects that neither the reader nor a look at the disks notices.
func (d *damaged) repaired(ctx context.Context) {
	d.t.Helper()
	d.attach(ctx, d.node)
	if err := d.inSync(ctx); err != nil {
		d.t.Fatal(err)
	}
	if differ := d.want.Differing(d.readAll(ctx)); len(differ) > 0 {
		d.t.Errorf("the volume changed in extents %v", differ)
	}
	if err := d.compare(ctx, d.want); err != nil {
		d.t.Errorf("after reading everything: %v", err)
	}
	if _, err := d.load.history.check(); err != nil {
		d.t.Error(err)
	}
}

// TestFlippedByte changes a byte of the data behind the product's back. The
// checksum catches it: the replica's export reports an error instead of the bytes,
// and a read of the volume gets them from a peer and repairs the replica.
func TestFlippedByte(t *testing.T) {
	d := newDamaged(t)
	ctx := t.Context()
	n := d.stage.node(d.node)
	if err := n.Kill(); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(filepath.Join(d.disks[d.node].StorePath(), "data"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, at := range findSector(t, file, d.volume) {
		if _, err := file.WriteAt([]byte{0xff, 0xff, 0xff}, at+stamp.FillAt); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(file.Sync(), n.Start(ctx)); err != nil {
		t.Fatal(err)
	}
	if err := d.compare(ctx, d.want); err == nil || errors.Is(err, errDiffers) {
		t.Errorf("the export of the damaged replica answers %v", err)
	}
	d.repaired(ctx)
}

// findSector finds a sector of the volume in a data file, everywhere it lies: what a
// resync has copied to a new place may be in the old one, too, which is free.
func findSector(t *testing.T, file *os.File, volume []byte) (places []int64) {
	t.Helper()
	sector := make([]byte, block.SectorSize)
	var found []byte
	for at := int64(0); ; at += block.SectorSize {
		if _, err := file.ReadAt(sector, at); errors.Is(err, io.EOF) && found != nil {
			return places
		} else if err != nil {
			t.Fatalf("no sector of the load: %v", err)
		}
		if found == nil && isOf(sector, volume) {
			found = bytes.Clone(sector)
		}
		if found != nil && bytes.Equal(sector, found) {
			places = append(places, at)
		}
	}
}

// isOf reports whether a sector was written by the load and is one of the volume.
func isOf(sector, volume []byte) bool {
	number := uint64(0)
	for i := range 8 {
		number |= uint64(sector[stamp.NumberAt+i]) << (8 * i)
	}
	if number >= uint64(len(volume)/block.SectorSize) {
		return false
	}
	v, err := stamp.Read(sector, int64(number*block.SectorSize))
	return err == nil && v[0] != zeroed && bytes.Equal(sector, volume[number*block.SectorSize:][:block.SectorSize])
}

// TestPutBackDisk puts an older copy of a replica's disk in its place. Every
// checksum of it is right, so that its export shows older bytes, which the
// comparison must notice. The number of the last flush gives it away when the
// volume is attached: everything is compared and copied (rule 10).
func TestPutBackDisk(t *testing.T) {
	d := newDamaged(t)
	ctx := t.Context()
	n, store := d.stage.node(d.node), d.disks[d.node].StorePath()
	err := errors.Join(n.Kill(), d.disks[d.node].Empty(), os.RemoveAll(store), run("cp", "-a", d.saved, store), n.Start(ctx))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.compare(ctx, d.want); !errors.Is(err, errDiffers) {
		t.Errorf("the comparison with an older disk answers %v", err)
	}
	d.repaired(ctx)
}
