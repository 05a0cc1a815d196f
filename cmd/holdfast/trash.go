package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// trashedView is the JSON of a volume in the trash.
type trashedView struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	SizeBytes int64  `json:"sizeBytes"`
	// TrashedAt and PurgedAt are RFC 3339, in UTC.
	TrashedAt string `json:"trashedAt"`
	PurgedAt  string `json:"purgedAt"`
	Snapshots int32  `json:"snapshots"`
	// Usage is null where no replica can be asked.
	Usage *volumeUsageView `json:"usage"`
}

func (a *app) volumeDeleteCommand() *cobra.Command {
	var withSnapshots, purge bool
	cmd := &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete a volume and all its data",
		Long: `Delete a volume and all its data, at once and for good. While the cluster keeps a
trash (holdfast cluster settings --trash-keep), the volume goes there instead, with
its snapshots, unless --purge is given: holdfast trash restore takes it back.

A volume that is in use is refused, and one that has snapshots, which go with it,
unless --with-snapshots is given. Volumes that were made from them stay. One that
does not exist is an error here (exit code 3).`,
		Args: args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				volume, err := s.findFreeVolume(ctx, args[0])
				if err != nil {
					return err
				}
				if volume.GetState() == holdfastv1.Volume_TRASHED {
					return failure{
						code:    codes.FailedPrecondition,
						message: fmt.Sprintf("volume %s is in the trash already", volume.GetName()),
						hint:    "to delete it for good: holdfast trash purge " + volume.GetId(),
					}
				}
				if n := volume.GetSnapshotCount(); n > 0 && !withSnapshots {
					return failure{
						code:    codes.FailedPrecondition,
						message: fmt.Sprintf("volume %s has snapshots, which would be deleted with it: %d", volume.GetName(), n),
						hint:    "if that is meant: holdfast volume delete --with-snapshots " + volume.GetName(),
					}
				}
				answer, err := s.volumes.DeleteVolume(ctx, &holdfastv1.DeleteVolumeRequest{
					Id: volume.GetId(), OnlyWithoutSnapshots: !withSnapshots, Purge: purge,
				})
				if err != nil {
					return err
				}
				said := fmt.Sprintf("Volume %s deleted.", volume.GetName())
				if answer.GetPurgedAt() != nil {
					said = fmt.Sprintf("Volume %s is in the trash until %s; to take it back: holdfast trash restore %s",
						volume.GetName(), formatTime(answer.GetPurgedAt()), volume.GetName())
				}
				return a.print(struct {
					ID       string `json:"id"`
					PurgedAt string `json:"purgedAt"`
				}{volume.GetId(), formatTime(answer.GetPurgedAt())}, sentence(said))
			})
		},
	}
	cmd.Flags().BoolVar(&withSnapshots, "with-snapshots", false, "delete its snapshots, too")
	cmd.Flags().BoolVar(&purge, "purge", false, "for good, past the trash")
	return cmd
}

func (a *app) trashCommand() *cobra.Command {
	return group("trash", "Look at, restore and purge deleted volumes", a.trashListCommand(), a.trashRestoreCommand(), a.trashPurgeCommand())
}

func (a *app) trashListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the volumes in the trash",
		Long: `List the volumes in the trash. They are deleted for good at the time under PURGED;
until then they take the space under USED, on each of their disks, and can be
restored. Their snapshots stay as long, and volumes can be made from them.

There is a trash while holdfast cluster settings --trash-keep says how long.`,
		Example: `  holdfast cluster settings --trash-keep 7d
  holdfast trash list
  holdfast trash list -o json | jq '[.[].usage.usedBytes] | add'`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				volumes, err := s.trash(ctx, true)
				if err != nil {
					return err
				}
				views := make([]trashedView, 0, len(volumes))
				for _, v := range volumes {
					views = append(views, newTrashedView(v))
				}
				return a.print(views, trashTable(views))
			})
		},
	}
}

func (a *app) trashRestoreCommand() *cobra.Command {
	var as string
	cmd := &cobra.Command{
		Use:   "restore NAME",
		Short: "Take a volume out of the trash",
		Long: `Take a volume out of the trash, with its data and its snapshots, under the name it
had. Where another volume has that name now, --as gives it another one. NAME is the
name it had or its ID; where several of a name are in the trash it must be the ID.`,
		Example: `  holdfast trash restore db
  holdfast trash restore db --as db-of-yesterday`,
		Args: args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				trashed, err := s.findTrashed(ctx, args[0])
				if err != nil {
					return err
				}
				volume, err := s.volumes.RestoreVolume(ctx, &holdfastv1.RestoreVolumeRequest{Id: trashed.GetId(), Name: as})
				if status.Code(err) == codes.AlreadyExists {
					return failure{
						code:    codes.AlreadyExists,
						message: fmt.Sprintf("the name %s was taken by another volume meanwhile", newName(trashed, as)),
						hint:    "to restore it under another one: holdfast trash restore " + trashed.GetId() + " --as NAME",
					}
				}
				if err != nil {
					return err
				}
				nodes, err := s.nodes(ctx)
				if err != nil {
					return err
				}
				return a.print(newVolumeView(volume, nodes), sentence(fmt.Sprintf("Volume %s restored.", volume.GetName())))
			})
		},
	}
	cmd.Flags().StringVar(&as, "as", "", "name that it is to have (default: the one it had)")
	return cmd
}

func newName(v *holdfastv1.Volume, as string) string {
	if as != "" {
		return as
	}
	return v.GetName()
}

func (a *app) trashPurgeCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "purge NAME | --all",
		Short: "Delete a volume in the trash for good",
		Long: `Delete a volume in the trash for good, with its snapshots, or all that are there
with --all. Their space comes back in the background. NAME is the name it had or
its ID; where several of a name are in the trash it must be the ID.`,
		Example: `  holdfast trash purge db
  holdfast trash purge --all`,
		Args: func(cmd *cobra.Command, given []string) error {
			if all {
				return args()(cmd, given)
			}
			return args("NAME")(cmd, given)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				var volumes []*holdfastv1.Volume
				var err error
				if all {
					volumes, err = s.trash(ctx, false)
				} else {
					var one *holdfastv1.Volume
					one, err = s.findTrashed(ctx, args[0])
					volumes = append(volumes, one)
				}
				if err != nil {
					return err
				}
				ids := []string{}
				for _, v := range volumes {
					if _, err := s.volumes.PurgeVolume(ctx, &holdfastv1.PurgeVolumeRequest{Id: v.GetId()}); err != nil && status.Code(err) != codes.NotFound {
						return err
					}
					ids = append(ids, v.GetId())
				}
				said := "Volumes deleted for good: " + strconv.Itoa(len(ids))
				if !all {
					said = fmt.Sprintf("Volume %s deleted for good.", volumes[0].GetName())
				}
				return a.print(ids, sentence(said))
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "everything that is there")
	return cmd
}

// trash lists the volumes in the trash.
func (s *session) trash(ctx context.Context, withUsage bool) ([]*holdfastv1.Volume, error) {
	return s.listVolumes(ctx, &holdfastv1.ListVolumesRequest{Trash: true, WithUsage: withUsage})
}

// findTrashed finds a volume in the trash by its ID, or by a name that only one of
// those had.
func (s *session) findTrashed(ctx context.Context, name string) (*holdfastv1.Volume, error) {
	volumes, err := s.trash(ctx, false)
	if err != nil {
		return nil, err
	}
	var found []*holdfastv1.Volume
	_, badID := block.ParseID(name)
	for _, v := range volumes {
		if v.GetName() == name || badID == nil && v.GetId() == name {
			found = append(found, v)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, failure{code: codes.NotFound, message: fmt.Sprintf("there is no volume %q in the trash", name), hint: "holdfast trash list shows what is there"}
	default:
		return nil, failure{
			code: codes.FailedPrecondition, message: fmt.Sprintf("%d volumes in the trash had the name %q", len(found), name),
			hint: "name the one that is meant by its ID, which holdfast trash list -o wide shows",
		}
	}
}

func newTrashedView(v *holdfastv1.Volume) trashedView {
	return trashedView{
		ID: v.GetId(), Name: v.GetName(), SizeBytes: v.GetSizeBytes(), TrashedAt: formatTime(v.GetTrashedAt()), PurgedAt: formatTime(v.GetPurgedAt()),
		Snapshots: v.GetSnapshotCount(), Usage: newVolumeUsageView(v.GetUsage()),
	}
}

func trashTable(views []trashedView) table {
	t := table{
		columns: []column{{title: "NAME"}, {title: "SIZE"}, {title: "USED"}, {title: "SNAPSHOTS"}, {title: "DELETED"}, {title: "PURGED"}, {title: "ID", wide: true}},
		empty:   "The trash is empty. How long it keeps volumes: holdfast cluster settings",
	}
	for _, v := range views {
		t.rows = append(t.rows, []string{
			v.Name, formatSize(v.SizeBytes), v.Usage.used(), strconv.Itoa(int(v.Snapshots)), v.TrashedAt, v.PurgedAt, v.ID,
		})
	}
	return t
}

// formatTime is RFC 3339 in UTC, empty for no time.
func formatTime(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().Format(time.RFC3339)
}
