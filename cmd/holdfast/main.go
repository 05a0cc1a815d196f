// Command holdfast is the command line of a cluster; installed as
// kubectl-holdfast it is a kubectl plugin. It holds flags and output only: what it
// does is the control API of the daemons (proto/holdfast/v1).
//
// A file has one subject: one command or a few of a kind each, and session.go the
// connection, wait.go the waiting, qemu.go the program qemu-img, table.go the output,
// size.go the units, progress.go the bars, failure.go errors and exit codes.
package main

import (
	"context"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
