// Command powercut runs in a guest as root. It drives a replica store on a real file
// system whose device forgets, or fails, and checks what is left.
//
// powercut replay FS DISK LOG COPY SCRATCH: the file system is on DISK under
// dm-log-writes, which notes every write and flush on LOG, and the store marks there
// what it was told to be flushed. Then the log is replayed onto COPY, to each mark and
// to entries between, and each time a snapshot of COPY (its changes go to SCRATCH) is
// mounted and the store on it opened and compared.
//
// powercut flakey DISK OTHER: two stores, one of them on dm-flakey, which loses all
// writes or fails them for a while. Only that store may fail, and what it had reported
// as flushed before is there afterwards.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "powercut:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, arguments []string) error {
	switch {
	case len(arguments) == 6 && arguments[0] == "replay":
		return replay(ctx, arguments[1], arguments[2], arguments[3], arguments[4], arguments[5])
	case len(arguments) == 3 && arguments[0] == "flakey":
		for _, feature := range []string{"drop_writes", "error_writes"} {
			if err := flakey(ctx, feature, arguments[1], arguments[2]); err != nil {
				return fmt.Errorf("%s: %w", feature, err)
			}
		}
		return nil
	default:
		return fmt.Errorf("arguments %q are not those of the package comment", arguments)
	}
}
