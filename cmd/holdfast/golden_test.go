package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden runs the command lines of each file of testdata and compares what
// they print. A line of a file is
//
//	# a comment
//	$ holdfast ...      a command line; what follows is its output
//	! ...               what it wrote to standard error
//	[exit N]            its exit code, if not 0
//	@ degrade NAME      something that happens to the cluster or to this machine:
//	                    degrade, starve and lose a volume, make an image, be without programs,
//	                    moves of replicas go a step on [away: their node is down],
//	                    reverting NAME, scrubs NAME, scrubbed NAME clean|damaged|partly
//
// The commands run in an empty folder.
//
// -update writes the files anew; read the diff.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			file, err := filepath.Abs(file)
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := replay(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(want) {
				t.Errorf("%s differs (go test -update writes it anew): %s", filepath.Base(file), firstDifference(string(want), got))
			}
		})
	}
}

func firstDifference(want, got string) string {
	wants, gots := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(wants), len(gots)) {
		if wants[i] != gots[i] {
			return fmt.Sprintf("line %d is\n%s\nwant\n%s", i+1, gots[i], wants[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(gots), len(wants))
}

// replay runs a golden file against a cluster of its own and returns the file as
// it should be.
func replay(t *testing.T, script string) string {
	t.Helper()
	cluster := newCannedCluster(t)
	t.Chdir(t.TempDir())
	var b strings.Builder
	for _, line := range strings.Split(strings.TrimRight(script, "\n"), "\n") {
		switch {
		case strings.HasPrefix(line, "#"):
			b.WriteString(line + "\n")
		case strings.HasPrefix(line, "@ "):
			b.WriteString(line + "\n")
			event := strings.Fields(line)[1:]
			switch event[0] {
			case "degrade":
				cluster.degrade(event[1])
			case "fill":
				cluster.fill(event[1])
			case "lose":
				cluster.lose(event[1])
			case "without":
				t.Setenv("PATH", "")
			case "image":
				makeImage(t, event[1:])
			case "reverting":
				cluster.reverting(event[1])
			case "starve":
				cluster.starve(event[1])
			case "moves":
				cluster.moves(len(event) > 1 && event[1] == "away")
			case "scrubs":
				cluster.scrubs(event[1])
			case "scrubbed":
				cluster.scrubbed(event[1], event[2])
			default:
				t.Fatalf("unknown event %q", line)
			}
		case strings.HasPrefix(line, "$ holdfast"):
			b.WriteString(line + "\n" + runLine(t, cluster, strings.Fields(line)[2:]))
		}
	}
	return b.String()
}

// makeImage runs qemu-img create, of the folder's own files.
func makeImage(t *testing.T, args []string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "qemu-img", append([]string{"create", "-q"}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img create %v: %v: %s", args, err, out)
	}
}

func runLine(t *testing.T, cluster *cannedCluster, args []string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), append([]string{"--server", cluster.nodes[0].ControlAddress}, args...), &stdout, &stderr)
	var b strings.Builder
	b.WriteString(stdout.String())
	for line := range strings.Lines(stderr.String()) {
		b.WriteString("! " + line)
	}
	if code != 0 {
		b.WriteString("[exit " + string(rune('0'+code)) + "]\n")
	}
	b.WriteString("\n")
	// The ports and the folder differ from run to run. (So would the width of a table that shows
	// them: tables with addresses are tested in table_test.go.)
	text := b.String()
	if dir, err := os.Getwd(); err == nil {
		text = strings.ReplaceAll(text, dir+"/", "")
	}
	for _, node := range cluster.nodes {
		text = strings.ReplaceAll(text, node.ControlAddress, node.Name+":control")
	}
	return text
}
