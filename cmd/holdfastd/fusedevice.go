package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/engine/frontend/fuse"
	"github.com/holdfast-io/holdfast/internal/version"
)

// fuseDeviceName is the hidden command that the daemon starts for each device
// where the kernel has no NBD.
const fuseDeviceName = "fuse-device"

func newFuseDeviceCommand() *cobra.Command {
	return &cobra.Command{
		Use:    fuseDeviceName + " CONFIG",
		Short:  "Serve one volume through FUSE; started by the daemon",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := config{logLevel: "info", logFormat: "text"}
			logger, err := c.logger()
			if err != nil {
				return err
			}
			device, err := fuse.LoadConfig(args[0])
			if err != nil {
				return err
			}
			return fuse.Main(cmd.Context(), device, logger)
		},
	}
}

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintln(cmd.OutOrStdout(), "holdfastd", version.String())
		},
	}
}
