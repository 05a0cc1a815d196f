package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/control"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
	"github.com/holdfast-io/holdfast/test/harness/loopback"
)

// patience bounds every wait; only a fault makes one so long.
const patience = 60 * time.Second

// programs are the daemon and the command line.
type programs struct{ daemon, cli string }

// buildPrograms builds them as they are released: without cgo.
func buildPrograms(t *testing.T) programs {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", dir+"/", "../holdfastd", "../holdfast")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return programs{daemon: filepath.Join(dir, "holdfastd"), cli: filepath.Join(dir, "holdfast")}
}

// TestBadInput runs the built programs on what they cannot work with.
func TestBadInput(t *testing.T) {
	p := buildPrograms(t)
	t.Run("flags", func(t *testing.T) { testWrongFlags(t, p) })
	t.Run("directories", func(t *testing.T) { testUnusableDirectories(t, p) })
	t.Run("privileges", func(t *testing.T) { testWithoutPrivileges(t, p) })
	t.Run("second daemon", func(t *testing.T) { testSecondDaemon(t, p) })
	t.Run("another cluster", func(t *testing.T) { testAnotherCluster(t, p) })
	t.Run("disks", func(t *testing.T) { testUnusableDisks(t, p) })
}

// place is where a daemon of the test runs.
type place struct {
	t                *testing.T
	programs         programs
	dir              string
	control          string
	data, raft, http string
}

// newPlace makes directories with short paths and finds free ports.
func newPlace(t *testing.T, p programs) *place {
	t.Helper()
	dir, err := os.MkdirTemp("", "hfd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return &place{t: t, programs: p, dir: dir, control: loopback.FreeAddress(t), data: loopback.FreeAddress(t), raft: loopback.FreeAddress(t), http: loopback.FreeAddress(t)}
}

func (p *place) path(name string) string { return filepath.Join(p.dir, name) }

// args are a right command line, with further arguments that win.
func (p *place) args(more ...string) []string {
	return append([]string{
		"--data-dir", p.path("data"), "--run-dir", p.path("run"), "--name", "n1", "--frontend", "socket",
		"--listen-control", p.control, "--listen-data", p.data, "--listen-raft", p.raft,
	}, more...)
}

// outcome is how a program ended.
type outcome struct {
	code   int
	stdout string
	stderr string
}

// last is the line that a person sees.
func (o outcome) last() string {
	lines := strings.Split(strings.TrimSpace(o.stderr), "\n")
	return lines[len(lines)-1]
}

func run(t *testing.T, as *syscall.Credential, program string, args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var stdout, stderr bytes.Buffer
	command := exec.CommandContext(ctx, program, args...)
	command.Stdout, command.Stderr = &stdout, &stderr
	command.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	err := command.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("%s %v did not end by itself: %v\n%s", program, args, err, stderr.String())
	}
	return outcome{code: command.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String()}
}

// start starts a daemon that is to live, and returns how to end it.
func (p *place) start(more ...string) (stop func()) {
	p.t.Helper()
	log, err := os.Create(p.path("log"))
	if err != nil {
		p.t.Fatal(err)
	}
	command := exec.Command(p.programs.daemon, p.args(more...)...)
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		p.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	running := true
	stop = func() {
		if !running {
			return
		}
		running = false
		_ = command.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			if err != nil {
				p.t.Errorf("the daemon did not end in order: %v", err)
			}
		case <-time.After(patience):
			_ = command.Process.Kill()
			<-ended
			p.t.Error("the daemon did not end")
		}
		log.Close()
		if p.t.Failed() {
			text, _ := os.ReadFile(log.Name())
			p.t.Logf("log of the daemon:\n%s", text)
		}
	}
	p.t.Cleanup(stop)
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	conn, err := control.Dial(p.control)
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close()
	for {
		// It can be answered once the node is a member and serves its disks.
		_, err := holdfastv1.NewNodeAgentClient(conn).ListReplicas(ctx, &holdfastv1.ListReplicasRequest{})
		if err == nil {
			return stop
		}
		select {
		case err := <-ended:
			running = false
			text, _ := os.ReadFile(log.Name())
			p.t.Fatalf("the daemon ended: %v\n%s", err, text)
		case <-ctx.Done():
			p.t.Fatalf("the daemon does not answer: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// holdfast runs the command line against the daemon of the place.
func (p *place) holdfast(args ...string) outcome {
	p.t.Helper()
	return run(p.t, nil, p.programs.cli, append(args, "--server", p.control)...)
}

// wantRefused checks that a program ended with one clear line.
func wantRefused(t *testing.T, o outcome, code int, says string) {
	t.Helper()
	if o.code != code {
		t.Errorf("exit code %d, want %d", o.code, code)
	}
	if line := o.last(); !regexp.MustCompile(says).MatchString(line) {
		t.Errorf("it says\n%s\nwant %s", line, says)
	}
	if strings.Contains(o.stderr, "panic") || strings.Contains(o.stderr, "goroutine ") {
		t.Errorf("it panics:\n%s", o.stderr)
	}
}

// testWrongFlags: a command line that cannot be followed is refused with exit code
// 2 before anything is touched.
func testWrongFlags(t *testing.T, programs programs) {
	p := newPlace(t, programs)
	long := filepath.Join("/tmp", strings.Repeat("x", 120))
	for name, test := range map[string]struct {
		args []string
		says string
	}{
		"unknown flag":         {[]string{"--colour"}, `unknown flag: --colour; see holdfastd --help`},
		"an argument":          {[]string{"start"}, `argument "start" is too many`},
		"bootstrap and join":   {[]string{"--bootstrap", "--join", "127.0.0.1:1"}, `give only one of them`},
		"neither":              {nil, `belongs to no cluster yet: give --join and the control address of a member, or --bootstrap`},
		"no name":              {[]string{"--name", ""}, `--name must not be empty`},
		"control without port": {[]string{"--listen-control", "127.0.0.1"}, `--listen-control "127.0.0.1": want host:port`},
		"data without port":    {[]string{"--listen-data", "n1"}, `--listen-data "n1": want host:port`},
		"port 0":               {[]string{"--listen-raft", "127.0.0.1:0"}, `--listen-raft .*the port must be a number from 1 to 65535`},
		"port 70000":           {[]string{"--listen-raft", "127.0.0.1:70000"}, `the port must be a number from 1 to 65535`},
		"port by name":         {[]string{"--listen-metrics", "127.0.0.1:http"}, `--listen-metrics .*the port must be a number`},
		"debug without port":   {[]string{"--listen-debug", "6060"}, `--listen-debug "6060": want host:port`},
		"every address":        {[]string{"--listen-data", "0.0.0.0:7421"}, `give the host and port by which they reach it`},
		"every address, IPv6":  {[]string{"--listen-data", "[::]:7421"}, `give the host and port by which they reach it`},
		"no host":              {[]string{"--listen-control", ":7420"}, `give the host and port by which they reach it`},
		"one address twice":    {[]string{"--listen-raft", p.data}, `--listen-data and --listen-raft are both`},
		"join without port":    {[]string{"--join", "n2"}, `--join "n2": want host:port`},
		"join without host":    {[]string{"--join", ":7420"}, `--join ":7420": want host:port`},
		"over-provisioning":    {[]string{"--over-provisioning", "0"}, `--over-provisioning 0: want 0.1 to 100`},
		"disk-io":              {[]string{"--disk-io", "aio"}, `--disk-io "aio": want auto, io_uring or threads`},
		"disk-memory":          {[]string{"--disk-memory", "31"}, `--disk-memory 31: want 0, or 32 to 1048576`},
		"disk-memory unit":     {[]string{"--disk-memory", "1GiB"}, `invalid argument "1GiB" for "--disk-memory"`},
		"TLS without key":      {[]string{"--tls-cert", "c.pem", "--tls-ca", "ca.pem"}, `--tls-key is missing: give --tls-cert, --tls-key and --tls-ca, or none of them`},
		"frontend":             {[]string{"--frontend", "iscsi"}, `--frontend "iscsi": want auto, nbd, fuse or socket`},
		"log level":            {[]string{"--log-level", "loud"}, `--log-level "loud": want debug, info, warn or error`},
		"log format":           {[]string{"--log-format", "xml"}, `--log-format "xml": want text or json`},
		"bootstrap value":      {[]string{"--bootstrap=perhaps"}, `invalid argument "perhaps" for "--bootstrap"`},
		"no data dir":          {[]string{"--data-dir", ""}, `--data-dir and --run-dir must not be empty`},
		"one directory":        {[]string{"--run-dir", p.path("data")}, `--data-dir and --run-dir are both`},
		"long run dir":         {[]string{"--run-dir", long}, `--run-dir .* has 125 bytes: .*choose a shorter one`},
		"long control socket":  {[]string{"--control-socket", long}, `--control-socket .* has 125 bytes: .*choose a shorter one`},
	} {
		t.Run(name, func(t *testing.T) {
			wantRefused(t, run(t, nil, p.programs.daemon, p.args(test.args...)...), exitUsage, test.says)
		})
	}
	for name, test := range map[string]struct {
		args []string
		says string
	}{
		"name of two words": {[]string{"--bootstrap", "--name", "my node"}, `node: name "my node" contains ' '; letters, digits and`},
		"tag of two words":  {[]string{"--bootstrap", "--tag", "rack 1"}, `tag "rack 1" contains ' '`},
		"no such frontend":  {[]string{"--bootstrap", "--listen-data", "192.0.2.1:7421"}, `--listen-data 192.0.2.1:7421: .*: give an address of this machine`},
	} {
		t.Run(name, func(t *testing.T) {
			wantRefused(t, run(t, nil, p.programs.daemon, p.args(test.args...)...), exitFailed, test.says)
		})
	}
	if o := run(t, nil, p.programs.daemon, "--help"); o.code != 0 || !strings.Contains(o.stdout, "Exit codes:") || !strings.Contains(o.stdout, "--bootstrap --data-dir") {
		t.Errorf("help: exit code %d\n%s", o.code, o.stdout)
	}
	if o := run(t, nil, p.programs.daemon, "version"); o.code != 0 || !strings.HasPrefix(o.stdout, "holdfastd ") {
		t.Errorf("version: exit code %d, %q, %q", o.code, o.stdout, o.stderr)
	}
}

// testUnusableDirectories: what lies in the way is named, and is left as it is.
func testUnusableDirectories(t *testing.T, programs programs) {
	write := func(p *place, name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(p.path(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p.path(name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		prepare func(p *place)
		args    []string
		says    string
	}{
		"data dir is a file": {
			func(p *place) { write(p, "data", "mine") }, nil, `--data-dir: mkdir .*: not a directory: give a directory`,
		},
		"run dir is a file": {
			func(p *place) { write(p, "run", "mine") }, nil, `--run-dir: mkdir .*: not a directory: give a directory`,
		},
		"identity is damaged": {
			func(p *place) { write(p, "data/cluster/identity.json", "{") }, nil, `identity.json: .*corrupt: nothing was changed: restore the file`,
		},
		"identity of a later version": {
			func(p *place) { write(p, "data/cluster/identity.json", `{"version":99}`) }, nil,
			`version 99, this build knows 1: unsupported version: another version wrote it`,
		},
		"list of disks is damaged": {
			func(p *place) { write(p, "data/disks.json", "[") }, nil, `list of disks .*disks.json: .*restore it, or write`,
		},
		"something else at the control socket": {
			func(p *place) { write(p, "precious", "mine") }, []string{"--control-socket", "PLACE/precious"},
			`--control-socket .*: there is something else: choose another path`,
		},
		"control socket nowhere": {
			func(*place) {}, []string{"--control-socket", "PLACE/no/where"}, `--control-socket .*no such file or directory: choose another path`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t, programs)
			test.prepare(p)
			before := content(t, p.dir)
			args := []string{"--bootstrap"}
			for _, a := range test.args {
				args = append(args, strings.ReplaceAll(a, "PLACE", p.dir))
			}
			wantRefused(t, run(t, nil, programs.daemon, p.args(args...)...), exitFailed, test.says)
			after := content(t, p.dir)
			for file, text := range before {
				if after[file] != text {
					t.Errorf("%s became %q", file, after[file])
				}
			}
		})
	}
}

// content is every file below a directory.
func content(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		files[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// testWithoutPrivileges: a daemon that may not do what it must says what it lacks.
func testWithoutPrivileges(t *testing.T, programs programs) {
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root, to give it up")
	}
	p := newPlace(t, programs)
	nobody := &syscall.Credential{Uid: 65534, Gid: 65534}
	for _, dir := range []string{p.dir, filepath.Dir(p.programs.daemon), filepath.Dir(filepath.Dir(p.programs.daemon))} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	wantRefused(t, run(t, nobody, p.programs.daemon, p.args("--bootstrap")...), exitFailed,
		`--data-dir: mkdir .*: permission denied: give a directory that can be made and written, or run as root`)
	for _, dir := range []string{p.path("data"), p.path("run")} {
		if err := errors.Join(os.Mkdir(dir, 0o755), os.Chown(dir, 65534, 65534)); err != nil {
			t.Fatal(err)
		}
	}
	wantRefused(t, run(t, nobody, p.programs.daemon, p.args("--bootstrap", "--frontend", "auto")...), exitFailed,
		`volumes cannot be shown as devices here: .*run as root, on a machine with the kernel module nbd`)
	wantRefused(t, run(t, nobody, p.programs.daemon, p.args("--bootstrap", "--listen-metrics", "127.0.0.1:7")...), exitFailed,
		`--listen-metrics 127.0.0.1:7: permission denied: choose a port above 1023, or run as root`)
}

// testSecondDaemon: two daemons share neither directory, nor port, nor socket; the
// first does not notice the attempts.
func testSecondDaemon(t *testing.T, programs programs) {
	first, second := newPlace(t, programs), newPlace(t, programs)
	stop := first.start("--bootstrap", "--listen-metrics", first.http)
	for name, test := range map[string]struct{ flag, value, says string }{
		"data dir":       {"--data-dir", first.path("data"), `--data-dir: .*/data is in use by process \d+: stop that, or give this daemon a directory of its own`},
		"run dir":        {"--run-dir", first.path("run"), `--run-dir: .*/run is in use by process \d+`},
		"control port":   {"--listen-control", first.control, `--listen-control .*: address already in use: another process has it`},
		"data port":      {"--listen-data", first.data, `--listen-data .*: address already in use: another process has it`},
		"Raft port":      {"--listen-raft", first.raft, `--listen-raft .*: address already in use: another process has it`},
		"metrics port":   {"--listen-metrics", first.http, `--listen-metrics .*: address already in use: another process has it`},
		"debug port":     {"--listen-debug", first.http, `--listen-debug .*: address already in use: another process has it`},
		"control socket": {"--control-socket", first.path("run/holdfastd.sock"), `--control-socket .*: another process answers there`},
	} {
		t.Run(name, func(t *testing.T) {
			wantRefused(t, run(t, nil, programs.daemon, second.args("--bootstrap", test.flag, test.value)...), exitFailed, test.says)
		})
	}
	if o := first.holdfast("cluster", "status"); o.code != 0 {
		t.Errorf("the first daemon suffered: %s", o.stderr)
	}
	if o := run(t, nil, programs.cli, "cluster", "status", "--server", "unix://"+first.path("run/holdfastd.sock")); o.code != 0 {
		t.Errorf("the first daemon lost its socket: %s", o.stderr)
	}
	wantMarked(t, first)
	stop()
	// What was given up can be had.
	stop = second.start("--bootstrap", "--data-dir", first.path("data"), "--run-dir", first.path("run"))
	stop()
}

// testAnotherCluster: a node that belongs to one cluster is told so by another, and
// all of the daemon ends, whatever part of it found out.
func testAnotherCluster(t *testing.T, programs programs) {
	first, second, other := newPlace(t, programs), newPlace(t, programs), newPlace(t, programs)
	stopFirst := first.start("--bootstrap")
	stopSecond := second.start("--join", first.control, "--name", "n2")
	stopSecond()
	stopFirst()
	other.start("--bootstrap")
	// Its own cluster has no leader, so it asks there.
	wantRefused(t, run(t, nil, programs.daemon, second.args("--join", other.control, "--name", "n2", "--listen-metrics", second.http)...), exitFailed,
		`join cluster: .*it belongs to cluster [0-9a-f]{32}, this is cluster [0-9a-f]{32}.*: check --join and --data-dir`)
	// It is as it was.
	first.start()
	second.start()
}

// wantMarked checks that all threads of a daemon are marked as part of the I/O
// path (rule 32).
func wantMarked(t *testing.T, p *place) {
	t.Helper()
	if log, err := os.ReadFile(p.path("log")); err != nil || bytes.Contains(log, []byte("process is not marked as I/O flusher")) {
		t.Log("this machine does not permit the mark, and the daemon says so")
		return
	}
	pid, err := os.ReadFile(filepath.Join(p.path("data"), lockName))
	if err != nil {
		t.Fatal(err)
	}
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%s/task/*/stat", pid))
	if err != nil || len(threads) < 2 {
		t.Fatal(threads, err)
	}
	const memallocNoIO = 0x00080000 // PF_MEMALLOC_NOIO of the kernel's include/linux/sched.h
	for _, path := range threads {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		var flags uint64
		if _, err := fmt.Sscan(fields[6], &flags); err != nil || flags&memallocNoIO == 0 {
			t.Errorf("%s is not marked as I/O flusher: flags %s", path, fields[6])
		}
	}
}

// testUnusableDisks: a directory that cannot be a disk is refused by the command
// line's exit codes, in one line, and nothing in it is changed; a disk that is
// damaged later is shown as failed, and the rest of the node serves.
func testUnusableDisks(t *testing.T, programs programs) {
	p, other := newPlace(t, programs), newPlace(t, programs)
	stopOther := other.start("--bootstrap")
	mkdir := func(path string) {
		t.Helper()
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mkdir(other.path("held"))
	mkdir(other.path("foreign"))
	for _, name := range []string{"held", "foreign"} {
		if o := other.holdfast("disk", "add", other.path(name)); o.code != 0 {
			t.Fatal(o.stderr)
		}
	}
	stop := p.start("--bootstrap")
	mkdir(p.path("full"))
	if err := os.WriteFile(p.path("full/letter"), []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	mkdir(p.path("good"))
	mkdir(p.path("bad"))
	for _, name := range []string{"good", "bad"} {
		if o := p.holdfast("disk", "add", p.path(name), "--class", "ssd"); o.code != 0 {
			t.Fatal(o.stderr)
		}
	}
	mkdir(p.path("fresh"))
	for _, test := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"no such directory", []string{p.path("nowhere")}, 3, `no such directory`},
		{"a file", []string{p.path("full/letter")}, 2, `neither a directory nor a block device`},
		{"a device that is no block device", []string{"/dev/null"}, 2, `neither a directory nor a block device`},
		{"not empty", []string{p.path("full")}, 4, `the directory is not empty: it has letter`},
		{"relative", []string{"full"}, 2, `must be absolute`},
		{"unknown class", []string{p.path("fresh"), "--class", "tape"}, 2, `disk class "tape" is not one of nvme, ssd, hdd`},
		{"unknown node", []string{p.path("fresh"), "--node", "n7"}, 3, `node "n7" does not exist`},
		{"in use by another daemon", []string{other.path("held")}, 4, `in use`},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := content(t, p.path("full"))
			o := p.holdfast(append([]string{"disk", "add"}, test.args...)...)
			first, _, _ := strings.Cut(o.stderr, "\n")
			if o.code == 0 || test.code != 0 && o.code != test.code || !strings.Contains(first, test.says) {
				t.Errorf("exit code %d, want %d; it says\n%s\nwant %s", o.code, test.code, o.stderr, test.says)
			}
			if after := content(t, p.path("full")); len(after) != len(before) {
				t.Errorf("the directory has %v", after)
			}
		})
	}
	if entries, err := os.ReadDir(p.path("fresh")); err != nil || len(entries) != 0 {
		t.Errorf("a refused disk was formatted: %v %v", entries, err)
	}
	stopOther()
	if o := p.holdfast("disk", "add", other.path("foreign")); o.code == 0 || !strings.Contains(o.stderr, "belongs to another cluster") {
		t.Errorf("disk of another cluster: exit code %d: %s", o.code, o.stderr)
	}

	stop()
	damage(t, filepath.Join(p.path("bad"), "data"))
	stop = p.start()
	defer stop()
	var disks []struct{ Path, Failure string }
	deadline := time.Now().Add(patience)
	for failed := 0; failed != 1; {
		o := p.holdfast("disk", "list", "-o", "json")
		if err := json.Unmarshal([]byte(o.stdout), &disks); err != nil || len(disks) != 2 {
			t.Fatal(o.stdout, o.stderr, err)
		}
		failed = 0
		for _, d := range disks {
			if d.Failure != "" {
				failed++
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("disks: %+v", disks)
		}
	}
	for _, d := range disks {
		if bad := d.Path == p.path("bad"); bad != (d.Failure != "") {
			t.Errorf("disk %s: failure %q", d.Path, d.Failure)
		}
	}
	if o := p.holdfast("volume", "create", "v", "--size", "1MiB", "--replicas", "1"); o.code != 0 {
		t.Errorf("the good disk takes no volume: %s", o.stderr)
	}
}

// damage overwrites what a store begins with.
func damage(t *testing.T, path string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt(bytes.Repeat([]byte{0xa5}, 64<<10), 0); err != nil {
		t.Fatal(err)
	}
}
