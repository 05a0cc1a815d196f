package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// defaultSnapshots is how many snapshots a volume may have that says nothing of it.
const defaultSnapshots = 250

// creation is a volume that is to be made.
type creation struct {
	name                     string
	bytes                    size
	fromSnapshot, fromVolume string
	parameters               *holdfastv1.VolumeParameters
	snapshotSpace            spaceLimit
	// given tells which flags were set; those that were not follow the source.
	given func(flag string) bool
}

// parameterFlags are the flags for how a volume is kept.
func (c *creation) parameterFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	c.given, c.parameters = flags.Changed, &holdfastv1.VolumeParameters{}
	flags.Int32Var(&c.parameters.Replicas, "replicas", 3, "copies, each on another node")
	flags.Int32Var(&c.parameters.MinInSync, "min-in-sync", 1, "in-sync copies that writes need after a failure; they wait while there are fewer")
	flags.StringVar(&c.parameters.DiskClass, "disk-class", "", "nvme, ssd or hdd (default: any)")
	flags.StringSliceVar(&c.parameters.DiskTags, "disk-tag", nil, "tag that the disks must have; repeat for more")
	flags.Int32Var(&c.parameters.MaxSnapshots, "max-snapshots", defaultSnapshots, "snapshots that it may have at a time")
	flags.Var(&c.snapshotSpace, "max-snapshot-space", "what they may hold, such as 20GiB or 50% of the volume (default: any amount)")
	flags.StringSliceVar(&c.parameters.NodeTags, "node-tag", nil, "tag that the nodes must have; repeat for more")
}

// wanted are the parameters that the command line names.
func (c *creation) wanted() *holdfastv1.VolumeParameters {
	if c.given("max-snapshot-space") {
		c.parameters.MaxSnapshotSpace = c.snapshotSpace.message()
	}
	return c.parameters
}

func (a *app) volumeCreateCommand() *cobra.Command {
	c := &creation{}
	cmd := &cobra.Command{
		Use:   "create NAME --size SIZE",
		Short: "Make a volume, empty or from another one",
		Long: `Make a volume and wait until all its replicas exist. The same command twice makes
one volume.

With --from-snapshot it begins with what the snapshot holds, with --from-volume
with what the volume holds at that moment. Nothing is copied: on each disk the
two share what neither has changed. It has the size and the parameters of its
source where the command names none, and is never smaller.`,
		Example: `  holdfast volume create db --size 100GiB
  holdfast volume create scratch --size 1TiB --replicas 1 --disk-class hdd
  holdfast volume create db-before --from-snapshot before-upgrade
  holdfast volume create db-test --from-volume db --size 200GiB`,
		Args: args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.name = args[0]
			if c.fromSnapshot != "" && c.fromVolume != "" {
				return usageError{fmt.Errorf("flags --from-snapshot and --from-volume exclude each other; see %s --help", cmd.CommandPath())}
			}
			if c.bytes == 0 && c.fromSnapshot+c.fromVolume == "" {
				return usageError{fmt.Errorf("flag --size is missing; see %s --help", cmd.CommandPath())}
			}
			if c.given("max-snapshots") && c.parameters.GetMaxSnapshots() < 1 {
				return usageError{fmt.Errorf("--max-snapshots %d: at least 1", c.parameters.GetMaxSnapshots())}
			}
			return a.with(cmd.Context(), func(ctx context.Context, s *session) error {
				request, err := c.request(ctx, s)
				if err != nil {
					return err
				}
				view, err := a.create(ctx, s, request)
				if err != nil {
					return err
				}
				return a.print(view, sentence(fmt.Sprintf("Volume %s made: %s on %s.", view.Name, formatSize(view.SizeBytes), view.where())))
			})
		},
	}
	cmd.Flags().Var(&c.bytes, "size", "size, such as 10GiB; rounded up to whole MiB")
	cmd.Flags().StringVar(&c.fromSnapshot, "from-snapshot", "", "name of the snapshot to begin with")
	cmd.Flags().StringVar(&c.fromVolume, "from-volume", "", "name of the volume to begin with, as it is now")
	c.parameterFlags(cmd)
	return cmd
}

// create makes a volume.
func (a *app) create(ctx context.Context, s *session, request *holdfastv1.CreateVolumeRequest) (volumeView, error) {
	var volume *holdfastv1.Volume
	err := a.working("making replicas", func() (err error) {
		volume, err = s.volumes.CreateVolume(ctx, request)
		return err
	})
	if err != nil {
		err = advise(err, codes.AlreadyExists, fmt.Sprintf("holdfast volume show %s shows the one that is there; take another name for another volume", request.GetName()))
		return volumeView{}, advise(err, codes.ResourceExhausted,
			"holdfast disk list shows what the disks have left; holdfast disk add gives the cluster more, and fewer --replicas need less")
	}
	nodes, err := s.nodes(ctx)
	if err != nil {
		return volumeView{}, err
	}
	return newVolumeView(volume, nodes), nil
}

// request finds the source of a new volume, if it has one, and takes from it what
// the command line does not say.
func (c *creation) request(ctx context.Context, s *session) (*holdfastv1.CreateVolumeRequest, error) {
	request := &holdfastv1.CreateVolumeRequest{Name: c.name, SizeBytes: int64(c.bytes), Parameters: c.wanted()}
	var source *holdfastv1.Volume
	var least int64
	switch {
	case c.fromSnapshot != "":
		snapshot, err := s.findSnapshot(ctx, c.fromSnapshot, false)
		if err != nil {
			return nil, err
		}
		if source, err = s.findVolume(ctx, snapshot.GetVolumeId()); err != nil {
			return nil, err
		}
		request.SourceSnapshotId, least = snapshot.GetId(), snapshot.GetSizeBytes()
	case c.fromVolume != "":
		var err error
		if source, err = s.findVolume(ctx, c.fromVolume); err != nil {
			return nil, err
		}
		request.SourceVolumeId, least = source.GetId(), source.GetSizeBytes()
	default:
		return request, nil
	}
	if request.SizeBytes == 0 {
		request.SizeBytes = least
	}
	if request.SizeBytes < least {
		return nil, usageError{fmt.Errorf("--size %s is below the size of the source, %s", formatSize(request.SizeBytes), formatSize(least))}
	}
	return request, c.inherit(source)
}

// inherit sets the parameters that the command line does not name.
func (c *creation) inherit(source *holdfastv1.Volume) error {
	from := source.GetParameters()
	if from == nil {
		return errors.New("the source has no parameters")
	}
	p := c.parameters
	for name, set := range map[string]func(){
		"replicas":      func() { p.Replicas = from.GetReplicas() },
		"min-in-sync":   func() { p.MinInSync = from.GetMinInSync() },
		"disk-class":    func() { p.DiskClass = from.GetDiskClass() },
		"max-snapshots": func() { p.MaxSnapshots = from.GetMaxSnapshots() },
		// That may have been changed since.
		"max-snapshot-space": func() { p.MaxSnapshotSpace = source.GetMaxSnapshotSpace() },
		"disk-tag":           func() { p.DiskTags = from.GetDiskTags() },
		"node-tag":           func() { p.NodeTags = from.GetNodeTags() },
	} {
		if !c.given(name) {
			set()
		}
	}
	return nil
}
