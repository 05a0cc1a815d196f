// Restart is the scenario of test/e2e that runs inside the guest: three daemons on
// loopback, a volume with three replicas, the kernel's NBD device, ext4, fio; under
// that load the daemon with the engine is killed and started again, then the one of
// another replica. No error may reach fio or the kernel's log, everything fio wrote
// must verify, and in the end all replicas are in sync.
//
// It expects holdfastd beside itself, three empty disks as arguments, and a machine
// that it may fill with processes and mounts. With one argument, a device that is
// mounted already, it only puts the load on it and judges that: this is how its
// checks are shown to see an error.
//
// With "pauses" and a number before the disks it kills the daemon with the engine that
// often, under writers on the device itself, and writes the longest times without an
// acknowledged write, in nanoseconds, into /host/out/pauses.json.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

// scenarioLimit bounds the whole run; the test outside has a shorter limit where it
// knows one.
const scenarioLimit = time.Hour

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), scenarioLimit)
	defer cancel()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "FAILED:", err)
		cancel()
		os.Exit(1)
	}
}

// run builds the cluster and walks through the scenario.
func run(ctx context.Context, disks []string) error {
	if len(disks) == 1 {
		return runLoad(ctx, disks[0])
	}
	if len(disks) > 2 && disks[0] == "pauses" {
		samples, err := strconv.Atoi(disks[1])
		if err != nil {
			return err
		}
		return withCluster(ctx, disks[2:], func(c *cluster) error { return c.pauses(ctx, samples) })
	}
	return withCluster(ctx, disks, func(c *cluster) error { return c.scenario(ctx) })
}

// withCluster starts a daemon on each disk, and stops them in the end.
func withCluster(ctx context.Context, disks []string, use func(*cluster) error) (err error) {
	if len(disks) != 3 {
		return fmt.Errorf("three disks are needed, not %d", len(disks))
	}
	if err := command(ctx, "modprobe", "nbd", "nbds_max=4"); err != nil {
		return err
	}
	c := &cluster{}
	defer func() { err = errors.Join(err, c.stop()) }()
	for i, disk := range disks {
		step("start node %d", i+1)
		if err := c.addNode(ctx, disk); err != nil {
			return fmt.Errorf("start node %d: %w", i+1, err)
		}
	}
	return use(c)
}

// scenario lets fio write while daemons are killed.
func (c *cluster) scenario(ctx context.Context) error {
	v, err := c.attach(ctx)
	if err != nil {
		return err
	}
	if err := v.mount(ctx); err != nil {
		return err
	}
	step("fio writes at random and verifies")
	load := startLoad(ctx, v.device)
	defer load.stop()
	if err := c.ordeal(ctx, v, load); err != nil {
		return err
	}
	step("the last round of fio ends")
	if err := load.wait(); err != nil {
		return err
	}
	if err := checkKernelLog(); err != nil {
		return err
	}
	if err := v.unmount(ctx); err != nil {
		return err
	}
	return c.detach(ctx, v)
}

// runLoad puts one round of the load on a mounted device and reports all that was
// seen of errors.
func runLoad(ctx context.Context, device string) error {
	load := startLoad(ctx, device)
	return errors.Join(load.wait(), checkKernelLog())
}

// ordeal kills daemons under the load and waits until the volume has recovered.
func (c *cluster) ordeal(ctx context.Context, v *volume, load *load) error {
	for _, kill := range []struct {
		what string
		node int
	}{
		{"the daemon with the engine", 0},
		{"it again", 0},
		{"a daemon with a replica", 1},
	} {
		if err := load.progress(ctx); err != nil {
			return fmt.Errorf("before killing %s: %w", kill.what, err)
		}
		step("kill %s", kill.what)
		if err := c.nodes[kill.node].kill(); err != nil {
			return err
		}
		if kill.node != 0 {
			// Without the replica the volume goes on: that is waited for here.
			if err := load.progress(ctx); err != nil {
				return fmt.Errorf("while node %d is down: %w", kill.node+1, err)
			}
		}
		began := time.Now()
		if err := c.nodes[kill.node].start(ctx); err != nil {
			return err
		}
		if err := load.progress(ctx); err != nil {
			return fmt.Errorf("after killing %s: %w", kill.what, err)
		}
		step("I/O goes on %.1f s after the start", time.Since(began).Seconds())
		if err := c.awaitInSync(ctx, v); err != nil {
			return err
		}
		step("all replicas are in sync after %.1f s", time.Since(began).Seconds())
	}
	return nil
}

// step tells the reader what comes.
func step(format string, arguments ...any) {
	fmt.Printf("%s --- %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, arguments...))
}
