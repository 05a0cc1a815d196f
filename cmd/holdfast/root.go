package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/holdfast-io/holdfast/internal/control"
	"github.com/holdfast-io/holdfast/internal/mtls"
	"github.com/holdfast-io/holdfast/internal/version"
)

const long = `The command line of Holdfast, replicated block storage for Kubernetes.

Any daemon of the cluster answers for all of it. By default that is the one on
this machine; --server or HOLDFAST_SERVER names another.

Sizes are given and shown in KiB, MiB, GiB and TiB (powers of 1024); KB, MB, GB
and TB (powers of 1000) and plain bytes are understood, too. -o json gives bytes,
and names that scripts can rely on; -o wide gives what does not fit a terminal.

Exit codes:
  0  done
  1  failed for another reason than those below
  2  the command line is wrong
  3  what was named does not exist
  4  refused because of the state things are in (exists already, in use, no space)
  5  no answer: the daemon or the cluster's leader cannot be reached, or it took
     longer than --timeout; the same command may succeed later`

const example = `  # A three-node cluster at a glance:
  holdfast cluster status

  # Give a directory of this node to the cluster, then make a volume and use it:
  holdfast disk add /var/lib/holdfast/disks/nvme0 --class nvme
  holdfast volume create db --size 100GiB --replicas 3
  holdfast volume attach db

  # Keep it as it is now, and use that beside it:
  holdfast snapshot create db before-upgrade
  holdfast volume create db-test --from-snapshot before-upgrade

  # For scripts:
  holdfast volume list -o json | jq '.[] | select(.inSync < .replicas) | .name'`

// app is what every command shares: the streams and the global flags.
type app struct {
	stdout, stderr io.Writer

	server  string
	output  string
	timeout time.Duration
	tls     mtls.Files

	// named leads from the IDs of what was found to what it is called on the command line.
	named map[string]string
}

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	a := &app{stdout: stdout, stderr: stderr, named: map[string]string{}}
	root := a.command()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintf(stderr, "holdfast: %s\n", a.describe(err))
	}
	return exitCode(err)
}

func (a *app) command() *cobra.Command {
	root := group("holdfast", "The command line of Holdfast",
		a.clusterCommand(), a.nodeCommand(), a.diskCommand(), a.volumeCommand(), a.snapshotCommand(), a.trashCommand(), a.versionCommand())
	root.Long, root.Example = long, example
	root.SilenceUsage, root.SilenceErrors = true, true
	root.CompletionOptions.HiddenDefaultCmd = true
	root.Version = version.String()
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetHelpCommand(helpCommand(root))
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see %s --help", readable(err), cmd.CommandPath())}
	})
	flags := root.PersistentFlags()
	flags.StringVar(&a.server, "server", control.DefaultServer(), "control address of a daemon: unix:///path or host:port (env "+control.ServerVariable+")")
	flags.StringVarP(&a.output, "output", "o", "table", "table, wide or json")
	flags.DurationVar(&a.timeout, "timeout", 2*time.Minute, "how long to wait for an answer, such as 30s or 5m")
	a.tls.AddFlags(flags, mtls.Client)
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if a.timeout <= 0 {
			return usageError{fmt.Errorf("--timeout %s: want a duration above zero, such as 30s or 5m", a.timeout)}
		}
		if err := a.tls.Validate(); err != nil {
			return usageError{err}
		}
		return checkOutput(a.output)
	}
	return root
}

// group is a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(commands...)
	return cmd
}

// helpCommand is help that says so when there is no such command.
func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [command]",
		Short: "Help about any command",
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil {
				return usageError{err}
			}
			if len(rest) > 0 && cmd.HasSubCommands() {
				return unknownCommand(cmd, rest[0])
			}
			cmd.InitDefaultHelpFlag()
			return cmd.Help()
		},
	}
}

// unknownCommand names those that may have been meant.
func unknownCommand(parent *cobra.Command, name string) error {
	parent.SuggestionsMinimumDistance = 2
	meant := ""
	if like := parent.SuggestionsFor(name); len(like) > 0 {
		meant = " (is it " + strings.Join(like, " or ") + "?)"
	}
	return usageError{fmt.Errorf("unknown command %q%s; see %s --help", name, meant, parent.CommandPath())}
}

// readable says what is wrong with the value of a flag, where the standard library
// names but its function.
func readable(err error) error {
	var invalid *pflag.InvalidValueError
	if !errors.As(err, &invalid) {
		return err
	}
	want := ""
	switch kind := invalid.GetFlag().Value.Type(); {
	case errors.Is(err, strconv.ErrRange):
		want = "it is out of range"
	case strings.HasPrefix(kind, "int"):
		want = "want a whole number"
	case kind == "duration" && invalid.GetFlag().Name == "timeout":
		want = "want a duration with its unit, such as 30s or 5m"
	case kind == "bool":
		want = "want true or false"
	default:
		return err
	}
	return fmt.Errorf("--%s %s: %s", invalid.GetFlag().Name, invalid.GetValue(), want)
}

// args wants these arguments, by name.
func args(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		switch {
		case len(given) < len(names):
			return usageError{fmt.Errorf("argument %s is missing; see %s --help", names[len(given)], cmd.CommandPath())}
		case len(given) > len(names):
			return usageError{fmt.Errorf("argument %q is too many; see %s --help", given[len(names)], cmd.CommandPath())}
		}
		return nil
	}
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Args:  args(),
		RunE: func(*cobra.Command, []string) error {
			v := struct {
				Version string `json:"version"`
			}{version.String()}
			return a.print(v, details{{"version", v.Version}})
		},
	}
}
