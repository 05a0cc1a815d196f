package harness

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Main is the main function of a test program: run's context ends with a signal, and
// its error becomes the exit code: 1, or 130 after a signal.
func Main(name string, run func(ctx context.Context, args []string) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	switch err := run(ctx, os.Args[1:]); {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case ctx.Err() != nil:
		fmt.Fprintf(os.Stderr, "%s: interrupted: %v\n", name, err)
		os.Exit(130)
	default:
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// Step is one part of the story that a test program tells.
type Step struct {
	Name, Title string
	// Limit bounds the step, so that what hangs fails.
	Limit time.Duration
	// Run returns what there is to say. Sabotaged, it has to fail.
	Run func(ctx context.Context, sabotaged bool) (string, error)
}

// Once runs the step in its time.
func (s *Step) Once(ctx context.Context, sabotaged bool) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.Limit)
	defer cancel()
	result, err := s.Run(ctx, sabotaged)
	if err != nil {
		return "", fmt.Errorf("step %s: %w", s.Name, err)
	}
	return result, nil
}

// Sabotaged is the step that the environment asks to have broken, empty for none.
func Sabotaged(names []string) (string, error) {
	name := os.Getenv("SABOTAGE")
	if name != "" && !slices.Contains(names, name) {
		return "", fmt.Errorf("SABOTAGE=%s: no step that can be broken; there are %s: %w", name, strings.Join(names, ", "), block.ErrInvalid)
	}
	return name, nil
}

// cleanupLimit bounds what Tell does last.
const cleanupLimit = 2 * time.Minute

// Tell runs the steps one after the other, prints what comes of each, and cleans up,
// also after an error or a signal.
func Tell(ctx context.Context, steps []Step, sabotage string, cleanUp func(ctx context.Context, failed bool) error) (err error) {
	began := time.Now()
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupLimit)
		defer cancel()
		if cleanErr := cleanUp(ctx, err != nil); cleanErr != nil {
			err = errors.Join(err, fmt.Errorf("clean up: %w", cleanErr))
		}
		if err == nil {
			fmt.Printf("\nAll %d steps are as they should be; everything was cleaned up. %.1f s\n", len(steps), time.Since(began).Seconds())
		}
	}()
	for i := range steps {
		s := &steps[i]
		fmt.Printf("%2d. %-72s", i+1, s.Title)
		if s.Name == sabotage {
			fmt.Printf("\n    (sabotaged) ")
		}
		from := time.Now()
		result, err := s.Once(ctx, s.Name == sabotage)
		if err != nil {
			fmt.Println()
			return err
		}
		fmt.Printf(" %6.1f s\n", time.Since(from).Seconds())
		for line := range strings.Lines(result) {
			fmt.Printf("    %s\n", strings.TrimRight(line, "\n"))
		}
	}
	return nil
}
