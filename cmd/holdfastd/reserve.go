package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// lockName is the file by whose lock a daemon holds a directory. It has the ID of
// its process.
const lockName = "holdfastd.lock"

// reserved is what a daemon takes before it reads or writes anything: two of them
// must never share a directory, and one that cannot listen changes nothing.
type reserved struct {
	control, data, raft net.Listener
	// socket is the control API's unix socket.
	socket net.Listener
	// metrics and debug are nil unless they were asked for.
	metrics, debug net.Listener
	locks          []*os.File
}

// reserve takes the directories and addresses of a configuration.
func reserve(ctx context.Context, c *config) (_ *reserved, err error) {
	r := &reserved{}
	defer func() {
		if err != nil {
			r.release()
		}
	}()
	for _, dir := range []struct{ flag, path string }{{"--data-dir", c.dataDir}, {"--run-dir", c.runDir}} {
		lock, err := reserveDir(dir.flag, dir.path)
		if err != nil {
			return nil, err
		}
		r.locks = append(r.locks, lock)
	}
	for _, l := range []struct {
		flag, address string
		listener      *net.Listener
	}{
		{"--listen-control", c.listenControl, &r.control},
		{"--listen-data", c.listenData, &r.data},
		{"--listen-raft", c.listenRaft, &r.raft},
		{"--listen-metrics", c.listenMetrics, &r.metrics},
		{"--listen-debug", c.listenDebug, &r.debug},
	} {
		if l.address == "" {
			continue
		}
		if *l.listener, err = listen(ctx, l.flag, l.address); err != nil {
			return nil, err
		}
	}
	if r.socket, err = listenUnix(ctx, c.controlSocket); err != nil {
		return nil, err
	}
	return r, nil
}

// reserveDir makes a directory, if it is not there, and locks it.
func reserveDir(flag, path string) (*os.File, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("%s: %w: give a directory that can be made and written, or run as root", flag, err)
	}
	name := filepath.Join(path, lockName)
	lock, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: give a directory that can be written, or run as root", flag, err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder := "another process"
		if pid, readErr := os.ReadFile(name); readErr == nil && len(pid) > 0 {
			holder = "process " + string(pid)
		}
		lock.Close()
		return nil, fmt.Errorf("%s: %s is in use by %s: stop that, or give this daemon a directory of its own", flag, path, holder)
	}
	if err := errors.Join(lock.Truncate(0), writeAll(lock, strconv.Itoa(os.Getpid()))); err != nil {
		lock.Close()
		return nil, fmt.Errorf("%s: %w: is its file system full?", flag, err)
	}
	return lock, nil
}

func writeAll(file *os.File, text string) error {
	_, err := file.WriteAt([]byte(text), 0)
	return err
}

// listen listens on a TCP address that a flag gave.
func listen(ctx context.Context, flag, address string) (net.Listener, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", address)
	if err == nil {
		return listener, nil
	}
	advice := "give an address of this machine"
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		advice = "another process has it; stop that, or choose another port"
	case errors.Is(err, unix.EACCES):
		advice = "choose a port above 1023, or run as root"
	}
	return nil, fmt.Errorf("%s %s: %w: %s", flag, address, cause(err), advice)
}

// listenUnix listens on the control socket. One that a daemon left is replaced, one
// that is answered is not.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	const flag = "--control-socket"
	var dialer net.Dialer
	answered, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if conn, err := dialer.DialContext(answered, "unix", path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("%s %s: another process answers there: stop that, or choose another path", flag, path)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("%s %s: there is something else: choose another path", flag, path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w: choose another path, or run as root", flag, err)
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: choose another path, in a directory that exists", flag, path, cause(err))
	}
	return listener, nil
}

// cause is what the system said, without what net adds to it.
func cause(err error) error {
	var operation *net.OpError
	if errors.As(err, &operation) {
		err = operation.Err
	}
	var call *os.SyscallError
	if errors.As(err, &call) {
		err = call.Err
	}
	return err
}

// release gives everything back. Who uses a listener has closed it already.
func (r *reserved) release() {
	for _, l := range []net.Listener{r.control, r.data, r.raft, r.socket, r.metrics, r.debug} {
		if l != nil {
			l.Close()
		}
	}
	for _, lock := range r.locks {
		lock.Close()
	}
}
