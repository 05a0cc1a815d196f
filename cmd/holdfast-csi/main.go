// Command holdfast-csi is the CSI plugin. It only reads flags and wires: the
// services are in package driver.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/holdfast-io/holdfast/driver"
	"github.com/holdfast-io/holdfast/driver/mount"
	"github.com/holdfast-io/holdfast/internal/control"
	"github.com/holdfast-io/holdfast/internal/mtls"
	"github.com/holdfast-io/holdfast/internal/version"
)

const long = `The CSI plugin of Holdfast, replicated block storage for Kubernetes.

It runs twice: once for the cluster next to the external sidecars (provisioner,
attacher), with --mode controller, and on every node next to kubelet, with
--mode node. Both serve CSI on a unix socket and ask the holdfastd of their own
machine for everything; they keep no state and can be restarted at any time.

The node plugin mounts: it needs root, the host's /dev, mount propagation, and
the programs of util-linux, e2fsprogs and xfsprogs. It also trims what it has
mounted, so that deleted files give their space back to the disks; see
--trim-interval.`

const example = `  # Next to kubelet:
  holdfast-csi --mode node --endpoint unix:///csi/csi.sock

  # Next to the sidecars, with the daemon of the machine on a TCP address:
  holdfast-csi --mode controller --endpoint unix:///csi/csi.sock --server 10.0.0.7:7410

  # All services in one process, for trying out:
  holdfast-csi --endpoint unix:///tmp/csi.sock`

// weekly is how often Linux systems trim by themselves.
const weekly = 7 * 24 * time.Hour

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "holdfast-csi: %v\n", err)
		stop()
		os.Exit(1)
	}
}

// flags are what the command line sets.
type flags struct {
	endpoint, server, mode, deviceDir, logLevel, logFormat string

	trimInterval time.Duration
	tls          mtls.Files
}

func command() *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:           "holdfast-csi --endpoint unix:///csi/csi.sock",
		Short:         "The CSI plugin of Holdfast",
		Long:          long,
		Example:       example,
		Version:       version.String(),
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return run(cmd.Context(), f) },
	}
	cmd.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	cmd.Flags().StringVar(&f.endpoint, "endpoint", "unix:///csi/csi.sock", "unix socket to serve CSI on")
	cmd.Flags().StringVar(&f.server, "server", control.DefaultServer(), "control address of the local holdfastd: unix:///path or host:port (env HOLDFAST_SERVER)")
	f.tls.AddFlags(cmd.Flags(), mtls.Client)
	cmd.Flags().StringVar(&f.mode, "mode", string(driver.ModeAll), "services to offer: all, controller or node")
	cmd.Flags().StringVar(&f.deviceDir, "device-dir", string(mount.DefaultDevices), "where the devices of staged volumes get their names; must be on a file system that allows devices")
	cmd.Flags().DurationVar(&f.trimInterval, "trim-interval", weekly, "how often the file systems of this node are trimmed, one at a time, so that volumes give back what was deleted; 0 for never")
	cmd.Flags().StringVar(&f.logLevel, "log-level", "info", "debug (every call with its request), info, warn or error")
	cmd.Flags().StringVar(&f.logFormat, "log-format", "text", "text or json, on standard error")
	return cmd
}

// run serves until a signal comes.
func run(ctx context.Context, f flags) error {
	handler, err := logHandler(f)
	if err != nil {
		return err
	}
	// klog, which the CSI libraries write to, and slog share one handler.
	slog.SetDefault(slog.New(handler))
	klog.SetSlogLogger(slog.New(handler))
	if err := f.tls.Validate(); err != nil {
		return err
	}
	var identity *mtls.Identity
	if f.tls.Given() {
		if identity, err = mtls.Open(f.tls, slog.Default(), mtls.Client, mtls.Node); err != nil {
			return err
		}
	}
	conn, err := control.DialAs(identity, f.server)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	plugin, err := driver.New(driver.Options{
		Endpoint: f.endpoint, Daemon: conn, Mode: driver.Mode(f.mode), Version: version.String(),
		Devices: mount.Devices(filepath.Clean(f.deviceDir)), TrimInterval: f.trimInterval,
	})
	if err != nil {
		return err
	}
	slog.Info("CSI plugin starts", "endpoint", f.endpoint, "server", f.server, "mode", f.mode, "version", version.String())
	if err := runWith(ctx, plugin, identity); err != nil {
		return err
	}
	slog.Info("CSI plugin ends")
	return nil
}

// runWith runs the plugin, and reads its certificate again when that is renewed.
func runWith(ctx context.Context, plugin *driver.Driver, identity *mtls.Identity) error {
	if identity == nil {
		return plugin.Run(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	var parts errgroup.Group
	parts.Go(func() error { return identity.Run(ctx) })
	parts.Go(func() error {
		defer cancel()
		return plugin.Run(ctx)
	})
	return parts.Wait()
}

// closeConn closes the connection to the daemon, which has nothing left to tell.
func closeConn(conn io.Closer) { conn.Close() }

func logHandler(f flags) (slog.Handler, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, fmt.Errorf("--log-level %s: want debug, info, warn or error", f.logLevel)
	}
	options := &slog.HandlerOptions{Level: level}
	switch f.logFormat {
	case "text":
		return slog.NewTextHandler(os.Stderr, options), nil
	case "json":
		return slog.NewJSONHandler(os.Stderr, options), nil
	default:
		return nil, fmt.Errorf("--log-format %s: want text or json", f.logFormat)
	}
}
