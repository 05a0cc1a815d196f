package postgresql

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

// ownSettings let nobody in but the owner, by the socket in its home.
var ownSettings = []string{"listen_addresses=", "unix_socket_permissions=0700", "log_line_prefix=%m [%p] "}

// Server is a PostgreSQL server. What it says, its socket and what its clients write lie
// in Home.
type Server struct {
	// Data is the data directory. It may move while the server is stopped.
	Data string
	// Home belongs to PostgreSQL's user.
	Home string

	// settings are further ones.
	settings []string
	programs string
	identity *syscall.Credential

	server *exec.Cmd
	// ended is closed when the server is gone and reaped; end is its result.
	ended chan struct{}
	end   error
}

// New finds PostgreSQL's programs and its user, and makes home. settings are those of
// postgresql.conf, name=value, where the defaults will not do.
func New(home string, settings ...string) (*Server, error) {
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
	s := &Server{
		Home: home, settings: settings, programs: filepath.Dir(found[len(found)-1]),
		identity: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)},
	}
	return s, s.makeDir(home)
}

// makeDir makes a directory of PostgreSQL's user.
func (s *Server) makeDir(path string) error {
	return errors.Join(os.Mkdir(path, 0o700), os.Chown(path, int(s.identity.Uid), int(s.identity.Gid)))
}

// Program is one of PostgreSQL's, to be run as its user.
func (s *Server) Program(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(s.programs, name), args...)
	cmd.Dir = s.Home
	cmd.Env = []string{"PATH=" + s.programs + ":/usr/bin:/bin", "LC_ALL=C.UTF-8", "PGHOST=" + s.Home, "PGDATABASE=postgres"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.identity, Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.WaitDelay = time.Second
	return cmd
}

// Run runs a program to its end and returns what it printed.
func (s *Server) Run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := s.Program(ctx, name, args...)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, errors.Join(err, ctx.Err()), strings.TrimSpace(out.String()+complaint.String()))
	}
	return out.String(), nil
}

// Query runs SQL and returns its rows, columns separated by blanks.
func (s *Server) Query(ctx context.Context, sql string) (string, error) {
	return s.Run(ctx, "psql", "-XqAt", "-F", " ", "-v", "ON_ERROR_STOP=1", "-c", sql)
}

// Initialise makes the data directory below a mount point.
func (s *Server) Initialise(ctx context.Context, mountPoint string) error {
	s.Data = filepath.Join(mountPoint, "data")
	if err := s.makeDir(s.Data); err != nil {
		return err
	}
	// It would sync a thousand files one by one.
	if _, err := s.Run(ctx, "initdb", "-D", s.Data, "--data-checksums", "--no-locale", "-E", "UTF8",
		"--auth-local=peer", "--auth-host=reject", "--no-sync"); err != nil {
		return err
	}
	return harness.SyncFileSystem(mountPoint)
}

// LogPath is the file of what the server says.
func (s *Server) LogPath() string { return filepath.Join(s.Home, "server.log") }

// Start starts the server and waits until it takes connections.
func (s *Server) Start(ctx context.Context) error {
	log, err := os.OpenFile(s.LogPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	args := []string{"-D", s.Data, "-c", "unix_socket_directories=" + s.Home}
	for _, setting := range slices.Concat(ownSettings, s.settings) {
		args = append(args, "-c", setting)
	}
	// It outlives the context of who starts it: Stop and Kill end it.
	s.server = s.Program(context.WithoutCancel(ctx), "postgres", args...)
	s.server.Stdout, s.server.Stderr = log, log
	// At once, but with its children.
	s.server.SysProcAttr.Pdeathsig = syscall.SIGQUIT
	if err := harness.StartChild(s.server); err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	s.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) {
		s.end = cmd.Wait()
		close(ended)
	}(s.server, s.ended)
	return harness.Wait(ctx, "postgres to take connections", func(ctx context.Context) error {
		if !s.Running() {
			return harness.Stop(fmt.Errorf("postgres has ended: %w; see %s", s.end, s.LogPath()))
		}
		// Unlike a refused connection, this leaves no line in the server's log.
		status, err := os.ReadFile(filepath.Join(s.Data, "postmaster.pid"))
		if err != nil {
			return err
		}
		if lines := strings.Split(string(status), "\n"); len(lines) < 8 || strings.TrimSpace(lines[7]) != "ready" ||
			strings.TrimSpace(lines[0]) != strconv.Itoa(s.server.Process.Pid) {
			return errors.New("it is not ready")
		}
		return nil
	})
}

// Running reports whether the server lives.
func (s *Server) Running() bool {
	if s.server == nil {
		return false
	}
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
}

// CPU is the CPU time that the server has used so far, with all processes it has and had.
func (s *Server) CPU() (time.Duration, error) { return harness.FamilyCPU(s.server.Process.Pid) }

// Stop ends the server in order.
func (s *Server) Stop(ctx context.Context) error {
	if !s.Running() {
		return nil
	}
	if err := s.server.Process.Signal(syscall.SIGINT); err != nil {
		return fmt.Errorf("stop postgres: %w", err)
	}
	select {
	case <-s.ended:
	case <-ctx.Done():
		return fmt.Errorf("stop postgres: %w", errors.Join(ctx.Err(), s.Kill(context.WithoutCancel(ctx))))
	}
	if s.end != nil {
		return fmt.Errorf("stop postgres: %w", s.end)
	}
	return nil
}

// killLimit bounds the wait for processes that were killed: one that waits for the
// volume ends when that answers.
const killLimit = 30 * time.Second

// Kill ends the server and all its processes by SIGKILL, as a power cut would end
// them all, and waits until none is left.
func (s *Server) Kill(ctx context.Context) error {
	if !s.Running() {
		return nil
	}
	// Stopped, it starts no further process while they are counted.
	if err := s.server.Process.Signal(syscall.SIGSTOP); err != nil {
		return fmt.Errorf("kill postgres: %w", err)
	}
	children, err := harness.Children(s.server.Process.Pid)
	errs := []error{err}
	for _, pid := range append([]int{s.server.Process.Pid}, children...) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, fmt.Errorf("kill process %d of postgres: %w", pid, err))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, killLimit)
	defer cancel()
	return errors.Join(append(errs, harness.Wait(ctx, "the processes of postgres to end", func(context.Context) error {
		if s.Running() {
			return errors.New("the first process is there")
		}
		if i := slices.IndexFunc(children, harness.Alive); i >= 0 {
			return fmt.Errorf("process %d is there", children[i])
		}
		return nil
	}))...)
}
