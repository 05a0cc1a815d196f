package conformance

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/test/harness"
)

// sum exports volume db and returns the SHA-256 of all of it.
func (c *images) sum(t *testing.T) string {
	t.Helper()
	c.must(t, "volume", "export", "db", c.file("sum.raw"))
	defer os.Remove(c.file("sum.raw"))
	return sumOf(t, c.file("sum.raw"))
}

func sumOf(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// noise makes a raw image of random bytes.
func (c *images) noise(t *testing.T, name string, size int64) {
	t.Helper()
	f, err := os.Create(c.file(name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(f, rand.Reader, size); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// shownRevert is what volume show says of a volume and its revert.
type shownRevert struct {
	State  string
	Copies []struct{ Node string }
	Revert *struct {
		KeptAs                string
		Done                  bool
		DoneBytes, TotalBytes int64
	}
}

func (c *images) shown(t *testing.T, n *harness.Node) (shown shownRevert, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, binaries.CommandLine, "--server", "unix://"+n.Socket, "volume", "show", "db", "-o", "json").Output()
	if err == nil {
		err = json.Unmarshal(out, &shown)
	}
	return shown, err
}

// TestRevertOnTheCommandLine: to a snapshot, back to what was kept, and without keeping
// anything; not while the volume is attached.
func TestRevertOnTheCommandLine(t *testing.T) {
	c := newImages(t)
	c.disk(t, "a", 64*mib)
	c.disk(t, "b", 64*mib)
	c.must(t, "volume", "import", "db", c.file("a.raw"))
	a := c.sum(t)
	c.must(t, "snapshot", "create", "db", "monday")
	c.must(t, "volume", "import", "db", c.file("b.raw"))
	b := c.sum(t)
	c.must(t, "snapshot", "create", "db", "tuesday")
	said := c.must(t, "volume", "revert", "db", "monday")
	_, kept, found := strings.Cut(strings.TrimSuffix(strings.TrimSpace(said), "."), "What it was until now is snapshot ")
	if !found || !strings.HasPrefix(kept, "before-revert-") || !strings.Contains(said, "Volume db is what it was at snapshot monday.") {
		t.Fatalf("a revert says %s", said)
	}
	if got := c.sum(t); got != a {
		t.Errorf("after the revert the volume is %s, at the snapshot it was %s, before %s", got, a, b)
	}
	c.must(t, "volume", "revert", "db", kept)
	if got := c.sum(t); got != b {
		t.Errorf("back again the volume is %s, it was %s", got, b)
	}
	c.must(t, "volume", "expand", "db", "--size", "80MiB")
	if said = c.must(t, "volume", "revert", "db", "monday", "--discard-head"); strings.Contains(said, "What it was") {
		t.Errorf("a revert that keeps nothing says %s", said)
	}
	c.must(t, "volume", "export", "db", c.file("larger.raw"))
	if err := os.Truncate(c.file("larger.raw"), 64*mib); err != nil {
		t.Fatal(err)
	}
	if got := sumOf(t, c.file("larger.raw")); got != a {
		t.Errorf("the larger volume is %s, want %s", got, a)
	}
	c.must(t, "volume", "attach", "db")
	if out, err := c.holdfast(t.Context(), "volume", "revert", "db", "tuesday"); err == nil || !strings.Contains(out, "take it off there first") {
		t.Errorf("an attached volume: %s, %v", out, err)
	}
	c.must(t, "volume", "detach", "db")
	c.must(t, "volume", "revert", "db", "tuesday")
	c.must(t, "volume", "expand", "db", "--size", "80MiB")
	var list []struct{ Name string }
	if err := json.Unmarshal([]byte(c.must(t, "snapshot", "list", "-o", "json")), &list); err != nil || len(list) != 5 {
		t.Errorf("the snapshots are %+v, %v", list, err)
	}
}

// TestRevertSurvivesItsDaemon: with a replica down, the daemon that reverts a volume is
// killed in the middle. The revert ends by itself, nobody gets the volume before, and every
// replica has what the snapshot had.
func TestRevertSurvivesItsDaemon(t *testing.T) {
	c := newImages(t)
	const size = 192 * mib
	c.noise(t, "a.raw", size)
	c.noise(t, "b.raw", size)
	c.must(t, "volume", "import", "db", c.file("a.raw"))
	want := c.sum(t)
	c.must(t, "snapshot", "create", "db", "monday")
	c.must(t, "volume", "import", "db", c.file("b.raw"))
	begun, err := c.shown(t, c.Nodes[0])
	if err != nil {
		t.Fatal(err)
	}
	// Without other trouble it is the first replica's node that does the work.
	var worker, away *harness.Node
	for _, n := range c.Nodes {
		switch n.Name {
		case begun.Copies[0].Node:
			worker = n
		case begun.Copies[2].Node:
			away = n
		}
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(away.Kill())
	asking := make(chan error, 1)
	ctx, giveUp := context.WithTimeout(t.Context(), moveTimeout)
	defer giveUp()
	go func() {
		asking <- exec.CommandContext(ctx, binaries.CommandLine, "--server", "unix://"+worker.Socket, "volume", "revert", "db", "monday").Run()
	}()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	middle := false
	for deadline := time.Now().Add(moveTimeout); ; <-ticker.C {
		shown, err := c.shown(t, worker)
		if r := shown.Revert; err == nil && r != nil && (r.DoneBytes > 0 || r.Done) {
			middle = !r.Done
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the revert does not begin: %+v, %v", shown, err)
		}
	}
	check(worker.Kill())
	giveUp() // it would wait for a daemon to answer
	<-asking // by a daemon that died, or because it was done
	if !middle {
		t.Error("the revert was over before its daemon was killed: it needs more bytes")
	}
	check(worker.Start(t.Context()))
	check(c.WaitAlive(t.Context(), worker))
	for deadline := time.Now().Add(moveTimeout); ; <-ticker.C {
		shown, err := c.shown(t, worker)
		if err == nil && shown.State == "ready" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the revert does not end: %+v, %v", shown, err)
		}
	}
	check(away.Start(t.Context()))
	check(c.WaitAlive(t.Context(), c.Nodes...))
	for _, n := range c.Nodes {
		ctx, cancel := context.WithTimeout(t.Context(), moveTimeout)
		on := func(args ...string) {
			t.Helper()
			out, err := exec.CommandContext(ctx, binaries.CommandLine, append([]string{"--server", "unix://" + n.Socket}, args...)...).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %v: %s", args, err, out)
			}
		}
		// An engine reads its own node's replica.
		on("volume", "attach", "db")
		on("volume", "wait", "db")
		on("volume", "detach", "db")
		on("volume", "export", "db", c.file("sum.raw"))
		cancel()
		if got := sumOf(t, c.file("sum.raw")); got != want {
			t.Errorf("on node %s the volume is %s, at the snapshot it was %s", n.Name, got, want)
		}
		check(os.Remove(c.file("sum.raw")))
	}
}
