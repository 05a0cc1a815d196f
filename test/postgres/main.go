package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/test/harness"
)

// options say where and how large.
type options struct {
	// binaries is the folder of holdfastd and holdfast-csi; without it they are built.
	binaries string
	// dir is where everything lies, frontend what shows the volume.
	dir, frontend string
	// disks are devices for the replicas; without them they are files.
	disks []string
	// scale is pgbench's: about 16 MB each. clients is its connections.
	scale, clients int
	volumeMiB      int64
	// lead is how long pgbench runs beside a fault's own time.
	lead time.Duration
	// every is the time from one snapshot to the next, while there is load.
	every time.Duration
	// sabotage is a step that has to fail.
	sabotage string
}

func (o options) volumeBytes() int64 { return o.volumeMiB << 20 }

// Validate refuses what no run could use.
func (o options) Validate() error {
	switch {
	case o.scale < 1 || o.clients < 2 || o.volumeMiB < 128 || o.lead < time.Second || o.every < time.Second:
		return errors.New("-scale is at least 1, -clients 2, -volume 128, -lead and -every 1s")
	case len(o.disks) != 0 && len(o.disks) != 3:
		return fmt.Errorf("-disks: %d devices, want 3", len(o.disks))
	}
	return nil
}

func main() { harness.Main("postgres", run) }

func run(ctx context.Context, args []string) (err error) {
	var o options
	if o.sabotage, err = harness.Sabotaged(sabotageable()); err != nil {
		return err
	}
	var disks string
	flags := flag.NewFlagSet("postgres", flag.ContinueOnError)
	flags.StringVar(&o.binaries, "binaries", "", "folder of holdfastd and holdfast-csi (default: build them)")
	flags.StringVar(&o.dir, "dir", "/var/tmp", "folder on a disk in which everything lies")
	flags.StringVar(&o.frontend, "frontend", "auto", "what shows the volume, as holdfastd has it")
	flags.StringVar(&disks, "disks", "", "three block devices for the replicas, separated by commas (default: files)")
	flags.IntVar(&o.scale, "scale", 6, "pgbench's scale factor, 16 MB each")
	flags.IntVar(&o.clients, "clients", 6, "connections of pgbench")
	flags.Int64Var(&o.volumeMiB, "volume", 768, "size of the volume in MiB")
	flags.DurationVar(&o.lead, "lead", 8*time.Second, "how long pgbench runs beside a fault's own time")
	flags.DurationVar(&o.every, "every", 5*time.Second, "time from one snapshot to the next")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if disks != "" {
		o.disks = strings.Split(disks, ",")
	}
	if err := o.Validate(); err != nil {
		return err
	}
	return walk(ctx, o)
}
