package harness

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func newProcess(t *testing.T) *process {
	t.Helper()
	p := &process{name: "shell", path: "/bin/sh", log: filepath.Join(t.TempDir(), "log")}
	t.Cleanup(func() {
		if err := p.kill(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// started starts a script and waits until it has written "ready".
func started(t *testing.T, p *process, script string) {
	t.Helper()
	if err := p.start([]string{"-c", script}); err != nil {
		t.Fatal(err)
	}
	err := Wait(bounded(t), "the script", func(context.Context) error {
		if !strings.HasSuffix(p.tail(), "ready") {
			return errors.New("not ready")
		}
		return p.check()
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestProcessStopsInOrder(t *testing.T) {
	p := newProcess(t)
	started(t, p, `trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done`)
	if err := p.start(nil); err == nil {
		t.Error("a running process was started again")
	}
	if err := p.stop(bounded(t)); err != nil || !strings.HasSuffix(p.tail(), "bye") {
		t.Errorf("stopping answers %v; the log ends with %q", err, p.tail())
	}
	for range 2 {
		if err := errors.Join(p.stop(bounded(t)), p.kill()); err != nil {
			t.Errorf("stopping again answers %v", err)
		}
	}
	if err := p.signal(syscall.SIGCONT); err == nil {
		t.Error("a signal to a gone process succeeds")
	}
	started(t, p, `echo again; echo ready; sleep 60`)
}

func TestStubbornProcessIsKilled(t *testing.T) {
	p := newProcess(t)
	started(t, p, `trap '' TERM; echo ready; while :; do sleep 0.01; done`)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := p.stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stopping answers %v", err)
	}
	if p.current() != nil {
		t.Error("it still lives")
	}
}

func TestDeadProcessShowsItsLog(t *testing.T) {
	p := newProcess(t)
	if err := p.check(); err == nil {
		t.Error("a process never started passes")
	}
	if err := p.start([]string{"-c", "echo no quorum today; exit 3"}); err != nil {
		t.Fatal(err)
	}
	<-p.life.done
	if err := p.check(); err == nil || !strings.Contains(err.Error(), "no quorum today") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("the check answers %v", err)
	}
}

// A crash must not pass for what the test did next, but is told once.
func TestEndThatNobodyAskedForIsTold(t *testing.T) {
	for name, next := range map[string]func(p *process) error{
		"stop":  func(p *process) error { return p.stop(bounded(t)) },
		"kill":  func(p *process) error { return p.kill() },
		"start": func(p *process) error { return p.start(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			p := newProcess(t)
			if err := p.start([]string{"-c", "echo broken; exit 2"}); err != nil {
				t.Fatal(err)
			}
			<-p.life.done
			err := next(p)
			if err == nil || !strings.Contains(err.Error(), "exit status 2") || !strings.Contains(err.Error(), "broken") {
				t.Errorf("the end is told as %v", err)
			}
			if err := p.kill(); err != nil {
				t.Errorf("it is told again: %v", err)
			}
		})
	}
}

func TestWait(t *testing.T) {
	broken := errors.New("broken")
	asked := 0
	err := Wait(t.Context(), "the third time", func(context.Context) error {
		if asked++; asked < 3 {
			return broken
		}
		return nil
	})
	if err != nil || asked != 3 {
		t.Errorf("asked %d times: %v", asked, err)
	}
	if err := Wait(t.Context(), "nothing", func(context.Context) error { return Stop(broken) }); !errors.Is(err, broken) {
		t.Errorf("a stop answers %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err = Wait(ctx, "ever", func(context.Context) error { return broken })
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "broken") {
		t.Errorf("an ended context answers %v", err)
	}
}

// TestCleanupFindsItsOwn: mounts, loop devices and processes below the directory,
// and nothing beside it.
func TestCleanupFindsItsOwn(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root, which make test has")
	}
	base := t.TempDir()
	mine, other := filepath.Join(base, "mine"), filepath.Join(base, "mine-not")
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v: %s", name, args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	for _, dir := range []string{mine, other} {
		mountPoint, disk := filepath.Join(dir, "mnt"), filepath.Join(dir, "disk")
		run("mkdir", "-p", mountPoint)
		run("truncate", "--size", "1M", disk)
		run("losetup", "--find", disk)
		run("mount", "-t", "tmpfs", "none", mountPoint)
	}
	shell, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(base, "server")
	run("cp", shell, program)
	// GNU sleep refuses a path as an argument, and a shell shows it as its own.
	server := &exec.Cmd{Path: program, Args: []string{mine + "/socket", "60"}}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}

	ctx := bounded(t)
	if err := errors.Join(killNaming(program, mine), unmountBelow(ctx, mine), detachLoops(ctx, mine)); err != nil {
		t.Error(err)
	}
	var exit *exec.ExitError
	if err := server.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the server ended with %v", err)
	}
	if left, err := mountsBelow(mine); err != nil || len(left) > 0 {
		t.Errorf("left mounted: %v, %v", left, err)
	}
	if left, err := mountsBelow(other); err != nil || len(left) != 1 {
		t.Errorf("mounted beside it: %v, %v", left, err)
	}
	if out := run("losetup", "--associated", filepath.Join(mine, "disk")); out != "" {
		t.Errorf("left attached: %s", out)
	}
	if out := run("losetup", "--associated", filepath.Join(other, "disk")); out == "" {
		t.Error("a loop device of somebody else was detached")
	}
	if err := errors.Join(unmountBelow(ctx, other), detachLoops(ctx, other)); err != nil {
		t.Error(err)
	}
}

func TestNetworksAreFree(t *testing.T) {
	hosts, err := freeHosts(t.Context(), 3)
	if err != nil || len(hosts) != 3 || !strings.HasPrefix(hosts[2], "127.") || !strings.HasSuffix(hosts[2], ".3") {
		t.Errorf("found %q, %v", hosts, err)
	}
}
