package iopath

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// roleVariable makes the test binary a process that is marked, and reports.
const roleVariable = "HOLDFAST_IOPATH_ROLE"

// mustVariable names what the machine is known to permit: flusher, first, oom, lock. It is
// set where the tests run in a guest of their own.
const mustVariable = "HOLDFAST_IOPATH_MUST"

// report is what a marked process says of itself.
type report struct {
	// Flushers are the threads with the mark, Threads all.
	Flushers, Threads int
	// Behind are the threads without the priority of the I/O path.
	Behind    int
	OOM       string
	LockedKiB int64
	// ResidentKiB is before, GrownKiB after touching TouchedKiB more.
	ResidentKiB, GrownKiB, TouchedKiB int64
	Limit                             int64
	// Warnings are the messages logged at that level.
	Warnings []string
}

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		if err := playRole(role); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// playRole marks this process, unprivileged if the role says so, and reports.
func playRole(role string) error {
	runtime.LockOSThread()
	var log bytes.Buffer
	if role == "limited" {
		if err := dropLock(); err != nil {
			return err
		}
	}
	Mark(slog.New(slog.NewJSONHandler(&log, nil)))
	r := report{Limit: debug.SetMemoryLimit(-1), TouchedKiB: 64 << 10}
	for dec := json.NewDecoder(&log); ; {
		var line struct{ Level, Msg string }
		if err := dec.Decode(&line); err == io.EOF {
			break
		} else if err != nil {
			return err
		}
		if line.Level == "WARN" {
			r.Warnings = append(r.Warnings, line.Msg)
		}
	}
	if err := r.countFlushers(); err != nil {
		return err
	}
	oom, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return err
	}
	r.OOM = strings.TrimSpace(string(oom))
	r.ResidentKiB, r.LockedKiB = status("VmRSS"), status("VmLck")
	// Much more than the heap has reserved: the runtime must get it.
	memory := make([]byte, 512<<20)
	for at := int64(0); at < r.TouchedKiB<<10; at += 4096 {
		memory[at] = 1
	}
	r.GrownKiB = status("VmRSS")
	runtime.KeepAlive(memory)
	return json.NewEncoder(os.Stdout).Encode(r)
}

// countFlushers asks every thread of the process for its mark.
func (r *report) countFlushers() error {
	flusher, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_GET_IO_FLUSHER, 0, 0)
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	r.Threads = len(threads)
	if errno == 0 && flusher == 1 {
		// The call fails unless every thread says the same.
		r.Flushers = r.Threads
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			return err
		}
		if n, err := nicenessOf(id); err == nil && n > niceness {
			r.Behind++
		}
	}
	return nil
}

// dropLock takes the capability away that makes RLIMIT_MEMLOCK void, and that to
// raise it, and leaves more of it than the process has reserved now.
func dropLock() error {
	limit := unix.Rlimit{Cur: 4 << 30, Max: 4 << 30}
	// A machine that does not allow as much has a limit that is lower still.
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil && !errors.Is(err, unix.EPERM) {
		return err
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&header, &caps[0]); err != nil {
		return err
	}
	for _, c := range []uint{unix.CAP_IPC_LOCK, unix.CAP_SYS_RESOURCE} {
		caps[0].Effective &^= 1 << c
		caps[0].Permitted &^= 1 << c
	}
	return unix.Capset(&header, &caps[0])
}

// status is a number of /proc/self/status, in KiB.
func status(name string) int64 {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return -1
	}
	for _, line := range strings.Split(string(data), "\n") {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return n
		}
	}
	return -1
}

// marked runs a process in a role and returns its report.
func marked(t *testing.T, role string, env ...string) report {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(append(os.Environ(), roleVariable+"="+role), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("a marked process died: %v", err)
	}
	var r report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %+v", role, r)
	return r
}

func (r *report) warned(what string) bool {
	for _, w := range r.Warnings {
		if strings.Contains(w, what) {
			return true
		}
	}
	return false
}

// TestMark: each mark is there, or its absence was logged; where the machine is
// known to permit it, it is there.
func TestMark(t *testing.T) {
	r := marked(t, "daemon")
	for name, c := range map[string]struct {
		there   bool
		warning string
	}{
		"flusher": {r.Flushers == r.Threads && r.Threads > 0, "not marked as I/O flusher"},
		"first":   {r.Behind == 0, "priority of any other"},
		"oom":     {r.OOM == oomScoreMin, "may be killed"},
		"lock":    {r.LockedKiB > 0, "memory is not locked"},
	} {
		if c.there == r.warned(c.warning) {
			t.Errorf("%s: there %v, warned %v", name, c.there, !c.there)
		}
		if !c.there && strings.Contains(os.Getenv(mustVariable), name) {
			t.Errorf("%s is not there though the machine permits it", name)
		}
	}
	// Only what is touched is resident, locked or not (the race detector doubles it).
	if r.ResidentKiB > 64<<10 || r.GrownKiB-r.ResidentKiB > 4*r.TouchedKiB {
		t.Errorf("%d KiB are resident, %d KiB after touching %d", r.ResidentKiB, r.GrownKiB, r.TouchedKiB)
	}
	if r.Limit <= 0 || r.Limit >= 1<<50 {
		t.Errorf("memory is bounded by %d bytes", r.Limit)
	}
}

// TestMarkUnderALimit: where locking would sooner or later make an allocation fail,
// nothing is locked, and the process lives.
func TestMarkUnderALimit(t *testing.T) {
	r := marked(t, "limited")
	if r.LockedKiB != 0 || !r.warned("memory is not locked") {
		t.Errorf("%d KiB locked, warnings %q", r.LockedKiB, r.Warnings)
	}
}

// TestMemoryLimitOfTheUser: GOMEMLIMIT wins.
func TestMemoryLimitOfTheUser(t *testing.T) {
	if r := marked(t, "daemon", "GOMEMLIMIT=3GiB"); r.Limit != 3<<30 {
		t.Errorf("memory is bounded by %d bytes", r.Limit)
	}
}
