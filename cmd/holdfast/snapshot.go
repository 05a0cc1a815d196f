package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// snapshotView is the JSON of a snapshot.
type snapshotView struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Volume   string `json:"volume"`
	VolumeID string `json:"volumeId"`
	// InTrash: its volume is in the trash, and it goes with it.
	InTrash   bool  `json:"inTrash"`
	SizeBytes int64 `json:"sizeBytes"`
	// Created is RFC 3339, in UTC.
	Created string `json:"created"`
	Ready   bool   `json:"ready"`
	// Usage is null where it was not asked for.
	Usage *usageView `json:"usage"`
}

// usageView is the JSON of what a snapshot takes on one disk.
type usageView struct {
	UniqueBytes         int64 `json:"uniqueBytes"`
	FreedIfDeletedBytes int64 `json:"freedIfDeletedBytes"`
}

func (a *app) snapshotCommand() *cobra.Command {
	return group("snapshot", "Make, look at and delete snapshots of volumes",
		a.snapshotCreateCommand(), a.snapshotListCommand(), a.snapshotShowCommand(), a.snapshotDeleteCommand())
}

func (a *app) snapshotCreateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "create VOLUME NAME",
		Short: "Keep a volume as it is now",
		Long: `Keep the bytes of a volume as they are at one moment, whether it is in use or not.
Everything that was acknowledged before is in it; what programs and file systems
still hold in memory is not: sync first. Nothing is copied, and it takes no space
until the volume changes.

NAME is one for the whole cluster. The same command twice makes one snapshot.`,
		Example: `  sync -f /mnt && holdfast snapshot create db before-upgrade
  holdfast volume create db-before --from-snapshot before-upgrade`,
		Args: args("VOLUME", "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				volume, err := s.findVolume(ctx, args[0])
				if err != nil {
					return err
				}
				var snapshot *holdfastv1.Snapshot
				err = a.working("making a snapshot", func() (err error) {
					snapshot, err = s.snapshots.CreateSnapshot(ctx, &holdfastv1.CreateSnapshotRequest{Name: args[1], VolumeId: volume.GetId()})
					return err
				})
				if err != nil {
					err = advise(err, codes.AlreadyExists, fmt.Sprintf("holdfast snapshot show %s shows the one that is there; take another name", args[1]))
					return advise(err, codes.ResourceExhausted,
						fmt.Sprintf("holdfast snapshot list --volume %s --usage shows what can be deleted, holdfast volume set changes what they may hold", volume.GetName()))
				}
				view := newSnapshotView(snapshot, volume)
				return a.print(view, sentence(fmt.Sprintf("Snapshot %s of volume %s made.", view.Name, view.Volume)))
			})
		},
	}
}

func (a *app) snapshotListCommand() *cobra.Command {
	var volume string
	var withUsage bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the snapshots",
		Long: `List the snapshots, those of one volume with --volume.

With --usage, UNIQUE is what nothing but the snapshot holds, and FREED what a disk
gets back if it alone is deleted: less, while a volume made from it shares some.
Both are exact, for one replica; to find them takes time in proportion to what
was changed.`,
		Example: `  holdfast snapshot list --volume db --usage
  holdfast snapshot list -o json | jq -r '.[] | select(.created < "2026") | .name'`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				views, err := a.listSnapshots(ctx, s, volume, withUsage)
				if err != nil {
					return err
				}
				return a.print(views, snapshotTable(views, withUsage))
			})
		},
	}
	cmd.Flags().StringVar(&volume, "volume", "", "name of the volume (default: all)")
	cmd.Flags().BoolVar(&withUsage, "usage", false, "show what they take")
	return cmd
}

// listSnapshots lists the snapshots of a volume, or all.
func (a *app) listSnapshots(ctx context.Context, s *session, volume string, withUsage bool) ([]snapshotView, error) {
	volumes := make(map[string]*holdfastv1.Volume)
	request := &holdfastv1.ListSnapshotsRequest{MaxEntries: listPageEntries, WithUsage: withUsage}
	if volume != "" {
		found, err := s.findVolume(ctx, volume)
		if err != nil {
			return nil, err
		}
		request.VolumeId, volumes[found.GetId()] = found.GetId(), found
	} else {
		all, err := s.allVolumes(ctx)
		if err != nil {
			return nil, err
		}
		// Snapshots stay with a volume in the trash.
		trashed, err := s.trash(ctx, false)
		if err != nil {
			return nil, err
		}
		for _, v := range append(all, trashed...) {
			volumes[v.GetId()] = v
		}
	}
	views := []snapshotView{}
	err := a.working("listing", func() error {
		for {
			page, err := s.snapshots.ListSnapshots(ctx, request)
			if err != nil {
				return err
			}
			for _, snapshot := range page.GetSnapshots() {
				views = append(views, newSnapshotView(snapshot, volumes[snapshot.GetVolumeId()]))
			}
			if request.StartingToken = page.GetNextToken(); request.StartingToken == "" {
				return nil
			}
		}
	})
	return views, err
}

func (a *app) snapshotShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Show all about a snapshot",
		Long: `Show a snapshot and what it takes, as snapshot list --usage explains. NAME is its
name or its ID.`,
		Example: `  holdfast snapshot show before-upgrade
  holdfast snapshot show before-upgrade -o json | jq .usage.freedIfDeletedBytes`,
		Args: args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				snapshot, err := s.findSnapshot(ctx, args[0], true)
				if err != nil {
					return err
				}
				volume, err := s.findVolume(ctx, snapshot.GetVolumeId())
				if err != nil {
					return err
				}
				view := newSnapshotView(snapshot, volume)
				return a.print(view, view.details())
			})
		},
	}
}

func (a *app) snapshotDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete a snapshot",
		Long: `Delete a snapshot. What nothing else holds of it is freed in the background.
Volumes that were made from it stay. One that does not exist is an error here
(exit code 3).`,
		Args: args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				snapshot, err := s.findSnapshot(ctx, args[0], false)
				if err != nil {
					return err
				}
				if _, err := s.snapshots.DeleteSnapshot(ctx, &holdfastv1.DeleteSnapshotRequest{Id: snapshot.GetId()}); err != nil {
					return err
				}
				return a.print(struct {
					ID string `json:"id"`
				}{snapshot.GetId()}, sentence("Snapshot "+snapshot.GetName()+" deleted."))
			})
		},
	}
}

func newSnapshotView(s *holdfastv1.Snapshot, volume *holdfastv1.Volume) snapshotView {
	view := snapshotView{
		ID: s.GetId(), Name: s.GetName(), Volume: volume.GetName(), VolumeID: s.GetVolumeId(), SizeBytes: s.GetSizeBytes(),
		Created: s.GetCreated().AsTime().Format(time.RFC3339), Ready: s.GetReady(),
		InTrash: volume.GetState() == holdfastv1.Volume_TRASHED,
	}
	if usage := s.GetUsage(); usage != nil {
		view.Usage = &usageView{UniqueBytes: usage.GetUniqueBytes(), FreedIfDeletedBytes: usage.GetFreedIfDeletedBytes()}
	}
	return view
}

// of names the volume, for people.
func (v *snapshotView) of() string {
	if v.InTrash {
		return v.Volume + " (in the trash)"
	}
	return v.Volume
}

// state is one word for what can be done with it.
func (v *snapshotView) state() string {
	if v.Ready {
		return "ready"
	}
	return "being made"
}

// usage is what it takes, for people; empty where that is not known.
func (v *snapshotView) usage() (unique, freed string) {
	if v.Usage == nil {
		return "", ""
	}
	return formatSize(v.Usage.UniqueBytes), formatSize(v.Usage.FreedIfDeletedBytes)
}

func (v *snapshotView) details() details {
	unique, freed := v.usage()
	return details{
		{"Name", v.Name},
		{"ID", v.ID},
		{"Volume", v.of()},
		{"Size", formatSize(v.SizeBytes)},
		{"Created", v.Created},
		{"State", v.state()},
		{"Unique", unique},
		{"Freed if deleted", freed},
	}
}

func snapshotTable(views []snapshotView, withUsage bool) table {
	t := table{
		columns: []column{{title: "NAME"}, {title: "VOLUME"}, {title: "SIZE"}, {title: "CREATED"}, {title: "STATE"}, {title: "ID", wide: true}},
		empty:   "There are no snapshots. Make one: holdfast snapshot create VOLUME NAME",
	}
	if withUsage {
		t.columns = append(t.columns, column{title: "UNIQUE"}, column{title: "FREED"})
	}
	for _, v := range views {
		row := []string{v.Name, v.of(), formatSize(v.SizeBytes), v.Created, v.state(), v.ID}
		if withUsage {
			unique, freed := v.usage()
			row = append(row, unique, freed)
		}
		t.rows = append(t.rows, row)
	}
	return t
}
