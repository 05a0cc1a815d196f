package conformance

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// guideTimeout bounds the whole guide.
const guideTimeout = 2 * time.Minute

// guideStep is one command of a guide and what it says there that it prints.
type guideStep struct {
	command string
	output  string
}

// guideSteps reads the console blocks of a guide: "$ " begins a command, "> "
// continues it, all else is output.
func guideSteps(text string) []guideStep {
	var steps []guideStep
	inside := false
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "```"):
			inside = line == "```console\n"
		case !inside:
		case strings.HasPrefix(line, "$ "):
			steps = append(steps, guideStep{command: line[2:]})
		case strings.HasPrefix(line, "> "):
			steps[len(steps)-1].command += line[2:]
		default:
			steps[len(steps)-1].output += line
		}
	}
	return steps
}

// guideScript runs the steps in one shell, as a reader does; the output of each
// is kept in a file.
func guideScript(steps []guideStep) string {
	var script strings.Builder
	// The daemons' addresses are the guide's: a network of its own has room for them.
	script.WriteString("set -eu\nip link set lo up\n")
	for i, s := range steps {
		fmt.Fprintf(&script, "echo %d > ../step\n{\n%s} > ../out.%d\n", i, s.command, i)
	}
	return script.String()
}

// TestGettingStarted does what docs/getting-started.md says.
func TestGettingStarted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("devices and mounts need root, which make test has")
	}
	text, err := os.ReadFile("../../docs/getting-started.md")
	if err != nil {
		t.Fatal(err)
	}
	steps := guideSteps(string(text))
	if len(steps) < 10 {
		t.Fatalf("only %d commands are found in the guide", len(steps))
	}
	base := t.TempDir()
	work := filepath.Join(base, "work")
	if err := os.Mkdir(work, 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), guideTimeout)
	defer cancel()
	// The namespaces end everything that the guide has started when it fails.
	cmd := exec.CommandContext(ctx, "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
		"bash", "-c", guideScript(steps))
	cmd.Dir = work
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(binaries.Daemon)+":"+os.Getenv("PATH"))
	cmd.WaitDelay = time.Second
	said, err := cmd.CombinedOutput()
	if err != nil {
		at, _ := os.ReadFile(filepath.Join(base, "step"))
		var n int
		if _, err := fmt.Sscan(string(at), &n); err != nil {
			t.Fatalf("nothing was run: %s", said)
		}
		logs, _ := exec.Command("bash", "-c", "tail -n 5 "+work+"/*.log").Output()
		t.Fatalf("%v: %s\n%s\n%s", err, steps[n].command, said, logs)
	}
	for i, s := range steps {
		got, err := os.ReadFile(filepath.Join(base, fmt.Sprintf("out.%d", i)))
		if err != nil {
			t.Error(err)
		}
		if s.output != "" && string(got) != s.output {
			t.Errorf("%s\nprints\n%s\nnot\n%s", s.command, got, s.output)
		}
	}
}
