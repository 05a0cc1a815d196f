package harness

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
)

// Binaries are the programs of a build.
type Binaries struct {
	Daemon, Plugin, CommandLine string
}

// Build compiles the programs of this module into dir, with the race detector if
// the caller has it. flags are more of them for go build.
func Build(ctx context.Context, dir string, flags ...string) (Binaries, error) {
	module, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return Binaries{}, fmt.Errorf("find the module: %w", err)
	}
	args := []string{"build", "-o", dir + string(filepath.Separator)}
	if hasRaceDetector() {
		args = append(args, "-race")
	}
	args = append(args, flags...)
	args = append(args, "./cmd/holdfastd", "./cmd/holdfast-csi", "./cmd/holdfast")
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = filepath.Dir(strings.TrimSpace(string(module)))
	if out, err := cmd.CombinedOutput(); err != nil {
		return Binaries{}, fmt.Errorf("build: %w\n%s", err, out)
	}
	return BinariesIn(dir), nil
}

// BinariesIn are the programs that lie in dir.
func BinariesIn(dir string) Binaries {
	return Binaries{
		Daemon:      filepath.Join(dir, "holdfastd"),
		Plugin:      filepath.Join(dir, "holdfast-csi"),
		CommandLine: filepath.Join(dir, "holdfast"),
	}
}

// hasRaceDetector reports whether this program was built with -race.
func hasRaceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "-race" && s.Value == "true" })
}
