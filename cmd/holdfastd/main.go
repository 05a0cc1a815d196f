// Command holdfastd is the daemon that runs on every node: it serves the
// replicas on the node's disks, hosts the engines of the volumes attached to the
// node, and is a member of the cluster's Raft group.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Exit codes, explained by the help.
const (
	exitFailed = 1
	exitUsage  = 2
)

// usageError is a command line that cannot be followed: trying again is in vain.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	err := newCommand().ExecuteContext(ctx)
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "holdfastd:", oneLine(err))
	var usage usageError
	if errors.As(err, &usage) {
		os.Exit(exitUsage)
	}
	os.Exit(exitFailed)
}

// oneLine is an error as one line that says what to do.
func oneLine(err error) string {
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	for _, known := range []struct {
		sentinel error
		advice   string
	}{
		{block.ErrVersion, "another version wrote it: start that version, or a later one; nothing was changed"},
		{block.ErrCorrupt, "nothing was changed: restore the file, or move --data-dir away and let the node join its cluster anew with --join"},
		{block.ErrForeign, "check --join and --data-dir: a node that is to enter another cluster needs an empty --data-dir"},
	} {
		if errors.Is(err, known.sentinel) {
			return text + ": " + known.advice
		}
	}
	return text
}
