// Command demo shows the main job on one machine, without Kubernetes and without
// kernel modules: three daemons and CSI plugins on loopback, a replicated volume
// that is made, staged and published by CSI calls alone, a database on it, and
// crashes of a replica and of the engine under load. Every step checks what it
// claims; with SABOTAGE=<step> the step is broken on purpose and must fail.
package main

import (
	"context"
	"time"

	"github.com/holdfast-io/holdfast/test/harness"
)

func main() { harness.Main("demo", run) }

func run(ctx context.Context, _ []string) error {
	d := &demo{}
	steps := d.steps()
	var names []string
	for _, s := range steps {
		names = append(names, s.Name)
	}
	sabotage, err := harness.Sabotaged(names)
	if err != nil {
		return err
	}
	return harness.Tell(ctx, steps, sabotage, d.cleanUp)
}

func (d *demo) steps() []harness.Step {
	step := func(name, title string, limit time.Duration, run func(context.Context) (string, error)) harness.Step {
		return harness.Step{Name: name, Title: title, Limit: limit, Run: func(ctx context.Context, sabotaged bool) (string, error) {
			d.broken = sabotaged
			return run(ctx)
		}}
	}
	return []harness.Step{
		step("cluster", "start three daemons with a disk each, and their CSI plugins", 60*time.Second, d.startCluster),
		step("volume", "create, publish, stage (ext4) and publish a volume with 3 replicas", 30*time.Second, d.makeVolume),
		step("data", "write 1 GiB and read it back", 90*time.Second, d.writeData),
		step("database", "start a SQLite database with 4 concurrent writers", 30*time.Second, d.startDatabase),
		step("replica-crash", "kill the daemon of a replica under load (SIGKILL)", 60*time.Second, d.crashReplica),
		step("resync", "start it again: only what was missed is copied", 60*time.Second, d.resync),
		step("engine-crash", "kill the daemon of the engine under load (SIGKILL), start it again", 60*time.Second, d.crashEngine),
		step("detach", "unpublish and unstage by CSI", 60*time.Second, d.detach),
		step("move", "stage on another node: every acknowledged row and every byte is there", 90*time.Second, d.move),
		step("equal", "read each replica from its own disk: all are equal", 90*time.Second, d.compareReplicas),
	}
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
