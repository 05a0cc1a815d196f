// Command holdfastd is the daemon that runs on every node: it serves the
// replicas on the node's disks, hosts the engines of the volumes attached to the
// node, and is a member of the cluster's Raft group.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := newCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "holdfastd:", err)
		os.Exit(1)
	}
}
