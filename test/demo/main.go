// Command demo shows the main job on one machine, without Kubernetes and without
// kernel modules: three daemons and CSI plugins on loopback, a replicated volume
// that is made, staged and published by CSI calls alone, a database on it, and
// crashes of a replica and of the engine under load. Every step checks what it
// claims; with SABOTAGE=<step> the step is broken on purpose and must fail.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx, os.Getenv("SABOTAGE")); err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: FAILED: %v\n", err)
		os.Exit(1)
	}
}

// step is one part of the demo.
type step struct {
	name  string
	title string
	// limit bounds the step, so that what hangs fails.
	limit time.Duration
	run   func(*demo, context.Context) (string, error)
}

var steps = []step{
	{"cluster", "start three daemons with a disk each, and their CSI plugins", 60 * time.Second, (*demo).startCluster},
	{"volume", "create, publish, stage (ext4) and publish a volume with 3 replicas", 30 * time.Second, (*demo).makeVolume},
	{"data", "write 1 GiB and read it back", 90 * time.Second, (*demo).writeData},
	{"database", "start a SQLite database with 4 concurrent writers", 30 * time.Second, (*demo).startDatabase},
	{"replica-crash", "kill the daemon of a replica under load (SIGKILL)", 60 * time.Second, (*demo).crashReplica},
	{"resync", "start it again: only what was missed is copied", 60 * time.Second, (*demo).resync},
	{"engine-crash", "kill the daemon of the engine under load (SIGKILL), start it again", 60 * time.Second, (*demo).crashEngine},
	{"detach", "unpublish and unstage by CSI", 60 * time.Second, (*demo).detach},
	{"move", "stage on another node: every acknowledged row and every byte is there", 90 * time.Second, (*demo).move},
	{"equal", "read each replica from its own disk: all are equal", 90 * time.Second, (*demo).compareReplicas},
}

// cleanupLimit bounds the cleaning up.
const cleanupLimit = 60 * time.Second

func run(ctx context.Context, sabotage string) (err error) {
	if sabotage != "" && !slices.ContainsFunc(steps, func(s step) bool { return s.name == sabotage }) {
		return fmt.Errorf("SABOTAGE=%s: no such step; there are: %s", sabotage, stepNames())
	}
	d := &demo{sabotage: sabotage}
	began := time.Now()
	defer func() {
		// The demo cleans up also after a signal, so its context cannot serve.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupLimit)
		defer cancel()
		if cleanErr := d.cleanUp(ctx, err != nil); cleanErr != nil {
			err = errors.Join(err, fmt.Errorf("clean up: %w", cleanErr))
		}
		if err == nil {
			fmt.Printf("\nAll %d steps are as they should be; everything was cleaned up. %.1f s\n", len(steps), time.Since(began).Seconds())
		}
	}()
	for i, s := range steps {
		fmt.Printf("%2d. %-72s", i+1, s.title)
		if s.name == sabotage {
			fmt.Printf("\n    (sabotaged) ")
		}
		from := time.Now()
		result, err := s.once(ctx, d)
		if err != nil {
			fmt.Println()
			return fmt.Errorf("step %s: %w", s.name, err)
		}
		fmt.Printf(" %6.1f s\n", time.Since(from).Seconds())
		for line := range strings.Lines(result) {
			fmt.Printf("    %s\n", strings.TrimRight(line, "\n"))
		}
	}
	return nil
}

func (s step) once(ctx context.Context, d *demo) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.limit)
	defer cancel()
	d.broken = d.sabotage == s.name
	return s.run(d, ctx)
}

func stepNames() string {
	var names []string
	for _, s := range steps {
		names = append(names, s.name)
	}
	return strings.Join(names, ", ")
}

// pause waits for d or for the end of ctx.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
