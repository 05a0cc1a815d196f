package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// scrubView is the JSON of how a volume was verified. Times are RFC 3339, empty for
// never.
type scrubView struct {
	VerifiedAt     string        `json:"verifiedAt"`
	EndedAt        string        `json:"endedAt"`
	AskedAt        string        `json:"askedAt"`
	BeganAt        string        `json:"beganAt"`
	OffsetBytes    int64         `json:"offsetBytes"`
	RepairedBytes  int64         `json:"repairedBytes"`
	LostBytes      int64         `json:"lostBytes"`
	DifferingBytes int64         `json:"differingBytes"`
	Findings       []findingView `json:"findings"`
}

// findingView is the JSON of a place that was not as it should be.
type findingView struct {
	FoundAt     string `json:"foundAt"`
	Found       string `json:"found"`
	Node        string `json:"node"`
	Disk        string `json:"disk"`
	Snapshot    string `json:"snapshot"`
	OffsetBytes int64  `json:"offsetBytes"`
	LengthBytes int64  `json:"lengthBytes"`
}

func (a *app) volumeScrubCommand() *cobra.Command {
	var wait bool
	cmd := &cobra.Command{
		Use:   "scrub NAME",
		Short: "Verify all of a volume now",
		Long: `Read everything of a volume and of its snapshots on every replica, compare it with
its checksums and the replicas with each other, beside the work of clients. Damage
is repaired from a replica that is intact. What differs though its checksums are
good is left as it is and reported, with the oldest snapshot that has it: younger
ones and the volume may have the same bytes. A volume that is not in use is given
up at once for whoever wants it, and goes on later. Every volume is verified
regularly anyway; see holdfast cluster settings.

With --wait it ends when that is done, with exit code 1 if something was found
that cannot be repaired. On a terminal, a bar shows how far it is. Without
--timeout it waits as long as it takes.`,
		Example: `  holdfast volume scrub db --wait
  holdfast volume show db -o json | jq .scrub`,
		Args: args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !wait {
				return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
					v, err := s.scrub(ctx, args[0])
					if err != nil {
						return err
					}
					view := newScrubView(v, nil)
					return a.print(view, sentence(fmt.Sprintf("Volume %s is being verified; holdfast volume show %s tells how far it is.", v.GetName(), v.GetName())))
				})
			}
			return a.patiently(cmd, func(ctx context.Context, s *session) error {
				return a.waitScrubbed(ctx, s, args[0])
			})
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until it is done")
	return cmd
}

// scrub asks for a scrub of a volume.
func (s *session) scrub(ctx context.Context, name string) (*holdfastv1.Volume, error) {
	volume, err := s.findVolume(ctx, name)
	if err != nil {
		return nil, err
	}
	return s.volumes.ScrubVolume(ctx, &holdfastv1.ScrubVolumeRequest{Id: volume.GetId()})
}

// waitScrubbed asks for a scrub of a volume, and waits until it has ended.
func (a *app) waitScrubbed(ctx context.Context, s *session, name string) error {
	volume, err := s.scrub(ctx, name)
	if err != nil {
		return err
	}
	before := volume.GetScrub().GetEndedAt().AsTime()
	nodes, err := s.nodes(ctx)
	if err != nil {
		return err
	}
	err = a.watch(ctx, "scrub of "+name, func(ctx context.Context) (sight, error) {
		now, err := s.findVolume(ctx, volume.GetId())
		if err != nil {
			return sight{}, err
		}
		volume = now
		ended, done := volume.GetScrub().GetEndedAt(), scrubbed(volume)
		return sight{
			over: ended != nil && !ended.AsTime().Equal(before), done: done, total: volume.GetSizeBytes(), note: foundText(newScrubView(volume, nodes)),
			says: fmt.Sprintf("%s of %s of volume %s are verified", formatSize(done), formatSize(volume.GetSizeBytes()), volume.GetName()),
		}, nil
	})
	if err != nil {
		return err
	}
	return a.scrubResult(volume, nodes)
}

// scrubbed is how far a scrub is: as the engine says or, if that cannot be asked, as it
// was recorded last.
func scrubbed(v *holdfastv1.Volume) int64 {
	if p := v.GetEngine().GetScrub(); p != nil {
		return p.GetOffsetBytes()
	}
	return v.GetScrub().GetOffsetBytes()
}

// scrubResult tells how a scrub has ended.
func (a *app) scrubResult(v *holdfastv1.Volume, nodes nodes) error {
	view := newScrubView(v, nodes)
	on := "every replica"
	if view.VerifiedAt != view.EndedAt {
		on = "the replicas that were in sync all the while, which are not all"
	}
	text := fmt.Sprintf("Volume %s verified, %s on %s: %s.", v.GetName(), formatSize(v.GetSizeBytes()), on, foundText(view))
	if err := a.print(view, sentence(text)); err != nil {
		return err
	}
	if view.LostBytes+view.DifferingBytes > 0 {
		return failure{
			code:    codes.DataLoss,
			message: fmt.Sprintf("volume %q has damage that cannot be repaired", v.GetName()),
			hint:    fmt.Sprintf("holdfast volume show %s tells where; writing the place again, or restoring it, mends it", v.GetName()),
		}
	}
	return nil
}

// foundText sums up what a scrub has found.
func foundText(v scrubView) string {
	var parts []string
	for _, p := range []struct {
		bytes int64
		what  string
	}{{v.RepairedBytes, "repaired"}, {v.LostBytes, "lost"}, {v.DifferingBytes, "differing"}} {
		if p.bytes > 0 {
			parts = append(parts, formatSize(p.bytes)+" "+p.what)
		}
	}
	if len(parts) == 0 {
		return "no damage"
	}
	return strings.Join(parts, ", ")
}

func timeText(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().UTC().Format(time.RFC3339)
}

func newScrubView(v *holdfastv1.Volume, nodes nodes) scrubView {
	s := v.GetScrub()
	view := scrubView{
		VerifiedAt: timeText(s.GetVerifiedAt()), EndedAt: timeText(s.GetEndedAt()), AskedAt: timeText(s.GetAskedAt()), BeganAt: timeText(s.GetBeganAt()),
		OffsetBytes: scrubbed(v), RepairedBytes: s.GetRepairedBytes(), LostBytes: s.GetLostBytes(), DifferingBytes: s.GetDifferingBytes(),
		Findings: []findingView{},
	}
	for _, f := range s.GetFindings() {
		found := findingView{
			FoundAt: timeText(f.GetFoundAt()), Found: strings.ToLower(strings.ReplaceAll(f.GetKind().String(), "_", " ")),
			Disk: f.GetDiskId(), Snapshot: f.GetSnapshotId(), OffsetBytes: f.GetOffsetBytes(), LengthBytes: f.GetLengthBytes(),
		}
		for _, r := range v.GetReplicas() {
			if r.GetDiskId() == f.GetDiskId() {
				found.Node = nodes.name(r.GetNodeId())
			}
		}
		view.Findings = append(view.Findings, found)
	}
	return view
}

// details are the lines about scrubs in what is shown of a volume.
func (v *scrubView) details(size int64) details {
	verified := v.VerifiedAt
	if verified == "" {
		verified = "never"
	}
	lines := details{{"Verified", verified}}
	if v.EndedAt != v.VerifiedAt {
		lines = append(lines, [2]string{"Last scrub", v.EndedAt + ", not on all replicas"})
	}
	switch {
	case v.BeganAt != "":
		lines = append(lines, [2]string{"Scrub", fmt.Sprintf("%d%%, %s of %s, since %s", 100*min(v.OffsetBytes, size)/max(size, 1), formatSize(v.OffsetBytes), formatSize(size), v.BeganAt)})
	case v.AskedAt != "":
		lines = append(lines, [2]string{"Scrub", "asked for at " + v.AskedAt})
	}
	if v.BeganAt != "" || v.EndedAt != "" {
		lines = append(lines, [2]string{"Scrub found", foundText(*v)})
	}
	return lines
}

// findingTable lists the findings of a volume.
func findingTable(views []findingView) table {
	t := table{columns: []column{{title: "FOUND-AT"}, {title: "FOUND"}, {title: "NODE"}, {title: "DISK"}, {title: "SNAPSHOT"}, {title: "OFFSET"}, {title: "LENGTH"}}}
	for _, v := range views {
		t.rows = append(t.rows, []string{v.FoundAt, v.Found, v.Node, v.Disk, orDash(v.Snapshot), fmt.Sprint(v.OffsetBytes), formatSize(v.LengthBytes)})
	}
	return t
}
