package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/test/harness"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == hogArgument {
		hog()
	}
	harness.Main("reliability", run)
}

// options are what the flags say.
type options struct {
	Samples  int
	Duration time.Duration
	Dir      string
	Binaries string
	Output   string
	Lines    []line
}

const (
	outputTable    = "table"
	outputJSON     = "json"
	outputMarkdown = "markdown"
)

func parseFlags(args []string) (options, error) {
	flags := flag.NewFlagSet("reliability", flag.ContinueOnError)
	samples := flags.Int("samples", 0, "samples of each line; 0 takes what each line says is enough")
	duration := flags.Duration("duration", time.Hour, "length of the line busy")
	dir := flags.String("dir", "/var/tmp", "where everything lies while it runs; on a disk with O_DIRECT and 12 GiB free")
	binaries := flags.String("bin", "", "directory of the programs to measure; by default they are built")
	output := flags.String("o", outputTable, "table, json or markdown")
	only := flags.String("only", "", "measure only these lines: "+strings.Join(names(), ","))
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	o := options{Samples: *samples, Duration: *duration, Dir: *dir, Binaries: *binaries, Output: *output}
	var err error
	if o.Lines, err = choose(*only); err != nil {
		return options{}, err
	}
	switch {
	case flags.NArg() > 0:
		return options{}, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case o.Samples < 0:
		return options{}, fmt.Errorf("-samples %d: want none or more", o.Samples)
	case o.Duration < busyLook:
		return options{}, fmt.Errorf("-duration %v: want at least %v", o.Duration, busyLook)
	case !slices.Contains([]string{outputTable, outputJSON, outputMarkdown}, o.Output):
		return options{}, fmt.Errorf("-o %q: want table, json or markdown", o.Output)
	}
	return o, nil
}

func run(ctx context.Context, args []string) error {
	o, err := parseFlags(args)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("network namespaces and disks need root")
	}
	result, err := measure(ctx, o)
	if err != nil {
		return err
	}
	if err := result.write(os.Stdout, o.Output); err != nil {
		return err
	}
	return result.check()
}
