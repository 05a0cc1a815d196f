package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// revertView is the JSON of a revert.
type revertView struct {
	SnapshotID string `json:"snapshotId"`
	// KeptAs is the snapshot of what the volume was, empty if that is lost.
	KeptAs string `json:"keptAs"`
	Done   bool   `json:"done"`
	// DoneBytes of TotalBytes that may differ; 0 of 0 before that is known.
	DoneBytes  int64  `json:"doneBytes"`
	TotalBytes int64  `json:"totalBytes"`
	Trouble    string `json:"trouble"`
}

func newRevertView(v *holdfastv1.Volume) *revertView {
	r, p := v.GetRevert(), v.GetEngine().GetRevert()
	if r == nil {
		return nil
	}
	return &revertView{
		SnapshotID: r.GetSnapshotId(), KeptAs: r.GetKeptAs(), Done: r.GetDone(),
		DoneBytes: p.GetDoneBytes(), TotalBytes: p.GetTotalBytes(), Trouble: p.GetTrouble(),
	}
}

func (r *revertView) underWay() bool { return r != nil && !r.Done }

// percent is how far it is.
func (r *revertView) percent() int64 {
	if r.TotalBytes == 0 {
		return 0
	}
	return 100 * r.DoneBytes / r.TotalBytes
}

// shownState is the state with how far it is.
func (v *volumeView) shownState() string {
	if !v.Revert.underWay() {
		return v.State
	}
	return fmt.Sprintf("%s %d%%", v.State, v.Revert.percent())
}

func (r *revertView) details() details {
	if !r.underWay() {
		return nil
	}
	lines := details{{"Reverting to", fmt.Sprintf("snapshot %s, %d%% of %s", r.SnapshotID, r.percent(), formatSize(r.TotalBytes))}}
	if r.KeptAs != "" {
		lines = append(lines, [2]string{"Kept as", "snapshot " + r.KeptAs})
	}
	if r.Trouble != "" {
		lines = append(lines, [2]string{"It waits", r.Trouble})
	}
	return lines
}

func (a *app) volumeRevertCommand() *cobra.Command {
	var discard bool
	cmd := &cobra.Command{
		Use:   "revert VOLUME SNAPSHOT",
		Short: "Give a volume the content of one of its snapshots",
		Long: `Give a volume the content of one of its snapshots. The volume must not be in use,
and cannot be used before this is done. It keeps its size and its snapshots, and
what it is now becomes one more, before-revert-DATE-TIME, unless --discard-head
is given: so a revert can be reverted, also in the middle. To look at a snapshot
without changing anything, make a volume from it.

The time it takes follows what has changed since the snapshot. On a terminal, a
bar shows how far it is. It goes on without this command, whatever is stopped
meanwhile; volume show tells how far it is. Without --timeout this command waits
as long as it takes.`,
		Example: `  holdfast volume revert db before-upgrade
  holdfast volume revert db before-revert-20261129-160000
  holdfast volume revert db before-upgrade --discard-head`,
		Args: args("VOLUME", "SNAPSHOT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.patiently(cmd, func(ctx context.Context, s *session) error {
				return a.revert(ctx, s, args[0], args[1], discard)
			})
		},
	}
	cmd.Flags().BoolVar(&discard, "discard-head", false, "do not keep what the volume is now")
	return cmd
}

// revert begins a revert and waits for its end.
func (a *app) revert(ctx context.Context, s *session, name, to string, discard bool) error {
	asking, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	volume, err := s.findFreeVolume(asking, name)
	if err != nil {
		return err
	}
	snapshot, err := s.findSnapshot(asking, to, false)
	if err != nil {
		return err
	}
	if snapshot.GetVolumeId() != volume.GetId() {
		return failure{
			code:    codes.FailedPrecondition,
			message: fmt.Sprintf("snapshot %s is not one of volume %s", snapshot.GetName(), volume.GetName()),
			hint:    "holdfast snapshot list --volume " + volume.GetName() + " shows those",
		}
	}
	var began *holdfastv1.Volume
	err = a.working("reverting", func() (err error) {
		began, err = s.volumes.RevertVolume(asking, &holdfastv1.RevertVolumeRequest{
			Id: volume.GetId(), SnapshotId: snapshot.GetId(), DiscardHead: discard,
		})
		return err
	})
	if err != nil {
		return err
	}
	volume, err = a.waitReverted(ctx, s, began)
	if err != nil {
		return err
	}
	said := fmt.Sprintf("Volume %s is what it was at snapshot %s.", volume.GetName(), snapshot.GetName())
	if kept := began.GetRevert().GetKeptAs(); kept != "" {
		said += fmt.Sprintf("\nWhat it was until now is snapshot %s.", kept)
	}
	nodes, err := s.nodes(ctx)
	if err != nil {
		return err
	}
	return a.print(newVolumeView(volume, nodes), sentence(said))
}

// waitReverted waits until a revert that has begun is at its end.
func (a *app) waitReverted(ctx context.Context, s *session, volume *holdfastv1.Volume) (*holdfastv1.Volume, error) {
	to := volume.GetRevert().GetSnapshotId()
	err := a.watch(ctx, "revert of "+volume.GetName(), func(ctx context.Context) (sight, error) {
		now, err := s.volumes.GetVolume(ctx, &holdfastv1.GetVolumeRequest{Id: volume.GetId()})
		if err != nil {
			return sight{}, err
		}
		volume = now
		r := newRevertView(volume)
		switch {
		case !r.underWay():
			return sight{over: true}, nil
		case r.SnapshotID != to:
			return sight{}, failure{
				code:    codes.Aborted,
				message: fmt.Sprintf("volume %s is being reverted to snapshot %s instead", volume.GetName(), r.SnapshotID),
				hint:    "somebody has asked for that meanwhile: holdfast volume show " + volume.GetName(),
			}
		}
		return sight{
			done: r.DoneBytes, total: r.TotalBytes, note: r.Trouble,
			says: fmt.Sprintf("the revert of volume %s goes on by itself, %d%% is done", volume.GetName(), r.percent()),
		}, nil
	})
	return volume, err
}
