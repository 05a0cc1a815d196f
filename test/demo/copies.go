package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"

	"github.com/holdfast-io/holdfast/test/harness"
)

// compare lets qemu-img compare two copies.
func compare(ctx context.Context, a, b harness.Copy) error {
	out, err := exec.CommandContext(ctx, "qemu-img", "compare", "-f", "raw", "-F", "raw", a.URI(), b.URI()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("qemu-img compare of the replicas on %s and %s: %w: %s", a.Node.Name, b.Node.Name, err, strings.TrimSpace(string(out)))
	}
	return nil
}
