package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// listPageEntries is how many entries of a list are asked for at a time.
const listPageEntries = 500

// volumeView is the JSON of a volume.
type volumeView struct {
	ID           string   `json:"id"`
	Name         string   `json:"name"`
	SizeBytes    int64    `json:"sizeBytes"`
	State        string   `json:"state"`
	Health       string   `json:"health"`
	Replicas     int32    `json:"replicas"`
	InSync       int      `json:"inSync"`
	MinInSync    int32    `json:"minInSync"`
	DiskClass    string   `json:"diskClass"`
	DiskTags     []string `json:"diskTags"`
	NodeTags     []string `json:"nodeTags"`
	PublishedTo  string   `json:"publishedTo"`
	AttachmentID string   `json:"attachmentId"`
	Epoch        uint64   `json:"epoch"`
	Revision     uint64   `json:"revision"`
	Device       string   `json:"device"`
	Frozen       string   `json:"frozen"`
	Divergent    int64    `json:"divergentBytes"`
	// SourceSnapshotID and SourceVolumeID are what it was made from, empty if it began
	// as zeros; ExpandingTo is 0 unless it is being made larger.
	SourceSnapshotID string     `json:"sourceSnapshotId"`
	SourceVolumeID   string     `json:"sourceVolumeId"`
	ExpandingTo      int64      `json:"expandingToBytes"`
	Snapshots        int32      `json:"snapshots"`
	MaxSnapshots     int32      `json:"maxSnapshots"`
	MaxSnapshotSpace spaceLimit `json:"maxSnapshotSpace"`
	// Usage is null where it was not asked for, or no replica could be.
	Usage *volumeUsageView `json:"usage"`
	// TrashedAt and PurgedAt are RFC 3339, in UTC, and empty unless it is in the trash.
	TrashedAt string        `json:"trashedAt"`
	PurgedAt  string        `json:"purgedAt"`
	Copies    []replicaView `json:"copies"`
	Scrub     scrubView     `json:"scrub"`
	// Revert is absent unless one is under way, or was the last thing that was done.
	Revert *revertView `json:"revert,omitempty"`
}

// replicaView is the JSON of a replica.
type replicaView struct {
	ID             string `json:"id"`
	Node           string `json:"node"`
	NodeID         string `json:"nodeId"`
	Disk           string `json:"disk"`
	InSync         bool   `json:"inSync"`
	State          string `json:"state"`
	RemainingBytes int64  `json:"remainingBytes"`
	CopiedBytes    int64  `json:"copiedBytes"`
	// Waits is what holds a resync up, empty while it goes on.
	Waits string `json:"waits"`
}

func (a *app) volumeCommand() *cobra.Command {
	return group("volume", "Make, look at, use and delete volumes",
		a.volumeCreateCommand(), a.volumeListCommand(), a.volumeShowCommand(), a.volumeReplicasCommand(),
		a.volumeExpandCommand(), a.volumeSetCommand(), a.volumeRevertCommand(), a.volumeImportCommand(), a.volumeExportCommand(),
		a.volumeDeleteCommand(), a.volumeAttachCommand(), a.volumeDetachCommand(), a.volumeWaitCommand(),
		a.volumeScrubCommand())
}

func (a *app) volumeListCommand() *cobra.Command {
	var withUsage bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the volumes",
		Long: `List the volumes. HEALTH is healthy while all copies are in sync, degraded while
some are not, stuck while one of those cannot be resynced, and frozen while I/O
waits; volume show says for what. STATE is reverting, with how far that is, while a
volume is given back what a snapshot holds.

With --usage, USED is what a volume takes on a disk, its snapshots included, and HELD
what those hold that the volume does not have any more. To find that takes time in
proportion to what was changed. Deleted volumes are in holdfast trash list.`,
		Example: `  holdfast volume list -o wide
  holdfast volume list --usage
  holdfast volume list -o json | jq '.[] | select(.health != "healthy") | .name'`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				nodes, err := s.nodes(ctx)
				if err != nil {
					return err
				}
				volumes, err := s.listVolumes(ctx, &holdfastv1.ListVolumesRequest{WithUsage: withUsage})
				if err != nil {
					return err
				}
				views := make([]volumeView, 0, len(volumes))
				for _, v := range volumes {
					views = append(views, newVolumeView(v, nodes))
				}
				return a.print(views, volumeTable(views, withUsage))
			})
		},
	}
	cmd.Flags().BoolVar(&withUsage, "usage", false, "show what they take")
	return cmd
}

// allVolumes lists the volumes that are not in the trash.
func (s *session) allVolumes(ctx context.Context) ([]*holdfastv1.Volume, error) {
	return s.listVolumes(ctx, &holdfastv1.ListVolumesRequest{})
}

// listVolumes lists what a request asks for, in as many pages as it takes.
func (s *session) listVolumes(ctx context.Context, request *holdfastv1.ListVolumesRequest) ([]*holdfastv1.Volume, error) {
	var all []*holdfastv1.Volume
	request.MaxEntries = listPageEntries
	for {
		page, err := s.volumes.ListVolumes(ctx, request)
		if err != nil {
			return nil, err
		}
		all = append(all, page.GetVolumes()...)
		if request.StartingToken = page.GetNextToken(); request.StartingToken == "" {
			return all, nil
		}
	}
}

func (a *app) volumeShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Show all about a volume",
		Long: `Show a volume, where it is in use, what its I/O waits for if it does, its
replicas, when all of it was verified last on every replica, and the newest
places that were found damaged. Used is what it takes on a disk, its snapshots
included. NAME is its name or its ID.`,
		Example: `  holdfast volume show db
  holdfast volume show db -o json | jq -r .device`,
		Args: args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withVolume(cmd.Context(), args[0], true, func(v volumeView) error {
				shown := sections{v.details(), replicaTable(v.Copies)}
				if len(v.Scrub.Findings) > 0 {
					shown = append(shown, findingTable(v.Scrub.Findings))
				}
				return a.print(v, shown)
			})
		},
	}
}

func (a *app) volumeReplicasCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "replicas NAME",
		Short: "List the replicas of a volume",
		Long: `List the copies of a volume. One that was away is resyncing: REMAINING is what has
still to be compared, COPIED what differed and was copied.`,
		Example: `  holdfast volume replicas db
  holdfast volume replicas db -o json | jq '[.[] | select(.inSync)] | length'`,
		Args: args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withVolume(cmd.Context(), args[0], false, func(v volumeView) error {
				return a.print(v.Copies, replicaTable(v.Copies))
			})
		},
	}
}

// withVolume finds a volume, and what it takes, and runs do with it.
func (a *app) withVolume(ctx context.Context, name string, withUsage bool, do func(v volumeView) error) error {
	return a.with(ctx, func(ctx context.Context, s *session) error {
		volume, err := s.findVolume(ctx, name)
		if err != nil {
			return err
		}
		if withUsage {
			if volume, err = s.volumes.GetVolume(ctx, &holdfastv1.GetVolumeRequest{Id: volume.GetId(), WithUsage: true}); err != nil {
				return err
			}
		}
		nodes, err := s.nodes(ctx)
		if err != nil {
			return err
		}
		return do(newVolumeView(volume, nodes))
	})
}

// findFreeVolume finds a volume and refuses one that is in use.
func (s *session) findFreeVolume(ctx context.Context, name string) (*holdfastv1.Volume, error) {
	volume, err := s.findVolume(ctx, name)
	if err != nil || volume.GetPublishedNodeId() == "" {
		return volume, err
	}
	nodes, err := s.nodes(ctx)
	if err != nil {
		return nil, err
	}
	return nil, inUse(volume, nodes)
}

func newVolumeView(v *holdfastv1.Volume, nodes nodes) volumeView {
	p := v.GetParameters()
	view := volumeView{
		ID: v.GetId(), Name: v.GetName(), SizeBytes: v.GetSizeBytes(), State: strings.ToLower(v.GetState().String()),
		Replicas: p.GetReplicas(), MinInSync: p.GetMinInSync(), DiskClass: p.GetDiskClass(),
		DiskTags: list(p.GetDiskTags()), NodeTags: list(p.GetNodeTags()),
		AttachmentID: v.GetAttachmentId(), Epoch: v.GetEpoch(), Revision: v.GetRevision(),
		Device: v.GetEngine().GetDevicePath(), Frozen: v.GetEngine().GetFrozen(), Divergent: v.GetEngine().GetDivergentBytes(),
		SourceSnapshotID: v.GetSourceSnapshotId(), SourceVolumeID: v.GetSourceVolumeId(),
		ExpandingTo: v.GetExpandingToBytes(), Snapshots: v.GetSnapshotCount(),
		MaxSnapshots: cmp.Or(p.GetMaxSnapshots(), defaultSnapshots), MaxSnapshotSpace: newSpaceLimit(v.GetMaxSnapshotSpace()),
		Usage: newVolumeUsageView(v.GetUsage()), TrashedAt: formatTime(v.GetTrashedAt()), PurgedAt: formatTime(v.GetPurgedAt()),
		Copies: make([]replicaView, 0, len(v.GetReplicas())),
		Scrub:  newScrubView(v, nodes),
		Revert: newRevertView(v),
	}
	if view.Revert.underWay() {
		view.State = "reverting"
	}
	if id := v.GetPublishedNodeId(); id != "" {
		view.PublishedTo = nodes.name(id)
	}
	for _, r := range v.GetReplicas() {
		copied := newReplicaView(r, v.GetEngine(), nodes)
		if copied.InSync {
			view.InSync++
		}
		view.Copies = append(view.Copies, copied)
	}
	view.Health = view.health()
	return view
}

func newReplicaView(r *holdfastv1.Replica, engine *holdfastv1.EngineStatus, nodes nodes) replicaView {
	view := replicaView{
		ID: r.GetId(), Node: nodes.name(r.GetNodeId()), NodeID: r.GetNodeId(), Disk: r.GetDiskId(), InSync: r.GetInSync(),
		State: "out of sync",
	}
	for _, resync := range engine.GetResyncs() {
		if resync.GetReplicaId() == r.GetId() {
			view.State, view.RemainingBytes, view.CopiedBytes = "resyncing", resync.GetRemainingBytes(), resync.GetCopiedBytes()
			view.Waits = resync.GetWaits()
		}
	}
	switch {
	case !r.GetReady():
		view.State = "being made"
	case r.GetInSync():
		view.State = "in sync"
	}
	if r.GetLeaving() {
		view.State += ", being replaced"
	}
	return view
}

// health is one word for the state of the data.
func (v *volumeView) health() string {
	waits := func(c replicaView) bool { return c.Waits != "" }
	switch {
	case v.Frozen != "":
		return "frozen"
	case int32(v.InSync) < v.Replicas && slices.ContainsFunc(v.Copies, waits):
		return "stuck"
	case int32(v.InSync) < v.Replicas:
		return "degraded"
	default:
		return "healthy"
	}
}

// where names the nodes that hold a copy.
func (v *volumeView) where() string {
	var names []string
	for _, r := range v.Copies {
		names = append(names, r.Node)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func (v *volumeView) details() details {
	lines := details{
		{"Name", v.Name},
		{"ID", v.ID},
		{"Size", formatSize(v.SizeBytes)},
		{"State", v.State},
		{"Health", v.Health},
		{"Replicas", fmt.Sprintf("%d, %d in sync, writes need %d", v.Replicas, v.InSync, v.MinInSync)},
		{"Disk class", v.DiskClass},
		{"Disk tags", strings.Join(v.DiskTags, ",")},
		{"Node tags", strings.Join(v.NodeTags, ",")},
		{"Published to", v.PublishedTo},
		{"Device", v.Device},
		{"Attachment", v.AttachmentID},
		{"Epoch", strconv.FormatUint(v.Epoch, 10)},
		{"Revision", strconv.FormatUint(v.Revision, 10)},
		{"Used", v.Usage.used()},
		{"Snapshots", fmt.Sprintf("%d, %d at most", v.Snapshots, v.MaxSnapshots)},
		{"They hold", v.held()},
	}
	switch {
	case v.SourceSnapshotID != "":
		lines = append(lines, [2]string{"Made from", "snapshot " + v.SourceSnapshotID})
	case v.SourceVolumeID != "":
		lines = append(lines, [2]string{"Made from", "volume " + v.SourceVolumeID})
	}
	if v.TrashedAt != "" {
		lines = append(lines, [2]string{"In the trash", fmt.Sprintf("since %s, until %s", v.TrashedAt, v.PurgedAt)})
	}
	if v.ExpandingTo > 0 {
		lines = append(lines, [2]string{"Expanding to", formatSize(v.ExpandingTo)})
	}
	lines = append(lines, v.Revert.details()...)
	if v.Frozen != "" {
		lines = append(lines, [2]string{"I/O waits", v.Frozen})
	}
	for _, c := range v.Copies {
		if c.Waits != "" {
			lines = append(lines, [2]string{"Resync waits", c.Node + ": " + c.Waits})
		}
	}
	if v.Divergent > 0 {
		lines = append(lines, [2]string{"Divergent", formatSize(v.Divergent)})
	}
	return append(lines, v.Scrub.details(v.SizeBytes)...)
}

// held is what the snapshots hold, and may hold if that is bounded.
func (v *volumeView) held() string {
	held := v.Usage.held()
	if v.MaxSnapshotSpace != (spaceLimit{}) {
		held = fmt.Sprintf("%s, %s at most", orDash(held), v.MaxSnapshotSpace.forPeople())
	}
	return held
}

func volumeTable(views []volumeView, withUsage bool) table {
	t := table{
		columns: []column{
			{title: "NAME"}, {title: "SIZE"}, {title: "STATE"}, {title: "HEALTH"}, {title: "IN-SYNC"}, {title: "PUBLISHED-TO"}, {title: "DEVICE"},
			{title: "COPIES", wide: true}, {title: "EPOCH", wide: true}, {title: "REVISION", wide: true}, {title: "SNAPSHOTS", wide: true},
			{title: "ID", wide: true},
		},
		empty: "There are no volumes. Make one: holdfast volume create NAME --size 10GiB",
	}
	if withUsage {
		t.columns = append(t.columns, column{title: "USED"}, column{title: "HELD"})
	}
	for _, v := range views {
		row := []string{
			v.Name, formatSize(v.SizeBytes), v.shownState(), v.Health, fmt.Sprintf("%d/%d", v.InSync, v.Replicas), v.PublishedTo, v.Device,
			v.where(), strconv.FormatUint(v.Epoch, 10), strconv.FormatUint(v.Revision, 10), strconv.Itoa(int(v.Snapshots)), v.ID,
		}
		if withUsage {
			row = append(row, v.Usage.used(), v.Usage.held())
		}
		t.rows = append(t.rows, row)
	}
	return t
}

func replicaTable(views []replicaView) table {
	t := table{
		columns: []column{
			{title: "NODE"}, {title: "STATE"}, {title: "REMAINING"}, {title: "COPIED"}, {title: "DISK", wide: true}, {title: "ID"},
		},
		empty: "The volume has no replicas.",
	}
	for _, v := range views {
		remaining, copied := "", ""
		if strings.HasPrefix(v.State, "resyncing") {
			remaining, copied = formatSize(v.RemainingBytes), formatSize(v.CopiedBytes)
		}
		t.rows = append(t.rows, []string{v.Node, v.State, remaining, copied, v.Disk, v.ID})
	}
	return t
}
