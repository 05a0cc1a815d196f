package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// takeBackTimeout bounds the undoing of an attachment that failed.
const takeBackTimeout = 10 * time.Second

// attachView is the JSON of volume attach.
type attachView struct {
	ID           string `json:"id"`
	Node         string `json:"node"`
	Device       string `json:"device"`
	AttachmentID string `json:"attachmentId"`
}

func (a *app) volumeAttachCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "attach NAME",
		Short: "Show a volume as a block device of a node",
		Long: `Show a volume as a block device of the node whose daemon answers, or of --node,
and print the path of the device. This is how a volume is used without
Kubernetes; volumes of pods are attached by the CSI plugin. Attaching again
prints the device that is there.

A daemon that runs with --frontend socket prints an NBD URI instead, for tools
that speak NBD.`,
		Example: `  mkfs.ext4 $(holdfast volume attach db)
  holdfast volume attach db --node n2
  qemu-img info "$(holdfast volume attach db)"`,
		Args: args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				view, err := a.attach(ctx, s, args[0], name)
				if err != nil {
					return err
				}
				return a.print(view, sentence(view.Device))
			})
		},
	}
	cmd.Flags().StringVar(&name, "node", "", "name of the node (default: the one that answers)")
	return cmd
}

func (a *app) attach(ctx context.Context, s *session, volumeName, nodeName string) (attachView, error) {
	volume, err := s.findVolume(ctx, volumeName)
	if err != nil {
		return attachView{}, err
	}
	nodes, err := s.nodes(ctx)
	if err != nil {
		return attachView{}, err
	}
	node, err := s.chooseNode(ctx, nodes, nodeName)
	if err != nil {
		return attachView{}, err
	}
	if holder := volume.GetPublishedNodeId(); holder != "" && holder != node.GetId() {
		return attachView{}, inUse(volume, nodes)
	}
	view := attachView{ID: volume.GetId(), Node: node.GetName()}
	err = a.working("attaching", func() error {
		if _, err := s.volumes.PublishVolume(ctx, &holdfastv1.PublishVolumeRequest{VolumeId: volume.GetId(), NodeId: node.GetId()}); err != nil {
			return err
		}
		err := s.onNode(ctx, node, func(on *session) error {
			staged, err := on.agent.StageVolume(ctx, &holdfastv1.StageVolumeRequest{VolumeId: volume.GetId()})
			view.Device, view.AttachmentID = staged.GetDevicePath(), staged.GetAttachmentId()
			return err
		})
		if err != nil && volume.GetPublishedNodeId() == "" {
			return s.takeBack(ctx, volume, node, err)
		}
		return err
	})
	return view, err
}

// takeBack undoes the publishing of an attachment that failed, so that the volume
// can be attached elsewhere. cause is what failed.
func (s *session) takeBack(ctx context.Context, volume *holdfastv1.Volume, node *holdfastv1.Node, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), takeBackTimeout)
	defer cancel()
	_, err := s.volumes.UnpublishVolume(ctx, &holdfastv1.UnpublishVolumeRequest{VolumeId: volume.GetId(), NodeId: node.GetId()})
	if err != nil {
		return fmt.Errorf("%w (and it is still published there: %w)", cause, err)
	}
	return cause
}

// chooseNode is the node of that name, or the one that answers.
func (s *session) chooseNode(ctx context.Context, nodes nodes, name string) (*holdfastv1.Node, error) {
	if name != "" {
		return nodes.find(name)
	}
	return s.agent.GetNode(ctx, &holdfastv1.GetNodeRequest{})
}

// inUse says who has a volume and how to take it away.
func inUse(volume *holdfastv1.Volume, nodes nodes) error {
	return failure{
		code:    codes.FailedPrecondition,
		message: fmt.Sprintf("volume %s is attached to node %s", volume.GetName(), nodes.name(volume.GetPublishedNodeId())),
		hint:    "take it off there first: holdfast volume detach " + volume.GetName() + " (or delete the pod that uses it)",
	}
}

func (a *app) volumeDetachCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "detach NAME",
		Short: "Take a volume off its node",
		Long: `Write out what is pending, remove the block device, and free the volume for
another node. Unmount it first. Detaching what is not attached succeeds.

With --force the node is not asked: its attachment is ended by the cluster, and
whatever the node still had to write is lost. Use it when the node is off.`,
		Args: args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				volume, err := s.findVolume(ctx, args[0])
				if err != nil {
					return err
				}
				if err := a.working("detaching", func() error { return a.detach(ctx, s, volume, force) }); err != nil {
					return err
				}
				return a.print(struct {
					ID string `json:"id"`
				}{volume.GetId()}, sentence("Volume "+volume.GetName()+" detached."))
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "do not ask the node; what it had not written is lost")
	return cmd
}

func (a *app) detach(ctx context.Context, s *session, volume *holdfastv1.Volume, force bool) error {
	holder := volume.GetPublishedNodeId()
	if holder == "" {
		return nil
	}
	if !force {
		nodes, err := s.nodes(ctx)
		if err != nil {
			return err
		}
		node, err := nodes.find(holder)
		if err != nil {
			return err
		}
		if err := s.onNode(ctx, node, func(on *session) error { return a.unstage(ctx, on, volume) }); err != nil {
			if code(err) != codes.Unavailable {
				return err
			}
			return failure{
				code:    codes.Unavailable,
				message: err.Error(),
				hint:    "if it is off for certain: holdfast volume detach --force " + volume.GetName(),
			}
		}
	}
	_, err := s.volumes.UnpublishVolume(ctx, &holdfastv1.UnpublishVolumeRequest{VolumeId: volume.GetId(), NodeId: holder})
	return err
}

// unstage removes the device on its node, unless it is mounted. That can be seen
// only where this program runs beside the daemon.
func (a *app) unstage(ctx context.Context, on *session, volume *holdfastv1.Volume) error {
	local := on.conn.Target() == a.server && strings.HasPrefix(a.server, "unix:")
	device := volume.GetEngine().GetDevicePath()
	if local && device != "" && isMounted(device) {
		return failure{
			code:    codes.FailedPrecondition,
			message: fmt.Sprintf("%s, the device of volume %s, is mounted", device, volume.GetName()),
			hint:    "unmount it first: umount " + device,
		}
	}
	_, err := on.agent.UnstageVolume(ctx, &holdfastv1.UnstageVolumeRequest{VolumeId: volume.GetId()})
	return err
}

// isMounted reports whether the kernel holds a device for a file system.
func isMounted(device string) bool {
	fd, err := unix.Open(device, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err != nil {
		return errors.Is(err, unix.EBUSY)
	}
	return unix.Close(fd) != nil
}
