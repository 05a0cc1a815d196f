package harness

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// lifeTimeout bounds the test of a cluster, lease and elections included.
const lifeTimeout = 2 * time.Minute

// TestClusterOfRealDaemons: a node that is killed, stopped or frozen is missed, and
// is a member again afterwards; nothing is left on the machine.
func TestClusterOfRealDaemons(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("disks and devices need root, which make test has")
	}
	buildCtx, cancelBuild := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancelBuild()
	binaries, err := Build(buildCtx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), lifeTimeout)
	defer cancel()
	c, err := Start(ctx, Options{Binaries: binaries})
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	defer func() {
		if !stopped {
			t.Logf("%s", c.LogTails())
			t.Log(c.Stop(context.WithoutCancel(ctx)))
		}
	}()
	if err := c.AddDisks(ctx, "ssd"); err != nil {
		t.Fatal(err)
	}
	last := c.Nodes[2]
	if c.Node(last.ID()) != last {
		t.Errorf("node %s is not found by its ID %q", last.Name, last.ID())
	}

	pid := last.PID()
	if err := errors.Join(last.Kill(), last.Start(ctx), c.WaitAlive(ctx, c.Nodes...)); err != nil {
		t.Fatal(err)
	}
	if last.PID() == pid || !last.Running() {
		t.Errorf("the killed node is process %d, as before", last.PID())
	}
	if err := errors.Join(last.Stop(ctx), last.Start(ctx), c.WaitAlive(ctx, c.Nodes...)); err != nil {
		t.Fatal(err)
	}
	if err := last.Freeze(); err != nil {
		t.Fatal(err)
	}
	err = Wait(ctx, "the frozen node to be missed", func(ctx context.Context) error {
		list, err := c.Nodes[0].Cluster().ListNodes(ctx, &holdfastv1.ListNodesRequest{})
		for _, n := range list.GetNodes() {
			if n.GetId() == last.ID() && n.GetAlive() {
				return errors.New("it counts as alive")
			}
		}
		return err
	})
	if err := errors.Join(err, last.Thaw(), c.WaitAlive(ctx, c.Nodes...)); err != nil {
		t.Fatal(err)
	}

	stopped = true
	for range 2 {
		if err := c.Stop(ctx); err != nil {
			t.Errorf("stopping answers %v", err)
		}
	}
	if _, err := os.Stat(c.Dir); !os.IsNotExist(err) {
		t.Errorf("%s is left behind", c.Dir)
	}
	if left, err := filepath.Glob("/dev/" + filepath.Base(c.Dir) + "*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
