package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// volumeUsageView is the JSON of what a volume takes on one disk.
type volumeUsageView struct {
	UsedBytes int64 `json:"usedBytes"`
	// SnapshotBytes is what its snapshots hold and it does not any more.
	SnapshotBytes int64 `json:"snapshotBytes"`
}

func newVolumeUsageView(u *holdfastv1.VolumeUsage) *volumeUsageView {
	if u == nil {
		return nil
	}
	return &volumeUsageView{UsedBytes: u.GetUsedBytes(), SnapshotBytes: u.GetSnapshotBytes()}
}

// used and held are for people; empty where that is not known.
func (v *volumeUsageView) used() string {
	if v == nil {
		return ""
	}
	return formatSize(v.UsedBytes)
}

func (v *volumeUsageView) held() string {
	if v == nil {
		return ""
	}
	return formatSize(v.SnapshotBytes)
}

func (a *app) volumeSetCommand() *cobra.Command {
	var limit spaceLimit
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Change how a volume is kept",
		Long: `Change what may be changed of how a volume is kept, whether it is in use or not.

--max-snapshot-space bounds what its snapshots hold that it does not have any more:
a size, or a part of the size of the volume, with which it grows. Once they hold as
much, no further snapshot is taken until some are deleted. What they hold now is in
holdfast volume show.`,
		Example: `  holdfast volume set db --max-snapshot-space 50%
  holdfast volume set db --max-snapshot-space 20GiB
  holdfast volume set db --max-snapshot-space none`,
		Args: args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("max-snapshot-space") {
				return usageError{fmt.Errorf("nothing is to be changed; see %s --help", cmd.CommandPath())}
			}
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				volume, err := s.findVolume(ctx, args[0])
				if err != nil {
					return err
				}
				return a.change(ctx, s, "changing", func() (*holdfastv1.Volume, string, error) {
					volume, err := s.volumes.SetVolume(ctx, &holdfastv1.SetVolumeRequest{Id: volume.GetId(), MaxSnapshotSpace: limit.message()})
					return volume, fmt.Sprintf("The snapshots of volume %s may hold %s.", volume.GetName(), limit.forPeople()), err
				})
			})
		},
	}
	cmd.Flags().Var(&limit, "max-snapshot-space", "what its snapshots may hold, such as 20GiB or 50%, or none for no limit")
	return cmd
}

// spaceLimit is a flag that holds a number of bytes or a percentage; the zero value is
// no limit. It is also the JSON of one.
type spaceLimit struct {
	Bytes   int64 `json:"bytes"`
	Percent int32 `json:"percent"`
}

func newSpaceLimit(l *holdfastv1.SpaceLimit) spaceLimit {
	return spaceLimit{Bytes: l.GetBytes(), Percent: l.GetPercent()}
}

func (l *spaceLimit) message() *holdfastv1.SpaceLimit {
	return &holdfastv1.SpaceLimit{Bytes: l.Bytes, Percent: l.Percent}
}

// Set reads 20GiB, 50%, or none.
func (l *spaceLimit) Set(text string) error {
	*l = spaceLimit{}
	if text == "none" {
		return nil
	}
	const maxPercent = 1000
	if digits, found := strings.CutSuffix(text, "%"); found {
		percent, err := strconv.ParseInt(digits, 10, 32)
		if err != nil || percent < 1 || percent > maxPercent {
			return fmt.Errorf("%q is not 1%% to %d%%", text, maxPercent)
		}
		l.Percent = int32(percent)
		return nil
	}
	var bytes size
	if err := bytes.Set(text); err != nil {
		return fmt.Errorf("%w, nor a part of the volume such as 50%%, nor none", err)
	}
	l.Bytes = int64(bytes)
	return nil
}

// Type names the flag's values in the help.
func (l *spaceLimit) Type() string { return "limit" }

// String prints nothing for no limit: that is no default to be shown.
func (l *spaceLimit) String() string {
	switch {
	case l.Percent > 0:
		return fmt.Sprintf("%d%%", l.Percent)
	case l.Bytes > 0:
		return formatSize(l.Bytes)
	default:
		return ""
	}
}

func (l *spaceLimit) forPeople() string {
	switch {
	case l.Percent > 0:
		return l.String() + " of its size"
	case l.Bytes > 0:
		return l.String()
	default:
		return "any amount"
	}
}
