package main

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// moveView is the JSON of a replica that is to leave a disk.
type moveView struct {
	Volume         string `json:"volume"`
	VolumeID       string `json:"volumeId"`
	Replica        string `json:"replica"`
	State          string `json:"state"`
	Reason         string `json:"reason"`
	ToDisk         string `json:"toDisk"`
	SizeBytes      int64  `json:"sizeBytes"`
	RemainingBytes int64  `json:"remainingBytes"`
}

func newMoveViews(moves []*holdfastv1.ReplicaMove) []moveView {
	views := make([]moveView, 0, len(moves))
	for _, m := range moves {
		view := moveView{
			Volume: m.GetVolumeName(), VolumeID: m.GetVolumeId(), Replica: m.GetReplicaId(), State: strings.ToLower(m.GetState().String()),
			Reason: m.GetReason(), ToDisk: m.GetNewDiskId(), SizeBytes: m.GetSizeBytes(), RemainingBytes: m.GetSizeBytes(),
		}
		switch {
		case m.GetState() == holdfastv1.ReplicaMove_COPYING && m.GetRemainingBytes() >= 0:
			view.RemainingBytes = m.GetRemainingBytes()
		case m.GetState() == holdfastv1.ReplicaMove_LEAVING, m.GetState() == holdfastv1.ReplicaMove_DELETING:
			view.RemainingBytes = 0
		}
		views = append(views, view)
	}
	return views
}

// left is how many replicas are still needed where they are, and why the first of them
// does not move, if none does.
func (v *diskView) left() (count int, stuck string) {
	moving := false
	for _, m := range v.Moves {
		if m.State == "deleting" {
			continue
		}
		count++
		moving = moving || m.Reason == ""
		stuck = cmp.Or(stuck, m.Reason)
	}
	if moving {
		stuck = ""
	}
	return count, stuck
}

// empty reports whether all that a drain can do is done: nothing is left, or only what
// was deleted on a disk that cannot say so.
func (v *diskView) empty() bool {
	for _, m := range v.Moves {
		if m.State != "deleting" || m.Reason == "" {
			return false
		}
	}
	return v.Draining && int(v.Replicas) == len(v.Moves)
}

// drained says how far a drain is.
func (v *diskView) drained() string {
	left, stuck := v.left()
	switch {
	case left > 0 && stuck != "":
		return fmt.Sprintf("draining: %d left, waiting: %s", left, stuck)
	case left > 0:
		return fmt.Sprintf("draining: %d left", left)
	case v.Replicas > 0:
		return fmt.Sprintf("drained, %d still to be deleted", v.Replicas)
	default:
		return "drained"
	}
}

func (a *app) diskShowCommand() *cobra.Command {
	var node string
	cmd := &cobra.Command{
		Use:   "show DISK",
		Short: "Show a disk, and what is still to leave it",
		Long: `Show a disk. Of one that is drained it tells for each replica that is still on it
where it goes, how much is left, and what it waits for. DISK is an ID, or a path or
device, with --node if several nodes have one.`,
		Example: "  holdfast disk show /mnt/ssd1 --node n2",
		Args:    args("DISK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				disk, nodes, err := s.disk(ctx, args[0], node)
				if err != nil {
					return err
				}
				view := newDiskView(disk, nodes)
				people := sections{view.details()}
				if len(view.Moves) > 0 {
					people = append(people, moveTable(view.Moves))
				}
				return a.print(view, people)
			})
		},
	}
	cmd.Flags().StringVar(&node, "node", "", "name of the disk's node")
	return cmd
}

func (v *diskView) details() details {
	return details{
		{"Node", v.Node}, {"Path", v.Path}, {"Device", v.Device}, {"ID", v.ID}, {"State", v.state()},
		{"Class", v.Class}, {"Tags", strings.Join(v.Tags, ",")}, {"Capacity", formatSize(v.CapacityBytes)},
		{"Free", formatSize(v.FreeBytes)}, {"Provisioned", formatSize(v.ProvisionedBytes)}, {"Replicas", strconv.Itoa(int(v.Replicas))},
	}
}

func moveTable(moves []moveView) table {
	t := table{columns: []column{
		{title: "VOLUME"}, {title: "STATE"}, {title: "SIZE"}, {title: "REMAINING"}, {title: "WAITS FOR"}, {title: "TO-DISK", wide: true}, {title: "REPLICA", wide: true},
	}}
	for _, m := range moves {
		t.rows = append(t.rows, []string{m.Volume, m.State, formatSize(m.SizeBytes), formatSize(m.RemainingBytes), m.Reason, m.ToDisk, m.Replica})
	}
	return t
}

// drainOptions are what drain and replace have in common.
type drainOptions struct {
	node   string
	noWait bool
}

func (o *drainOptions) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.node, "node", "", "name of the disk's node")
	cmd.Flags().BoolVar(&o.noWait, "no-wait", false, "return as soon as it has begun")
}

func (a *app) diskDrainCommand() *cobra.Command {
	var o drainOptions
	var undo bool
	cmd := &cobra.Command{
		Use:   "drain DISK",
		Short: "Move everything off a disk",
		Long: `Move every replica on a disk to other disks, by the rules by which volumes were
placed. Volumes stay in use, and never have fewer copies in sync than before. The
disk is cordoned. It may have failed, or be gone: then its replicas are made anew
from the others.

On a terminal, a bar shows how much is left. What cannot move yet, for want of room
for instance, waits and goes on by itself. Interrupting the command, or --no-wait,
changes nothing: holdfast disk show tells how far it is. --undo puts the disk back;
replicas that have moved stay where they are.

Afterwards the disk can be removed. Without --timeout this waits as long as it takes.`,
		Example: `  holdfast disk drain /mnt/ssd1 --node n2
  holdfast disk drain /mnt/ssd1 --node n2 --undo`,
		Args: args("DISK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if undo {
				return a.cordonDisk(cmd.Context(), args[0], o.node, false, "drained no more, and used for new volumes again")
			}
			return a.drainDisk(cmd, &o, args[0], func(context.Context, *session, diskView) (string, error) { return "", nil })
		},
	}
	o.flags(cmd)
	cmd.Flags().BoolVar(&undo, "undo", false, "stop, and use the disk again")
	return cmd
}

func (a *app) diskReplaceCommand() *cobra.Command {
	var o drainOptions
	request := &holdfastv1.AddDiskRequest{}
	cmd := &cobra.Command{
		Use:   "replace DISK PATH",
		Short: "Put a new disk in the place of one that fails",
		Long: `Give PATH, a directory or device, to the cluster, and move every replica that is on
DISK: to the new disk where the rules of a volume allow it, else to any other. DISK
may still work, have failed, or be gone for good. PATH is on the node of DISK, or on
--to-node; one that is a disk of the cluster already is used as it is.

Class and tags are those of DISK unless they are given. The rest is as with
holdfast disk drain.`,
		Example: `  holdfast disk replace /mnt/ssd1 /mnt/ssd2 --node n2
  holdfast disk replace 64a1… /dev/disk/by-id/nvme-KXG60ZNV256G_99PS107LQ --no-wait`,
		Args: args("DISK", "PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !filepath.IsAbs(args[1]) {
				return usageError{fmt.Errorf("PATH %q must be absolute: it is a directory or device of the node, which may not be this machine", args[1])}
			}
			request.Path = args[1]
			return a.drainDisk(cmd, &o, args[0], func(ctx context.Context, s *session, old diskView) (string, error) {
				return s.successor(ctx, request, old)
			})
		},
	}
	o.flags(cmd)
	cmd.Flags().StringVar(&request.NodeId, "to-node", "", "name of the new disk's node (default: that of DISK)")
	cmd.Flags().StringVar(&request.Class, "class", "", "nvme, ssd or hdd (default: that of DISK)")
	cmd.Flags().StringSliceVar(&request.Tags, "tag", nil, "tag that volumes may ask for; repeat for more (default: those of DISK)")
	cmd.Flags().BoolVar(&request.Force, "force", false, "format a block device whatever it holds")
	return cmd
}

// successor adds the disk that takes the place of another one, and returns its ID. One
// that the cluster has at that path is used as it is.
func (s *session) successor(ctx context.Context, request *holdfastv1.AddDiskRequest, old diskView) (string, error) {
	nodes, err := s.nodes(ctx)
	if err != nil {
		return "", err
	}
	node := old.NodeID
	if request.GetNodeId() != "" {
		n, err := nodes.find(request.GetNodeId())
		if err != nil {
			return "", err
		}
		node = n.GetId()
	}
	response, err := s.cluster.ListDisks(ctx, &holdfastv1.ListDisksRequest{})
	if err != nil {
		return "", err
	}
	for _, d := range response.GetDisks() {
		if d.GetNodeId() == node && d.GetFailure() == "" && d.GetId() != old.ID && (d.GetPath() == request.GetPath() || d.GetDevice() == request.GetPath()) {
			return d.GetId(), nil
		}
	}
	request.NodeId = node
	request.Class = cmp.Or(request.GetClass(), old.Class)
	if len(request.GetTags()) == 0 {
		request.Tags = old.Tags
	}
	disk, err := s.cluster.AddDisk(ctx, request)
	if err != nil {
		return "", adviseAdding(err)
	}
	return disk.GetId(), nil
}

// drainDisk begins to drain a disk, onto what successor says, and waits for the end.
func (a *app) drainDisk(cmd *cobra.Command, o *drainOptions, name string, successor func(context.Context, *session, diskView) (string, error)) error {
	return a.patiently(cmd, func(ctx context.Context, s *session) error {
		disk, nodes, err := s.disk(ctx, name, o.node)
		if err != nil {
			return err
		}
		next, err := successor(ctx, s, newDiskView(disk, nodes))
		if err != nil {
			return err
		}
		disk, err = s.cluster.DrainDisk(ctx, &holdfastv1.DrainDiskRequest{DiskId: disk.GetId(), SuccessorId: next})
		if err != nil {
			return err
		}
		view := newDiskView(disk, nodes)
		if o.noWait {
			return a.print(view, sentence(fmt.Sprintf("Disk %s of node %s is being drained: %d replicas. holdfast disk show tells how far it is.", view.ID, view.Node, view.Replicas)))
		}
		return a.waitDrained(ctx, s, view)
	})
}

// waitDrained waits until nothing on a disk is needed any more.
func (a *app) waitDrained(ctx context.Context, s *session, view diskView) error {
	var total int64
	for _, m := range view.Moves {
		total += m.SizeBytes
	}
	err := a.watch(ctx, "drain of "+cmp.Or(view.Device, view.Path), func(ctx context.Context) (sight, error) {
		disk, nodes, err := s.disk(ctx, view.ID, "")
		if err != nil {
			return sight{}, err
		}
		view = newDiskView(disk, nodes)
		if !view.Draining {
			return sight{}, failure{code: codes.Aborted, message: "disk " + view.ID + " is drained no more", hint: "somebody has put it back: holdfast disk uncordon"}
		}
		var remaining int64
		for _, m := range view.Moves {
			remaining += m.RemainingBytes
		}
		return sight{
			over: view.empty(), done: max(total-remaining, 0), total: total, note: view.drained(),
			says: fmt.Sprintf("disk %s is %s", view.ID, view.drained()),
		}, nil
	})
	if err != nil {
		return err
	}
	text := fmt.Sprintf("Disk %s of node %s is empty; it can go: holdfast disk remove %s", view.ID, view.Node, view.ID)
	if view.Replicas > 0 {
		text = fmt.Sprintf("Nothing on disk %s of node %s is needed any more. If it does not come back: holdfast disk remove %s --lost", view.ID, view.Node, view.ID)
	}
	return a.print(view, sentence(text))
}
