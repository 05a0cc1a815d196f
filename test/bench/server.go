package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/holdfast-io/holdfast/test/harness"
)

// socketPath is where the server called name listens, below dir.
func socketPath(dir, name string) string { return filepath.Join(dir, name+".sock") }

// socketTarget is the default export of the server called name.
func socketTarget(dir, name string) target {
	return nbdTarget("nbd+unix:///?socket=" + socketPath(dir, name))
}

// startServer starts an NBD server that listens at socketPath, and waits until it does.
// It is ended by endServer, not with the context of its start. What it says is kept below
// dir, unless the command has a place for it.
func startServer(ctx context.Context, dir, name string, cmd *exec.Cmd) error {
	cmd.SysProcAttr = childOfOurs()
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	if cmd.Stderr = log; cmd.Stdout == nil {
		cmd.Stdout = log
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	err = harness.Wait(ctx, name+" to listen", func(ctx context.Context) error {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "unix", socketPath(dir, name))
		if err != nil {
			return err
		}
		return conn.Close()
	})
	if err != nil {
		text, _ := os.ReadFile(log.Name())
		return errors.Join(fmt.Errorf("%w: %s", err, lastLines(text)), endServer(cmd))
	}
	return nil
}

// endServer ends a server that was started.
func endServer(cmd *exec.Cmd) error {
	err := cmd.Process.Kill()
	// It was killed; how it ended tells nothing.
	_ = cmd.Wait()
	return err
}

// processOf is the process of a server.
func processOf(cmd *exec.Cmd) func() []int { return func() []int { return []int{cmd.Process.Pid} } }
