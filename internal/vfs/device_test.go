package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/block"
)

// onEachEngine runs a test on both devices, and on the ring as kernels before 6.1 have
// it. Single operations go through the ring too; where the kernel has none, its
// fallback is tested.
func onEachEngine(t *testing.T, test func(t *testing.T, open func(path string, o OSDeviceOptions) (Device, error))) {
	for name, start := range map[string]func(d *OSDevice) (Device, error){
		"threads":        func(d *OSDevice) (Device, error) { return d, nil },
		"io_uring":       func(d *OSDevice) (Device, error) { return startedUring(t, d, ringOwnThread) },
		"plain_io_uring": func(d *OSDevice) (Device, error) { return startedUring(t, d, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			test(t, func(path string, o OSDeviceOptions) (Device, error) {
				d, err := OpenOSDevice(path, o)
				if err != nil {
					return nil, err
				}
				return start(d)
			})
		})
	}
}

// startedUring is d with a ring, which also takes what is alone.
func startedUring(t *testing.T, d *OSDevice, flags uint32) (Device, error) {
	u, err := newUringDevice(d, nil)
	if err != nil {
		return nil, err
	}
	u.direct, u.flags = 0, flags
	if err := u.start(); err != nil {
		t.Logf("no io_uring: %v", err)
		return d, nil
	}
	return u, nil
}

func TestDeviceFile(t *testing.T) {
	onEachEngine(t, func(t *testing.T, open func(string, OSDeviceOptions) (Device, error)) {
		path := filepath.Join(t.TempDir(), "data")
		if _, err := open(path, OSDeviceOptions{}); !errors.Is(err, block.ErrNotFound) {
			t.Fatalf("open of nothing: %v", err)
		}
		d, err := open(path, OSDeviceOptions{Create: true, Workers: 2})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := open(path, OSDeviceOptions{LockWait: 20 * time.Millisecond}); !errors.Is(err, block.ErrInUse) {
			t.Fatalf("second open: %v", err)
		}
		if _, err := open(path, OSDeviceOptions{Create: true}); !errors.Is(err, block.ErrExists) {
			t.Fatalf("second create: %v", err)
		}
		exercise(t, d)
		// The lock is free as soon as Close has returned.
		for range 50 {
			if d, err = open(path, OSDeviceOptions{Buffered: true}); err != nil {
				t.Fatal(err)
			}
			if got := readBlock(t, d, 4096); !bytes.Equal(got, blocks(1, 1)) {
				t.Fatal("what was written is not there")
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if d, err = open(path, OSDeviceOptions{Buffered: true}); err != nil {
			t.Fatal(err)
		}
		if err := d.Grow(1 << 60); err == nil {
			t.Fatal("grew past the file system")
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// newDevice is a device of size bytes in a temporary directory.
func newDevice(t testing.TB, open func(string, OSDeviceOptions) (Device, error), size int64) Device {
	t.Helper()
	d, err := open(filepath.Join(t.TempDir(), "data"), OSDeviceOptions{Create: true})
	if err == nil {
		err = d.Grow(size)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestDeviceCloseWaits has more operations in flight than the kernel is given at
// once; every other one is past the end of the file, and so needs more than one call.
func TestDeviceCloseWaits(t *testing.T) {
	onEachEngine(t, func(t *testing.T, open func(string, OSDeviceOptions) (Device, error)) {
		d := newDevice(t, open, 4<<20)
		var ended atomic.Int32
		const count = 500
		for i := range int64(count) {
			io := write(i*block.BlockSize, blocks(byte(i), 1))
			if i%2 == 0 {
				io.Kind, io.Offset = Read, 4<<20+i*block.BlockSize
			}
			io.Done = func(io *IO) {
				if io.Err == nil {
					ended.Add(1)
				}
			}
			d.Submit(io)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if ended.Load() != count {
			t.Fatalf("%d of %d ended well", ended.Load(), count)
		}
	})
}

// TestDeviceEnd: a file that ends within a read, or before it, reads as zeros.
func TestDeviceEnd(t *testing.T) {
	onEachEngine(t, func(t *testing.T, open func(string, OSDeviceOptions) (Device, error)) {
		path := filepath.Join(t.TempDir(), "data")
		if err := os.WriteFile(path, blocks(7, 1)[:1000], 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := open(path, OSDeviceOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []int64{0, 4096, 1 << 30} {
			io := &IO{Kind: Read, Offset: at, Data: blocks(0xee, 2)}
			if err := Do(d, io); err != nil {
				t.Fatal(err)
			}
			want := blocks(0, 2)
			if at == 0 {
				copy(want, blocks(7, 1)[:1000])
			}
			if !bytes.Equal(io.Data, want) {
				t.Errorf("at %d the file does not end in zeros", at)
			}
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestDeviceFaults: what the kernel says becomes the sentinels of the seam.
func TestDeviceFaults(t *testing.T) {
	onEachEngine(t, func(t *testing.T, open func(string, OSDeviceOptions) (Device, error)) {
		for _, c := range []struct {
			path string
			io   *IO
			want error
		}{
			{"/dev/full", write(0, blocks(1, 1)), block.ErrNoSpace},
			// Nothing is mapped at address zero.
			{"/proc/self/mem", &IO{Kind: Read, Data: blocks(1, 1)}, block.ErrDiskFailed},
			{"/dev/full", &IO{Kind: Discard, Length: block.BlockSize}, block.ErrDiskFailed},
			{"/dev/full", &IO{Kind: Sync}, block.ErrDiskFailed},
			{"/dev/full", &IO{Kind: 99}, block.ErrInvalid},
		} {
			d, err := open(c.path, OSDeviceOptions{Buffered: true})
			if err != nil {
				t.Fatal(err)
			}
			if err := Do(d, c.io); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.path) {
				t.Errorf("%s on %s: %v, want %v", c.io.Kind.verb(), c.path, err, c.want)
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// limitFile keeps files from growing past limit bytes while f runs.
func limitFile(t *testing.T, limit uint64, f func()) {
	t.Helper()
	signal.Ignore(unix.SIGXFSZ)
	defer signal.Reset(unix.SIGXFSZ)
	var old unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_FSIZE, &old)
	if err == nil {
		err = unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: limit, Max: old.Max})
	}
	if err != nil {
		t.Fatal(err)
	}
	f()
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
}

// TestDeviceShortWrite: the kernel writes a part and refuses the rest.
func TestDeviceShortWrite(t *testing.T) {
	onEachEngine(t, func(t *testing.T, open func(string, OSDeviceOptions) (Device, error)) {
		d := newDevice(t, open, 1<<20)
		var err error
		limitFile(t, 8192, func() { err = Do(d, write(4096, blocks(3, 2))) })
		if !errors.Is(err, block.ErrDiskFailed) || !errors.Is(err, unix.EFBIG) {
			t.Errorf("write across the limit: %v", err)
		}
		if got := readBlock(t, d, 4096); got[0] != 3 {
			t.Error("what fits was not written")
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestDeviceJoined: operations that are carried out as one end each for itself.
func TestDeviceJoined(t *testing.T) {
	onEachEngine(t, func(t *testing.T, open func(string, OSDeviceOptions) (Device, error)) {
		d := newDevice(t, open, 4<<20)
		const pieces, good = 400, 300
		memory := blocks(9, pieces)
		ios := make([]IO, pieces)
		all := func(kind IOKind) {
			var running sync.WaitGroup
			running.Add(pieces)
			for i := range ios {
				ios[i] = *write(int64(i)*4096, memory[i*4096:(i+1)*4096])
				ios[i].Kind, ios[i].Done = kind, func(*IO) { running.Done() }
				d.Submit(&ios[i])
			}
			running.Wait()
		}
		limitFile(t, good*4096, func() { all(Write) })
		for i := range ios {
			if err := ios[i].Err; (i < good) != (err == nil) || err != nil && !errors.Is(err, block.ErrDiskFailed) {
				t.Errorf("piece %d: %v", i, err)
			}
		}
		clear(memory)
		all(Read)
		for i := range ios {
			want := byte(0)
			if i < good {
				want = 9
			}
			if ios[i].Err != nil || !bytes.Equal(ios[i].Data, blocks(want, 1)) {
				t.Errorf("piece %d is not %d (%v)", i, want, ios[i].Err)
			}
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestDeviceStress has writers, each with blocks of its own, check that every
// block reads as written last, while syncs and discards go on.
func TestDeviceStress(t *testing.T) {
	onEachEngine(t, func(t *testing.T, open func(string, OSDeviceOptions) (Device, error)) {
		const writers, share = 4, 64
		d := newDevice(t, open, writers*share*16*block.BlockSize)
		if u, ok := d.(*UringDevice); ok {
			u.direct = 2 // both ways, and the change between them
		}
		var all sync.WaitGroup
		for w := range uint64(writers) {
			all.Go(func() { stress(t, d, int64(w)*share*16*block.BlockSize, share, rand.New(rand.NewPCG(w, 1))) })
		}
		all.Wait()
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// stress uses count places of up to 16 blocks each from offset base. In each step
// some of them, all at once, are written, discarded or read.
func stress(t *testing.T, d Device, base int64, count int, random *rand.Rand) {
	type place struct {
		io      IO
		version byte
		memory  []byte
	}
	places := make([]place, count)
	// Neighbours on the disk are neighbours in memory, so that some are joined.
	memory := blocks(0, 16*count)
	for i := range places {
		places[i].memory = memory[i*16*block.BlockSize : (i+1)*16*block.BlockSize]
	}
	for step := range 60 {
		var running sync.WaitGroup
		done := func(io *IO) {
			if io.Err != nil {
				t.Error(io.Err)
			}
			running.Done()
		}
		chosen := random.Perm(count)[:1+random.IntN(count)]
		if step%2 == 0 {
			slices.Sort(chosen)
		}
		for _, i := range chosen {
			p := &places[i]
			p.io = IO{Kind: Read, Offset: base + int64(i)*16*block.BlockSize, Length: 16 * block.BlockSize, Data: p.memory, Done: done}
			switch random.IntN(8) {
			case 0:
				p.io.Kind, p.io.Data, p.version = Discard, nil, 0
			case 1, 2, 3:
				p.io.Kind, p.version = Write, byte(1+step)
				copy(p.memory, bytes.Repeat([]byte{p.version}, len(p.memory)))
			default:
				clear(p.memory)
				p.memory[0] = ^p.version
			}
			running.Add(1)
			d.Submit(&p.io)
		}
		running.Add(1)
		d.Submit(&IO{Kind: Sync, Done: done})
		running.Wait()
		for i := range places {
			p := &places[i]
			if p.io.Kind == Read && !bytes.Equal(p.memory, bytes.Repeat([]byte{p.version}, len(p.memory))) {
				t.Errorf("place %d of %d is not version %d", i, base, p.version)
				return
			}
			p.io.Kind = 0
		}
	}
}

// TestDeviceAllocatesNothing: an operation costs no memory, once it is warm.
func TestDeviceAllocatesNothing(t *testing.T) {
	onEachEngine(t, func(t *testing.T, open func(string, OSDeviceOptions) (Device, error)) {
		d := newDevice(t, open, 1<<20)
		const depth = 8
		ended := make(chan struct{}, depth)
		ios := make([]IO, depth)
		for i := range ios {
			ios[i] = *write(int64(i)*block.BlockSize, blocks(1, 1))
			ios[i].Done = func(*IO) { ended <- struct{}{} }
		}
		// The runtime's own, such as threads for calls that block, are not counted by
		// the operation.
		if got := testing.AllocsPerRun(500, func() {
			for i := range ios {
				d.Submit(&ios[i])
			}
			for range ios {
				<-ended
			}
		}); got >= 1 {
			t.Errorf("%v allocations for %d operations", got, depth)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// victimPath names the file on which a child of the test writes until it is killed.
const victimPath = "HOLDFAST_VFS_VICTIM"

// TestDeviceOfKilledProcess: the lock of a process that was killed under load goes
// when its operations have ended, and LockWait waits for that.
func TestDeviceOfKilledProcess(t *testing.T) {
	if path := os.Getenv(victimPath); path != "" {
		beVictim(t, path)
	}
	path := filepath.Join(t.TempDir(), "data")
	d, err := OpenDevice(path, OSDeviceOptions{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Grow(16<<20), d.Close()); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestDeviceOfKilledProcess$")
		cmd.Env = append(os.Environ(), victimPath+"="+path)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenDevice(path, OSDeviceOptions{}); !errors.Is(err, block.ErrInUse) {
			t.Fatalf("while the process lives: %v", err)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		d, err := OpenDevice(path, OSDeviceOptions{LockWait: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// beVictim writes for ever, and says so once it does.
func beVictim(t *testing.T, path string) {
	d, err := OpenDevice(path, OSDeviceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var said sync.Once
	for i := range int64(200) {
		io := write(i*16*block.BlockSize, blocks(1, 16))
		io.Done = func(io *IO) {
			said.Do(func() { fmt.Print("x") })
			d.Submit(io)
		}
		d.Submit(io)
	}
	select {}
}

func TestEngines(t *testing.T) {
	for _, name := range []string{"auto", "io_uring", "threads"} {
		if e, err := ParseEngine(name); err != nil || string(e) != name {
			t.Errorf("%s: %v (%v)", name, e, err)
		}
	}
	if _, err := ParseEngine("uring"); !errors.Is(err, block.ErrInvalid) {
		t.Errorf("uring: %v", err)
	}
	path := filepath.Join(t.TempDir(), "data")
	d, err := OpenDevice(path, OSDeviceOptions{Create: true, Engine: EngineThreads})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := d.(*OSDevice); !ok {
		t.Errorf("threads are a %T", d)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestNoUring: without a ring, auto is threads and says so once, and io_uring is
// refused. The kernel refuses because the process may have no more files.
func TestNoUring(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(path, blocks(5, 1), 0o600); err != nil {
		t.Fatal(err)
	}
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	next, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Close(next)
	}
	if err == nil {
		err = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(next) + 1, Max: old.Max})
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
			t.Error(err)
		}
	}()
	if _, err := OpenDevice(path, OSDeviceOptions{Engine: EngineUring}); !errors.Is(err, block.ErrUnavailable) {
		t.Errorf("io_uring: %v", err)
	}
	var log bytes.Buffer
	d, err := OpenDevice(path, OSDeviceOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := d.(*OSDevice); !ok || strings.Count(log.String(), "\n") != 1 || !strings.Contains(log.String(), "io_uring") {
		t.Errorf("a %T, and in the log: %s", d, log.String())
	}
	if got := readBlock(t, d, 0); got[0] != 5 {
		t.Error("threads do not read")
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}
