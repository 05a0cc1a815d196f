package vfs

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

func blocks(v byte, n int) []byte {
	b := block.NewBuffer(n * block.BlockSize)
	for i := range b.Data {
		b.Data[i] = v
	}
	return b.Data
}

func readBlock(t *testing.T, d Device, offset int64) []byte {
	t.Helper()
	io := &IO{Kind: Read, Offset: offset, Length: block.BlockSize, Data: blocks(0xee, 1)}
	if err := Do(d, io); err != nil {
		t.Fatal(err)
	}
	return io.Data
}

func write(offset int64, data []byte) *IO {
	return &IO{Kind: Write, Offset: offset, Length: int64(len(data)), Data: data}
}

// exercise is what every Device must do.
func exercise(t *testing.T, d Device) {
	if err := d.Grow(1 << 20); err != nil || d.Size() != 1<<20 {
		t.Fatalf("grow: %v, size %d", err, d.Size())
	}
	if got := readBlock(t, d, 8192); !bytes.Equal(got, make([]byte, block.BlockSize)) {
		t.Fatal("fresh blocks are not zeros")
	}
	for _, io := range []*IO{write(4096, blocks(1, 3)), write(8192, blocks(2, 1)), {Kind: Sync}, {Kind: Discard, Offset: 12288, Length: 4096}} {
		if err := Do(d, io); err != nil {
			t.Fatal(err)
		}
	}
	for at, want := range []byte{0, 1, 2, 0} {
		if got := readBlock(t, d, int64(at)*block.BlockSize); !bytes.Equal(got, blocks(want, 1)) {
			t.Fatalf("block %d is not %d", at, want)
		}
	}
	if free, err := d.Free(); err != nil || free <= 0 {
		t.Fatalf("free %d: %v", free, err)
	}
	if err := errors.Join(d.Close(), d.Close()); err != nil {
		t.Fatal(err)
	}
}

func newMem(t *testing.T) (*MemDevice, *StepExecutor) {
	e := &StepExecutor{}
	d := NewMemDevice(e, 1<<20)
	if err := d.Grow(1 << 20); err != nil {
		t.Fatal(err)
	}
	return d, e
}

func TestMemDevice(t *testing.T) {
	exercise(t, NewMemDevice(&StepExecutor{}, 2<<20))
	d, _ := newMem(t)
	if err := d.Grow(2 << 20); !errors.Is(err, block.ErrNoSpace) {
		t.Fatalf("grow past the capacity: %v", err)
	}
	d.Inject(func(io *IO) error { return block.ErrDiskFailed })
	if err := Do(d, write(0, blocks(1, 1))); !errors.Is(err, block.ErrDiskFailed) {
		t.Fatalf("injected error: %v", err)
	}
	d.Inject(nil)
	if got := readBlock(t, d, 0); got[0] != 0 {
		t.Fatal("a failed write changed something")
	}
	d.Flip(5, 6)
	if got := readBlock(t, d, 0); got[5] != 64 {
		t.Fatal("bit not flipped")
	}
}

func TestMemDeviceCrash(t *testing.T) {
	ignore := func(*IO) {}
	none := func(int, UnsyncedWrite, int) bool { return false }
	d, e := newMem(t)
	submit := func(io *IO) {
		io.Done = ignore
		d.Submit(io)
	}
	submit(write(0, blocks(1, 1)))
	e.Step(0)
	submit(&IO{Kind: Sync})
	submit(write(4096, blocks(2, 1)))
	e.Step(1)
	e.Step(0)
	submit(write(8192, blocks(3, 1)))
	want := []UnsyncedWrite{{Offset: 4096, Length: 4096}, {Offset: 8192, Length: 4096, InFlight: true}}
	if got := d.Unsynced(); !slices.Equal(got, want) {
		t.Fatalf("unsynced %v", got)
	}
	lost := d.Fork().Crash(e, none)
	for at, want := range []byte{1, 0, 0} {
		if got := readBlock(t, lost, int64(at)*block.BlockSize); !bytes.Equal(got, blocks(want, 1)) {
			t.Fatalf("after a crash block %d is %d", at, got[0])
		}
	}
	torn := d.Fork().Crash(e, func(i int, w UnsyncedWrite, sector int) bool { return i == 0 && sector < 2 })
	if got := readBlock(t, torn, 4096); got[1023] != 2 || got[1024] != 0 {
		t.Fatal("not torn by sectors")
	}
	killed := d.Kill(e, none)
	for at, want := range []byte{1, 2, 0} {
		if got := readBlock(t, killed, int64(at)*block.BlockSize); !bytes.Equal(got, blocks(want, 1)) {
			t.Fatalf("after a kill block %d is %d", at, got[0])
		}
	}
	if got := readBlock(t, killed.Fork().Crash(e, none), 4096); got[0] != 0 {
		t.Fatal("a power loss after a kill lost nothing")
	}
	// The write in flight belongs to a device that is gone.
	e.Step(0)
	if got := readBlock(t, killed, 8192); got[0] != 0 {
		t.Fatal("a dead device wrote")
	}
}

func TestGoExecutor(t *testing.T) {
	e := NewGoExecutor(3)
	var ran atomic.Int32
	for range 100 {
		e.Go(func() {
			ran.Add(1)
			e.Go(func() { ran.Add(1) })
		})
	}
	e.Close()
	if n := ran.Load(); n < 100 {
		t.Fatalf("%d jobs ran", n)
	}
}

func TestSystemIncarnation(t *testing.T) {
	dir := t.TempDir()
	first, err := SystemIncarnation(dir)
	if err != nil {
		t.Fatal(err)
	}
	second, err := SystemIncarnation(dir)
	if err != nil || first != second {
		t.Fatalf("%v and %v: %v", first, second, err)
	}
	if first.Boot.IsZero() || first.Superblock == 0 {
		t.Fatalf("incarnation %v", first)
	}
	if _, err := SystemIncarnation(filepath.Join(dir, "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("absent path: %v", err)
	}
}
