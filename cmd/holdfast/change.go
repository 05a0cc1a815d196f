package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

func (a *app) volumeExpandCommand() *cobra.Command {
	var bytes size
	cmd := &cobra.Command{
		Use:   "expand NAME --size SIZE",
		Short: "Make a volume larger",
		Long: `Make a volume larger, whether it is in use or not. Its device has the new size
when this is done; what lies on the device has to follow. The CSI plugin sees to
that for volumes of pods. By hand it is resize2fs DEVICE for ext4, and
xfs_growfs MOUNTPOINT for XFS.

A volume cannot be made smaller. Asking for the size that it has succeeds.`,
		Example: `  holdfast volume expand db --size 200GiB
  resize2fs $(holdfast volume show db -o json | jq -r .device)`,
		Args: args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if bytes == 0 {
				return usageError{fmt.Errorf("flag --size is missing; see %s --help", cmd.CommandPath())}
			}
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				volume, err := s.findVolume(ctx, args[0])
				if err != nil {
					return err
				}
				if int64(bytes) < volume.GetSizeBytes() {
					return usageError{fmt.Errorf("--size %s is below the %s that volume %s has; a volume cannot be made smaller",
						formatSize(int64(bytes)), formatSize(volume.GetSizeBytes()), volume.GetName())}
				}
				return a.change(ctx, s, "expanding", func() (*holdfastv1.Volume, string, error) {
					volume, err := s.volumes.ExpandVolume(ctx, &holdfastv1.ExpandVolumeRequest{Id: volume.GetId(), SizeBytes: int64(bytes)})
					return volume, fmt.Sprintf("Volume %s has %s now.", volume.GetName(), formatSize(volume.GetSizeBytes())), err
				})
			})
		},
	}
	cmd.Flags().Var(&bytes, "size", "new size, such as 20GiB; rounded up to whole MiB")
	return cmd
}

// change changes a volume and prints what has become of it.
func (a *app) change(ctx context.Context, s *session, label string, do func() (*holdfastv1.Volume, string, error)) error {
	var volume *holdfastv1.Volume
	var said string
	err := a.working(label, func() (err error) {
		volume, said, err = do()
		return err
	})
	if err != nil {
		return err
	}
	nodes, err := s.nodes(ctx)
	if err != nil {
		return err
	}
	return a.print(newVolumeView(volume, nodes), sentence(said))
}
