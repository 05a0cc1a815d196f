package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/internal/vfs"
)

// Contenders of the benchmark of PostgreSQL. Volumes have the names of the others.
const (
	fileUnderLoop      = "file-loop"
	fileBehindFrontend = "file-device"
)

// postgresTitles are they in the order of the report.
var postgresTitles = [...]struct{ name, title string }{
	{fileUnderLoop, "file, loop device"},
	{fileBehindFrontend, "file, device like a volume's"},
	{holdfast1, "Holdfast, 1 replica"},
	{holdfast3, "Holdfast, 3 replicas"},
}

// pgbenchThreads are those of pgbench, which share its clients.
const pgbenchThreads = 2

// postgresTarget is what three replicas are promised of the file behind the same device.
const postgresTarget = 0.5

// postgresOptions are what the flags of bench postgres say.
type postgresOptions struct {
	options
	// scale is pgbench's, some 15 MB each; clients are its connections.
	scale, clients int
	// frontend is what shows volumes, as holdfastd has it.
	frontend string
}

// workload is the one that there is.
func (o postgresOptions) workload() workload {
	return workload{
		Name: "pgbench", Title: fmt.Sprintf("pgbench -c %d -j %d, scale %d", o.clients, pgbenchThreads, o.scale),
		Depth: o.clients, Target: postgresTarget,
	}
}

func parsePostgresFlags(args []string) (postgresOptions, error) {
	flags := flag.NewFlagSet("bench postgres", flag.ContinueOnError)
	rounds := flags.Int("rounds", 5, "rounds; each runs pgbench on every contender")
	runtime := flags.Duration("runtime", 20*time.Second, "length of each run, whole seconds")
	size := flags.Int64("size", 2048, "size of each file and volume, in MiB; seven times that must be free")
	scale := flags.Int("scale", 20, "pgbench's scale factor, some 15 MB each")
	clients := flags.Int("clients", 8, "connections of pgbench")
	show := flags.String("frontend", "auto", "what shows volumes as devices: auto, nbd or fuse")
	dir := flags.String("dir", "/var/tmp", "where everything lies while it runs; on the disk to measure")
	output := flags.String("o", outputTable, "table, json or markdown")
	engine := flags.String("disk-io", string(vfs.EngineAuto), "how Holdfast reads and writes disks: auto, io_uring or threads")
	short := flags.Bool("quick", false, "a look of a minute: -rounds 1 -runtime 2s -size 512 -scale 2")
	if err := flags.Parse(args); err != nil {
		return postgresOptions{}, err
	}
	o := postgresOptions{
		scale: *scale, clients: *clients, frontend: *show,
		options: options{Rounds: *rounds, Runtime: *runtime, SizeBytes: *size << 20, Output: *output},
	}
	if *short {
		o.Rounds, o.Runtime, o.SizeBytes, o.scale = 1, 2*time.Second, 512<<20, 2
	}
	var err error
	if o.Engine, err = vfs.ParseEngine(*engine); err != nil {
		return o, fmt.Errorf("-disk-io %w", err)
	}
	// Processes and mounts are found by where they lie.
	if o.Dir, err = filepath.Abs(*dir); err != nil {
		return o, err
	}
	o.Workloads = []workload{o.workload()}
	return o, o.validate(flags.Args())
}

// megabytes is what a database of that scale and its log take at least.
func (o postgresOptions) megabytes() int64 { return 256 + 20*int64(o.scale) }

func (o postgresOptions) validate(rest []string) error {
	switch {
	case o.clients < pgbenchThreads || o.clients > 64:
		return fmt.Errorf("-clients %d: want %d to 64", o.clients, pgbenchThreads)
	case o.scale < 1:
		return fmt.Errorf("-scale %d: want at least 1", o.scale)
	case o.SizeBytes < o.megabytes()<<20:
		return fmt.Errorf("-size %d: scale %d wants at least %d", o.SizeBytes>>20, o.scale, o.megabytes())
	case !strings.Contains(" auto nbd fuse ", " "+o.frontend+" "):
		return fmt.Errorf("-frontend %q: want auto, nbd or fuse", o.frontend)
	case os.Geteuid() != 0:
		return errors.New("bench postgres makes and mounts devices: run it as root")
	}
	return o.options.validate(rest)
}

// runPostgres compares PostgreSQL on volumes with PostgreSQL on files.
func runPostgres(ctx context.Context, args []string) error {
	o, err := parsePostgresFlags(args)
	if err != nil {
		return err
	}
	facts, err := describeHost(ctx, o.Dir)
	if err != nil {
		return err
	}
	s, err := newPostgresStage(o)
	if err != nil {
		return err
	}
	progress := newProgress(os.Stderr)
	results, err := measure(ctx, o.options, func(options) (stage, error) { return s, nil }, progress)
	progress.end()
	if err != nil {
		return err
	}
	return summarizePostgres(facts, s, results).write(os.Stdout, o.Output)
}
