package frontendtest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/engine/frontend"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd/nbdtest"
)

// RoleVariable of the environment says as what a test's program was started: empty, a
// key of Main's roles, or roleDaemon.
const RoleVariable = "HOLDFAST_TEST_ROLE"

const roleDaemon = "daemon"

// Main is TestMain. driver makes the driver of a daemon from the argument that
// KillDaemonUnderLoad was given; roles are other things that the program can be.
func Main(m *testing.M, driver func(argument string, log *slog.Logger) (frontend.Driver, error),
	roles map[string]func(log *slog.Logger) error) {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	role := os.Getenv(RoleVariable)
	run := roles[role]
	switch {
	case role == roleDaemon:
		run = func(log *slog.Logger) error { return serve(driver, log) }
	case run == nil:
		os.Exit(m.Run())
	}
	if err := run(log); err != nil {
		log.Error("test process failed", "role", role, "err", err)
		os.Exit(1)
	}
}

// serve serves a device from a file until its input ends; arguments are the driver's,
// the file, volume and attachment. It adopts the device if there is one.
func serve(newDriver func(string, *slog.Logger) (frontend.Driver, error), log *slog.Logger) error {
	volume, err := block.ParseID(os.Args[3])
	if err != nil {
		return err
	}
	attachment, err := block.ParseID(os.Args[4])
	if err != nil {
		return err
	}
	disk, err := nbdtest.OpenFile(nbdtest.Info("", Size, block.BlockSize), os.Args[2])
	if err != nil {
		return err
	}
	driver, err := newDriver(os.Args[1], log)
	if err != nil {
		return err
	}
	spec := frontend.Spec{
		Volume: block.VolumeID{ID: volume}, Attachment: block.AttachmentID{ID: attachment}, Size: Size, Backend: disk,
	}
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	device, err := driver.Adopt(ctx, spec)
	if errors.Is(err, block.ErrNotFound) {
		device, err = driver.Attach(ctx, spec)
	}
	if err != nil {
		return err
	}
	fmt.Println(device.Path())
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return device.Close(ctx)
}

// daemon is the server side in a process of its own.
type daemon struct {
	command *exec.Cmd
	stdin   io.WriteCloser
	path    string
}

func (e *Env) startDaemon(argument, backing string) *daemon {
	e.Helper()
	d := &daemon{command: exec.CommandContext(e.Ctx, "/proc/self/exe", argument, backing, e.Spec.Volume.String(), e.Spec.Attachment.String())}
	d.command.Env = append(os.Environ(), RoleVariable+"="+roleDaemon)
	d.command.Stderr = e.Output()
	var err error
	if d.stdin, err = d.command.StdinPipe(); err != nil {
		e.Fatal(err)
	}
	out, err := d.command.StdoutPipe()
	if err != nil {
		e.Fatal(err)
	}
	if err := d.command.Start(); err != nil {
		e.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		_ = d.command.Process.Kill()
		e.Fatal("daemon did not come up:", err, d.command.Wait())
	}
	d.path = strings.TrimSpace(line)
	return d
}

func (d *daemon) kill() {
	_ = d.command.Process.Kill()
	_ = d.command.Wait()
	_ = d.stdin.Close()
}

// KillDaemonUnderLoad kills the server side with SIGKILL several times while files are
// written, and finds neither an error nor a lost byte. The orderly end of the daemon
// leaves the device, which this process then takes and detaches.
func (e *Env) KillDaemonUnderLoad(argument string) {
	backing := filepath.Join(e.TempDir(), "backing")
	d := e.startDaemon(argument, backing)
	defer func() { d.kill() }()
	dir := e.Mount(d.path)
	l := &load{dir: dir, synced: make(chan struct{})}
	l.start(e)
	const kills = 5
	for range kills {
		l.await(e, 20)
		d.kill()
		d = e.startDaemon(argument, backing)
	}
	l.end()
	if e.Failed() || e.Ctx.Err() != nil {
		e.Fatal("load failed", e.Ctx.Err())
	}
	e.Unmount(dir)
	e.Command("fsck.ext4", "-f", "-n", d.path)
	l.dir = e.mount(d.path, unix.MS_RDONLY)
	l.verify(e)
	e.Unmount(l.dir)
	e.Logf("%d files written and synced through %d kills, the slowest in %d ms", l.total.Load(), kills, l.slowest.Load())
	if err := errors.Join(d.stdin.Close(), d.command.Wait()); err != nil {
		e.Fatal(err)
	}
	device, err := e.Driver.Adopt(e.Ctx, e.Spec)
	if err != nil {
		e.Fatal(err)
	}
	if err := device.Detach(e.Ctx); err != nil {
		e.Fatal(err)
	}
}

const (
	writers = 4
	// kept is how many files each writer has before it writes over the first.
	kept = 50
)

// load writes files and syncs each.
type load struct {
	dir            string
	stop           atomic.Bool
	written        [writers]int
	total, slowest atomic.Int64
	running        sync.WaitGroup
	// synced tells of each file, if somebody listens.
	synced chan struct{}
}

func (l *load) path(w, n int) string { return filepath.Join(l.dir, fmt.Sprintf("%d-%d", w, n%kept)) }

func content(w, n int) []byte { return bytes.Repeat([]byte(fmt.Sprintf("%04d/%04d", w, n)), 2000) }

func (l *load) start(e *Env) {
	for w := range writers {
		l.running.Go(func() {
			for n := 0; !l.stop.Load(); n++ {
				began := time.Now()
				if err := WriteSync(l.path(w, n), content(w, n)); err != nil {
					e.Errorf("writer %d, file %d: %v", w, n, err)
					return
				}
				l.written[w] = n + 1
				l.total.Add(1)
				select {
				case l.synced <- struct{}{}:
				default:
				}
				if took := time.Since(began).Milliseconds(); took > l.slowest.Load() {
					l.slowest.Store(took)
				}
			}
		})
	}
}

// await waits for so many more files.
func (l *load) await(e *Env, files int) {
	for range files {
		select {
		case <-l.synced:
		case <-e.Ctx.Done():
			return
		}
	}
}

func (l *load) end() {
	l.stop.Store(true)
	l.running.Wait()
}

func (l *load) verify(e *Env) {
	for w, count := range l.written {
		for n := max(0, count-kept); n < count; n++ {
			if got, err := os.ReadFile(l.path(w, n)); err != nil || !bytes.Equal(got, content(w, n)) {
				e.Errorf("writer %d, file %d differs (%v)", w, n, err)
			}
		}
	}
}
