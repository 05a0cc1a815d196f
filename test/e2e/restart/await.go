package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// awaitLimit is what a step of the scenario may take in a slow guest.
const awaitLimit = 90 * time.Second

// await repeats try until it succeeds; past awaitLimit it reports the last error.
func await(ctx context.Context, what string, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, awaitLimit)
	defer cancel()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited for %s: %w", what, err)
		case <-time.After(pollPause):
		}
	}
}

// command runs a program and keeps what it says for its error.
func command(ctx context.Context, name string, arguments ...string) error {
	out, err := exec.CommandContext(ctx, name, arguments...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(arguments, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
