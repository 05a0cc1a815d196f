package main

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// settingsView is the JSON of the cluster's settings.
type settingsView struct {
	ScrubIntervalSeconds int64 `json:"scrubIntervalSeconds"`
	ScrubBytesPerSecond  int64 `json:"scrubBytesPerSecond"`
	MaxMoves             int64 `json:"maxMoves"`
	TrashKeepSeconds     int64 `json:"trashKeepSeconds"`
}

func (a *app) clusterSettingsCommand() *cobra.Command {
	var every, keep interval
	var rate size
	var moves int64
	cmd := &cobra.Command{
		Use:   "settings",
		Short: "Show or change the settings of the cluster",
		Long: `Show the settings of the cluster, after changing those that are given.

Every volume is verified as holdfast volume scrub does it, --scrub-interval
after the last time. It never reads more of a volume in a second than --scrub-rate,
and less while that would slow clients down.

At most --max-moves replicas move at a time when disks are drained, and so many
detached volumes are resynced.

With --trash-keep, a volume that is deleted goes to the trash, and is deleted for
good when it was there for so long; until then holdfast trash restore takes it back.
The trash keeps its space. What is there keeps the time that it was given.`,
		Example: `  holdfast cluster settings
  holdfast cluster settings --scrub-interval 7d --scrub-rate 200MiB
  holdfast cluster settings --scrub-interval off
  holdfast cluster settings --trash-keep 7d`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				change := &holdfastv1.SetSettingsRequest{}
				if cmd.Flags().Changed("scrub-interval") {
					seconds := int64(time.Duration(every) / time.Second)
					change.ScrubIntervalSeconds = &seconds
				}
				if cmd.Flags().Changed("scrub-rate") {
					bytes := int64(rate)
					change.ScrubBytesPerSecond = &bytes
				}
				if cmd.Flags().Changed("max-moves") {
					if moves < 1 {
						return usageError{fmt.Errorf("--max-moves %d: at least 1", moves)}
					}
					change.MaxMoves = &moves
				}
				if cmd.Flags().Changed("trash-keep") {
					seconds := int64(time.Duration(keep) / time.Second)
					change.TrashKeepSeconds = &seconds
				}
				settings, err := s.settings(ctx, change)
				if err != nil {
					return err
				}
				view := settingsView{settings.GetScrubIntervalSeconds(), settings.GetScrubBytesPerSecond(), settings.GetMaxMoves(), settings.GetTrashKeepSeconds()}
				return a.print(view, view)
			})
		},
	}
	cmd.Flags().Var(&every, "scrub-interval", "time from one scrub of a volume to the next, such as 14d or 36h; off for none")
	cmd.Flags().Int64Var(&moves, "max-moves", 0, "replicas that move at a time")
	cmd.Flags().Var(&rate, "scrub-rate", "most that is read of a volume in a second, such as 64MiB")
	cmd.Flags().Var(&keep, "trash-keep", "time for which deleted volumes stay in the trash, such as 7d or 12h; off for none")
	return cmd
}

// settings changes what is set, if anything is, and returns all.
func (s *session) settings(ctx context.Context, change *holdfastv1.SetSettingsRequest) (*holdfastv1.Settings, error) {
	if change.ScrubIntervalSeconds == nil && change.ScrubBytesPerSecond == nil && change.MaxMoves == nil && change.TrashKeepSeconds == nil {
		return s.cluster.GetSettings(ctx, &holdfastv1.GetSettingsRequest{})
	}
	return s.cluster.SetSettings(ctx, change)
}

func (v settingsView) text(wide bool) string {
	every := interval(time.Duration(v.ScrubIntervalSeconds) * time.Second)
	rate := "not bounded but by clients"
	if v.ScrubBytesPerSecond > 0 {
		rate = formatSize(v.ScrubBytesPerSecond) + "/s"
	}
	keep := interval(time.Duration(v.TrashKeepSeconds) * time.Second)
	return details{
		{"Scrub interval", cmp.Or(every.String(), "off")}, {"Scrub rate", rate}, {"Moves at a time", strconv.FormatInt(v.MaxMoves, 10)},
		{"Trash keeps", cmp.Or(keep.String(), "nothing")},
	}.text(wide)
}

// interval is a flag that holds a duration in whole seconds, 0 for never.
type interval time.Duration

const day = 24 * time.Hour

// Set reads 14d, 36h, 90s, or off.
func (i *interval) Set(text string) error {
	if text == "off" {
		*i = 0
		return nil
	}
	d, err := time.ParseDuration(text)
	if digits, found := strings.CutSuffix(text, "d"); found {
		var days int64
		days, err = strconv.ParseInt(digits, 10, 32)
		d = time.Duration(days) * day
	}
	switch {
	case err != nil:
		return fmt.Errorf("%q is not a duration such as 14d or 36h", text)
	case d < time.Second || d%time.Second != 0:
		return fmt.Errorf("%q is not a number of seconds above zero; off is for never", text)
	}
	*i = interval(d)
	return nil
}

// Type names the flag's values in the help.
func (i *interval) Type() string { return "duration" }

// String prints days where they are whole, and nothing for never: that is no default.
func (i *interval) String() string {
	switch d := time.Duration(*i); {
	case d == 0:
		return ""
	case d%day == 0:
		return fmt.Sprintf("%dd", d/day)
	case d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	default:
		return d.String()
	}
}
