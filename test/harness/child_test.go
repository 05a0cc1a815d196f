package harness

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestChildOutlivesItsThread starts a child from a goroutine whose thread ends.
func TestChildOutlivesItsThread(t *testing.T) {
	cmd := exec.Command("cat")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, inErr := cmd.StdinPipe()
	out, outErr := cmd.StdoutPipe()
	if err := errors.Join(inErr, outErr); err != nil {
		t.Fatal(err)
	}
	thread, err := startLocked(cmd)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); unix.Tgkill(os.Getpid(), thread, 0) == nil; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("the thread does not end")
		}
	}
	_, writeErr := io.WriteString(in, "alive")
	got, err := io.ReadAll(io.LimitReader(out, 5))
	if err := errors.Join(writeErr, err); err != nil || string(got) != "alive" {
		t.Errorf("the child has ended with the thread: it said %q, %v", got, err)
	}
	if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
		t.Error(err)
	}
}

// startLocked starts a child from a thread of its own, which it names. The first thread
// of a process never ends, so that one is held meanwhile if need be.
func startLocked(cmd *exec.Cmd) (thread int, err error) {
	var done sync.WaitGroup
	done.Go(func() {
		runtime.LockOSThread()
		if thread = unix.Gettid(); thread == os.Getpid() {
			thread, err = startLocked(cmd)
			runtime.UnlockOSThread()
			return
		}
		err = StartChild(cmd)
	})
	done.Wait()
	return thread, err
}
