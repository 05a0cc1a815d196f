package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// listPageEntries is how many volumes are asked for at a time.
const listPageEntries = 500

// volumeView is the JSON of a volume.
type volumeView struct {
	ID           string        `json:"id"`
	Name         string        `json:"name"`
	SizeBytes    int64         `json:"sizeBytes"`
	State        string        `json:"state"`
	Health       string        `json:"health"`
	Replicas     int32         `json:"replicas"`
	InSync       int           `json:"inSync"`
	MinInSync    int32         `json:"minInSync"`
	DiskClass    string        `json:"diskClass"`
	DiskTags     []string      `json:"diskTags"`
	NodeTags     []string      `json:"nodeTags"`
	PublishedTo  string        `json:"publishedTo"`
	AttachmentID string        `json:"attachmentId"`
	Epoch        uint64        `json:"epoch"`
	Revision     uint64        `json:"revision"`
	Device       string        `json:"device"`
	Frozen       string        `json:"frozen"`
	Divergent    int64         `json:"divergentBytes"`
	Copies       []replicaView `json:"copies"`
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
}

func (a *app) volumeCommand() *cobra.Command {
	return group("volume", "Make, look at, use and delete volumes",
		a.volumeCreateCommand(), a.volumeListCommand(), a.volumeShowCommand(), a.volumeReplicasCommand(),
		a.volumeDeleteCommand(), a.volumeAttachCommand(), a.volumeDetachCommand(), a.volumeWaitCommand())
}

func (a *app) volumeCreateCommand() *cobra.Command {
	var bytes size
	parameters := &holdfastv1.VolumeParameters{}
	cmd := &cobra.Command{
		Use:   "create NAME --size SIZE",
		Short: "Make a volume",
		Long: `Make a volume and wait until all its replicas exist. The same command twice makes
one volume.`,
		Example: `  holdfast volume create db --size 100GiB
  holdfast volume create scratch --size 1TiB --replicas 1 --disk-class hdd`,
		Args: args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if bytes == 0 {
				return usageError{fmt.Errorf("flag --size is missing; see %s --help", cmd.CommandPath())}
			}
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				var volume *holdfastv1.Volume
				err := a.working("making replicas", func() (err error) {
					volume, err = s.volumes.CreateVolume(ctx, &holdfastv1.CreateVolumeRequest{
						Name: args[0], SizeBytes: int64(bytes), Parameters: parameters,
					})
					return err
				})
				if err != nil {
					return err
				}
				nodes, err := s.nodes(ctx)
				if err != nil {
					return err
				}
				view := newVolumeView(volume, nodes)
				return a.print(view, sentence(fmt.Sprintf("Volume %s made: %s on %s.", view.Name, formatSize(view.SizeBytes), view.where())))
			})
		},
	}
	cmd.Flags().Var(&bytes, "size", "size, such as 10GiB; rounded up to whole MiB")
	cmd.Flags().Int32Var(&parameters.Replicas, "replicas", 3, "copies, each on another node")
	cmd.Flags().Int32Var(&parameters.MinInSync, "min-in-sync", 1, "in-sync copies that writes need after a failure; they wait while there are fewer")
	cmd.Flags().StringVar(&parameters.DiskClass, "disk-class", "", "nvme, ssd or hdd (default: any)")
	cmd.Flags().StringSliceVar(&parameters.DiskTags, "disk-tag", nil, "tag that the disks must have; repeat for more")
	cmd.Flags().StringSliceVar(&parameters.NodeTags, "node-tag", nil, "tag that the nodes must have; repeat for more")
	return cmd
}

func (a *app) volumeListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the volumes",
		Long: `List the volumes. HEALTH is healthy while all copies are in sync, degraded while
some are not, and frozen while I/O waits; volume show says for what.`,
		Example: `  holdfast volume list -o wide
  holdfast volume list -o json | jq '.[] | select(.health != "healthy") | .name'`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				nodes, err := s.nodes(ctx)
				if err != nil {
					return err
				}
				views := []volumeView{}
				for token := ""; ; {
					page, err := s.volumes.ListVolumes(ctx, &holdfastv1.ListVolumesRequest{MaxEntries: listPageEntries, StartingToken: token})
					if err != nil {
						return err
					}
					for _, v := range page.GetVolumes() {
						views = append(views, newVolumeView(v, nodes))
					}
					if token = page.GetNextToken(); token == "" {
						return a.print(views, volumeTable(views))
					}
				}
			})
		},
	}
}

func (a *app) volumeShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Show all about a volume",
		Long: `Show a volume, where it is in use, what its I/O waits for if it does, and its
replicas. NAME is its name or its ID.`,
		Example: `  holdfast volume show db
  holdfast volume show db -o json | jq -r .device`,
		Args: args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withVolume(cmd.Context(), args[0], func(v volumeView) error {
				return a.print(v, sections{v.details(), replicaTable(v.Copies)})
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
			return a.withVolume(cmd.Context(), args[0], func(v volumeView) error {
				return a.print(v.Copies, replicaTable(v.Copies))
			})
		},
	}
}

// withVolume finds a volume and runs do with it.
func (a *app) withVolume(ctx context.Context, name string, do func(v volumeView) error) error {
	return a.with(ctx, func(ctx context.Context, s *session) error {
		volume, err := s.findVolume(ctx, name)
		if err != nil {
			return err
		}
		nodes, err := s.nodes(ctx)
		if err != nil {
			return err
		}
		return do(newVolumeView(volume, nodes))
	})
}

func (a *app) volumeDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete a volume and all its data",
		Long: `Delete a volume and all its data, at once and for good. A volume that is in use
is refused. One that does not exist is an error here (exit code 3).`,
		Args: args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				volume, err := s.findVolume(ctx, args[0])
				if err != nil {
					return err
				}
				if id := volume.GetPublishedNodeId(); id != "" {
					nodes, err := s.nodes(ctx)
					if err != nil {
						return err
					}
					return inUse(volume, nodes)
				}
				if _, err := s.volumes.DeleteVolume(ctx, &holdfastv1.DeleteVolumeRequest{Id: volume.GetId()}); err != nil {
					return err
				}
				return a.print(struct {
					ID string `json:"id"`
				}{volume.GetId()}, sentence("Volume "+volume.GetName()+" deleted."))
			})
		},
	}
}

func newVolumeView(v *holdfastv1.Volume, nodes nodes) volumeView {
	p := v.GetParameters()
	view := volumeView{
		ID: v.GetId(), Name: v.GetName(), SizeBytes: v.GetSizeBytes(), State: strings.ToLower(v.GetState().String()),
		Replicas: p.GetReplicas(), MinInSync: p.GetMinInSync(), DiskClass: p.GetDiskClass(),
		DiskTags: list(p.GetDiskTags()), NodeTags: list(p.GetNodeTags()),
		AttachmentID: v.GetAttachmentId(), Epoch: v.GetEpoch(), Revision: v.GetRevision(),
		Device: v.GetEngine().GetDevicePath(), Frozen: v.GetEngine().GetFrozen(), Divergent: v.GetEngine().GetDivergentBytes(),
		Copies: make([]replicaView, 0, len(v.GetReplicas())),
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
		}
	}
	switch {
	case !r.GetReady():
		view.State = "being made"
	case r.GetInSync():
		view.State = "in sync"
	}
	return view
}

// health is one word for the state of the data.
func (v *volumeView) health() string {
	switch {
	case v.Frozen != "":
		return "frozen"
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
	}
	if v.Frozen != "" {
		lines = append(lines, [2]string{"I/O waits", v.Frozen})
	}
	if v.Divergent > 0 {
		lines = append(lines, [2]string{"Divergent", formatSize(v.Divergent)})
	}
	return lines
}

func volumeTable(views []volumeView) table {
	t := table{
		columns: []column{
			{title: "NAME"}, {title: "SIZE"}, {title: "STATE"}, {title: "HEALTH"}, {title: "IN-SYNC"}, {title: "PUBLISHED-TO"}, {title: "DEVICE"},
			{title: "COPIES", wide: true}, {title: "EPOCH", wide: true}, {title: "REVISION", wide: true}, {title: "ID", wide: true},
		},
		empty: "There are no volumes. Make one: holdfast volume create NAME --size 10GiB",
	}
	for _, v := range views {
		t.rows = append(t.rows, []string{
			v.Name, formatSize(v.SizeBytes), v.State, v.Health, fmt.Sprintf("%d/%d", v.InSync, v.Replicas), v.PublishedTo, v.Device,
			v.where(), strconv.FormatUint(v.Epoch, 10), strconv.FormatUint(v.Revision, 10), v.ID,
		})
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
		if v.State == "resyncing" {
			remaining, copied = formatSize(v.RemainingBytes), formatSize(v.CopiedBytes)
		}
		t.rows = append(t.rows, []string{v.Node, v.State, remaining, copied, v.Disk, v.ID})
	}
	return t
}
