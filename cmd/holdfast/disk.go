package main

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

func (a *app) diskCommand() *cobra.Command {
	return group("disk", "Look at the disks, add, empty, replace, remove and verify some",
		a.diskAddCommand(), a.diskListCommand(), a.diskShowCommand(), a.diskCordonCommand(true), a.diskCordonCommand(false),
		a.diskDrainCommand(), a.diskReplaceCommand(), a.diskRemoveCommand(),
		a.diskCheckCommand(), a.diskInspectCommand())
}

func (a *app) diskAddCommand() *cobra.Command {
	var node string
	request := &holdfastv1.AddDiskRequest{}
	cmd := &cobra.Command{
		Use:   "add PATH",
		Short: "Give a directory or a device to the cluster",
		Long: `Give a directory or a block device to the cluster, as a disk of the node whose
daemon answers or of --node. PATH is absolute, on that node.

A directory should be the root of a file system of its own (XFS): what else lies
on it competes for space and bandwidth. Its content is not touched; a directory
that holds something foreign is refused.

A block device (/dev/...) is given as a whole: it gets an XFS, which the daemon
mounts below its data directory, also after a reboot and under another name of the
device. One that is mounted, swapped on, or part of something is refused; so is
one that holds partitions, a file system, a part of a volume group or array, or
anything else, unless --force says that it may be lost.

What is a disk of this cluster already is taken back with everything on it, also
from another node that no longer has it: that is how a disk moves. A disk that
failed is opened anew.`,
		Example: `  holdfast disk add /dev/disk/by-id/nvme-KXG60ZNV256G_99PS107LQ --class nvme
  holdfast disk add /mnt/ssd1 --node n2 --class ssd --tag fast`,
		Args: args("PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := args[0]
			if !filepath.IsAbs(path) {
				return usageError{fmt.Errorf("PATH %q must be absolute: it is a directory or device of the node, which may not be this machine", path)}
			}
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				nodes, err := s.nodes(ctx)
				if err != nil {
					return err
				}
				request.Path = path
				if node != "" {
					n, err := nodes.find(node)
					if err != nil {
						return err
					}
					request.NodeId = n.GetId()
				}
				disk, err := s.cluster.AddDisk(ctx, request)
				if err != nil {
					return adviseAdding(err)
				}
				view := newDiskView(disk, nodes)
				return a.print(view, sentence("Disk "+view.ID+" of node "+view.Node+" added: "+path+"."))
			})
		},
	}
	cmd.Flags().StringVar(&node, "node", "", "name of the node (default: the one that answers)")
	cmd.Flags().StringVar(&request.Class, "class", "", "nvme, ssd or hdd (default: none)")
	cmd.Flags().StringSliceVar(&request.Tags, "tag", nil, "tag that volumes may ask for; repeat for more")
	cmd.Flags().BoolVar(&request.Force, "force", false, "format a block device whatever it holds")
	return cmd
}

// adviseAdding says what to do with a directory that holds something else.
func adviseAdding(err error) error {
	return advise(err, codes.AlreadyExists, "give an empty directory, best the root of a file system of its own")
}

func (a *app) diskCordonCommand(cordon bool) *cobra.Command {
	var node string
	use, short, done := "cordon", "Put nothing new on a disk", "cordoned: nothing new is put on it"
	long := `Take a disk out of placement: volumes that are created from now on do not use it.
What is on it stays, works, and is resynced. DISK is an ID, or a path or device,
with --node if several nodes have one.`
	if !cordon {
		use, short, done = "uncordon", "Use a disk for new volumes again", "used for new volumes again"
		long = `Put a disk back into placement, and stop draining it. DISK is an ID, or a path or device, with --node if
several nodes have one.`
	}
	cmd := &cobra.Command{
		Use:     use + " DISK",
		Short:   short,
		Long:    long,
		Example: "  holdfast disk " + use + " /mnt/ssd1 --node n2",
		Args:    args("DISK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.cordonDisk(cmd.Context(), args[0], node, cordon, done)
		},
	}
	cmd.Flags().StringVar(&node, "node", "", "name of the disk's node")
	return cmd
}

func (a *app) cordonDisk(ctx context.Context, name, node string, cordon bool, done string) error {
	return a.with(ctx, func(ctx context.Context, s *session) error {
		disk, nodes, err := s.disk(ctx, name, node)
		if err != nil {
			return err
		}
		changed, err := s.cluster.CordonDisk(ctx, &holdfastv1.CordonDiskRequest{DiskId: disk.GetId(), Cordoned: cordon})
		if err != nil {
			return err
		}
		view := newDiskView(changed, nodes)
		return a.print(view, sentence("Disk "+view.ID+" of node "+view.Node+" is "+done+"."))
	})
}

func (a *app) diskRemoveCommand() *cobra.Command {
	var node string
	var lost bool
	cmd := &cobra.Command{
		Use:   "remove DISK",
		Short: "Take a disk without replicas out of the cluster",
		Long: `Take a disk out of the cluster. Refused, with a list, while a volume has a replica
on it: holdfast disk drain moves those elsewhere. What lies on it is left as it is; a
device is unmounted. A node that is down lets go of the disk when it is back.

A replica that was deleted counts until its disk has said that it is gone. --lost is
for a disk that never will: such replicas are forgotten with it.

DISK is an ID, or a path or device, with --node if several nodes have one.`,
		Example: `  holdfast disk drain /mnt/ssd1 --node n2
  holdfast disk remove /mnt/ssd1 --node n2`,
		Args: args("DISK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				disk, nodes, err := s.disk(ctx, args[0], node)
				if err != nil {
					return err
				}
				if _, err := s.cluster.RemoveDisk(ctx, &holdfastv1.RemoveDiskRequest{DiskId: disk.GetId(), Lost: lost}); err != nil {
					return advise(err, codes.FailedPrecondition, "holdfast disk drain "+disk.GetId()+" moves what is on it elsewhere")
				}
				view := newDiskView(disk, nodes)
				return a.print(view, sentence("Disk "+view.ID+" of node "+view.Node+" removed: "+cmp.Or(view.Device, view.Path)+"."))
			})
		},
	}
	cmd.Flags().StringVar(&node, "node", "", "name of the disk's node")
	cmd.Flags().BoolVar(&lost, "lost", false, "it does not come back: forget what was deleted on it")
	return cmd
}

// disk finds a disk by its ID, or by its path or device on a node; on any node, if
// there is only one such.
func (s *session) disk(ctx context.Context, name, node string) (*holdfastv1.Disk, nodes, error) {
	nodes, err := s.nodes(ctx)
	if err != nil {
		return nil, nil, err
	}
	if node != "" {
		n, err := nodes.find(node)
		if err != nil {
			return nil, nil, err
		}
		node = n.GetId()
	}
	response, err := s.cluster.ListDisks(ctx, &holdfastv1.ListDisksRequest{})
	if err != nil {
		return nil, nil, err
	}
	var found []*holdfastv1.Disk
	for _, d := range response.GetDisks() {
		named := d.GetId() == name || d.GetPath() == name || d.GetDevice() == name
		if named && (node == "" || d.GetNodeId() == node) {
			found = append(found, d)
		}
	}
	switch len(found) {
	case 0:
		return nil, nil, failure{code: codes.NotFound, message: fmt.Sprintf("disk %q does not exist", name), hint: "holdfast disk list shows the disks"}
	case 1:
		if name != found[0].GetId() {
			s.named[found[0].GetId()] = name
		}
		return found[0], nodes, nil
	default:
		return nil, nil, usageError{fmt.Errorf("%d nodes have a disk %q: say which with --node, or give its ID", len(found), name)}
	}
}
