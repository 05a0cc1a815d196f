package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-io/holdfast/test/harness"
)

// owner is the unprivileged user that Debian's package makes: PostgreSQL refuses to
// run as root.
const owner = "postgres"

// settings make the database small beside its data, so that it reads and writes the
// volume, and let it checkpoint often.
var settings = []string{
	"listen_addresses=", "unix_socket_permissions=0700", "max_connections=20",
	"shared_buffers=24MB", "min_wal_size=32MB", "max_wal_size=64MB", "checkpoint_timeout=30s",
	"jit=off", "log_line_prefix=%m [%p] ",
}

// database is a PostgreSQL server whose data directory lies on the volume. What it
// says, its socket and what its clients write lie in home, off the volume.
type database struct {
	programs string
	data     string
	home     string
	identity *syscall.Credential

	server *exec.Cmd
	// ended is closed when the server is gone and reaped; end is its result.
	ended chan struct{}
	end   error
}

// newDatabase finds PostgreSQL's programs and its user, and makes home.
func newDatabase(home string) (*database, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return nil, errors.Join(err, errors.New("PostgreSQL is not installed (build/deps.sh postgres)"))
	}
	who, err := user.Lookup(owner)
	if err != nil {
		return nil, fmt.Errorf("find PostgreSQL's user: %w", err)
	}
	uid, err := strconv.ParseUint(who.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(who.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	d := &database{
		programs: filepath.Dir(found[len(found)-1]), home: home,
		identity: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)},
	}
	return d, d.makeDir(home)
}

// makeDir makes a directory of PostgreSQL's user.
func (d *database) makeDir(path string) error {
	return errors.Join(os.Mkdir(path, 0o700), os.Chown(path, int(d.identity.Uid), int(d.identity.Gid)))
}

// program is one of PostgreSQL's, to be run as its user.
func (d *database) program(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(d.programs, name), args...)
	cmd.Dir = d.home
	cmd.Env = []string{"PATH=" + d.programs + ":/usr/bin:/bin", "LC_ALL=C.UTF-8", "PGHOST=" + d.home, "PGDATABASE=postgres"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: d.identity, Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.WaitDelay = time.Second
	return cmd
}

// run runs a program to its end and returns what it printed.
func (d *database) run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := d.program(ctx, name, args...)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, errors.Join(err, ctx.Err()), strings.TrimSpace(out.String()+complaint.String()))
	}
	return out.String(), nil
}

// query runs SQL and returns its rows, columns separated by blanks.
func (d *database) query(ctx context.Context, sql string) (string, error) {
	return d.run(ctx, "psql", "-XqAt", "-F", " ", "-v", "ON_ERROR_STOP=1", "-c", sql)
}

// initialise makes the data directory below a mount point.
func (d *database) initialise(ctx context.Context, mountPoint string) error {
	d.data = filepath.Join(mountPoint, "data")
	if err := d.makeDir(d.data); err != nil {
		return err
	}
	// It would sync a thousand files one by one.
	if _, err := d.run(ctx, "initdb", "-D", d.data, "--data-checksums", "--no-locale", "-E", "UTF8",
		"--auth-local=peer", "--auth-host=reject", "--no-sync"); err != nil {
		return err
	}
	return syncFileSystem(mountPoint)
}

func (d *database) logPath() string { return filepath.Join(d.home, "server.log") }

// start starts the server and waits until it takes connections.
func (d *database) start(ctx context.Context) error {
	log, err := os.OpenFile(d.logPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	args := []string{"-D", d.data, "-c", "unix_socket_directories=" + d.home}
	for _, s := range settings {
		args = append(args, "-c", s)
	}
	// It outlives the step that starts it: stop and kill end it.
	d.server = d.program(context.WithoutCancel(ctx), "postgres", args...)
	d.server.Stdout, d.server.Stderr = log, log
	// At once, but with its children.
	d.server.SysProcAttr.Pdeathsig = syscall.SIGQUIT
	if err := d.server.Start(); err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	d.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) {
		d.end = cmd.Wait()
		close(ended)
	}(d.server, d.ended)
	return harness.Wait(ctx, "postgres to take connections", func(ctx context.Context) error {
		if !d.running() {
			return harness.Stop(fmt.Errorf("postgres has ended: %w; see %s", d.end, d.logPath()))
		}
		// Unlike a refused connection, this leaves no line in the server's log.
		status, err := os.ReadFile(filepath.Join(d.data, "postmaster.pid"))
		if err != nil {
			return err
		}
		if lines := strings.Split(string(status), "\n"); len(lines) < 8 || strings.TrimSpace(lines[7]) != "ready" ||
			strings.TrimSpace(lines[0]) != strconv.Itoa(d.server.Process.Pid) {
			return errors.New("it is not ready")
		}
		return nil
	})
}

func (d *database) running() bool {
	if d.server == nil {
		return false
	}
	select {
	case <-d.ended:
		return false
	default:
		return true
	}
}

// stop ends the server in order.
func (d *database) stop(ctx context.Context) error {
	if !d.running() {
		return nil
	}
	if err := d.server.Process.Signal(syscall.SIGINT); err != nil {
		return fmt.Errorf("stop postgres: %w", err)
	}
	select {
	case <-d.ended:
	case <-ctx.Done():
		return fmt.Errorf("stop postgres: %w", errors.Join(ctx.Err(), d.kill(context.WithoutCancel(ctx))))
	}
	if d.end != nil {
		return fmt.Errorf("stop postgres: %w", d.end)
	}
	return nil
}

// killLimit bounds the wait for processes that were killed: one that waits for the
// volume ends when that answers.
const killLimit = 30 * time.Second

// kill ends the server and all its processes by SIGKILL, as a power cut would end
// them all, and waits until none is left.
func (d *database) kill(ctx context.Context) error {
	if !d.running() {
		return nil
	}
	// Stopped, it starts no further process while they are counted.
	if err := d.server.Process.Signal(syscall.SIGSTOP); err != nil {
		return fmt.Errorf("kill postgres: %w", err)
	}
	children, err := childrenOf(d.server.Process.Pid)
	errs := []error{err}
	for _, pid := range append([]int{d.server.Process.Pid}, children...) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, fmt.Errorf("kill process %d of postgres: %w", pid, err))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, killLimit)
	defer cancel()
	return errors.Join(append(errs, harness.Wait(ctx, "the processes of postgres to end", func(context.Context) error {
		if d.running() {
			return errors.New("the first process is there")
		}
		if i := slices.IndexFunc(children, alive); i >= 0 {
			return fmt.Errorf("process %d is there", children[i])
		}
		return nil
	}))...)
}

// childrenOf are the processes that a process has started, by the kernel's word.
func childrenOf(pid int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var children []int
	for _, file := range stats {
		child, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			return nil, err
		}
		if _, parent, ok := processStat(child); ok && parent == pid {
			children = append(children, child)
		}
	}
	return children, nil
}

// alive reports whether a process is there and is more than its exit status.
func alive(pid int) bool {
	state, _, ok := processStat(pid)
	return ok && state != "Z" && state != "X"
}

// processStat reads state and parent from /proc/<pid>/stat; see proc(5).
func processStat(pid int) (state string, parent int, ok bool) {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0, false
	}
	// The second field is the name in parentheses, which may hold anything.
	fields := strings.Fields(string(line[bytes.LastIndexByte(line, ')')+1:]))
	if len(fields) < 2 {
		return "", 0, false
	}
	parent, err = strconv.Atoi(fields[1])
	return fields[0], parent, err == nil
}
