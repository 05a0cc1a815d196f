package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
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
	// sabotage is a step that has to fail.
	sabotage string
}

func (o options) volumeBytes() int64 { return o.volumeMiB << 20 }

// tightBytes is what the tight disk has for data: what the database needs at first,
// with its log and the file system's, and some room to grow. A wrong guess costs
// time: what is left is written by starve.
func (o options) tightBytes() int64 { return int64(155+16*o.scale) << 20 }

// Validate refuses what no run could use.
func (o options) Validate() error {
	switch {
	case o.scale < 1 || o.clients < 2 || o.volumeMiB < 128 || o.lead < time.Second:
		return errors.New("-scale is at least 1, -clients 2, -volume 128, -lead 1s")
	case len(o.disks) != 0 && len(o.disks) != 3:
		return fmt.Errorf("-disks: %d devices, want 3", len(o.disks))
	case o.sabotage != "" && !slices.Contains(sabotageable(), o.sabotage):
		return fmt.Errorf("SABOTAGE=%s: no such step; there are: %s", o.sabotage, strings.Join(sabotageable(), ", "))
	}
	return nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	o := options{sabotage: os.Getenv("SABOTAGE")}
	var disks string
	flag.StringVar(&o.binaries, "binaries", "", "folder of holdfastd and holdfast-csi (default: build them)")
	flag.StringVar(&o.dir, "dir", "/var/tmp", "folder on a disk in which everything lies")
	flag.StringVar(&o.frontend, "frontend", "auto", "what shows the volume, as holdfastd has it")
	flag.StringVar(&disks, "disks", "", "three block devices for the replicas, separated by commas (default: files)")
	flag.IntVar(&o.scale, "scale", 6, "pgbench's scale factor, 16 MB each")
	flag.IntVar(&o.clients, "clients", 6, "connections of pgbench")
	flag.Int64Var(&o.volumeMiB, "volume", 768, "size of the volume in MiB")
	flag.DurationVar(&o.lead, "lead", 8*time.Second, "how long pgbench runs beside a fault's own time")
	flag.Parse()
	if disks != "" {
		o.disks = strings.Split(disks, ",")
	}
	err := o.Validate()
	if err == nil {
		err = walk(ctx, o)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "\npostgres: FAILED: %v\n", err)
		os.Exit(1)
	}
}
