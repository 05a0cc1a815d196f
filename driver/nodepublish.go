package driver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/driver/mount"
	"github.com/holdfast-io/holdfast/internal/block"
)

// This file holds the part of the Node service that deals with the paths of pods.
// It never asks the daemon: what is staged here stays usable without it.

// NodePublishVolume shows a staged volume at a path of a pod.
func (n *node) NodePublishVolume(_ context.Context, req *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	switch {
	case req.GetVolumeId() == "":
		return nil, invalid("no volume ID given")
	case req.GetTargetPath() == "":
		return nil, invalid("no target path given")
	}
	a, err := parseCapability(req.GetVolumeCapability())
	if err != nil {
		return nil, err
	}
	a.readOnly = a.readOnly || req.GetReadonly()
	if req.GetStagingTargetPath() == "" {
		return nil, failedPrecondition("publish volume %s: no staging target path given; the volume must be staged first", req.GetVolumeId())
	}
	if _, err := block.ParseID(req.GetVolumeId()); err != nil {
		return nil, notFound("volume %q does not exist", req.GetVolumeId())
	}
	done, err := n.running.begin(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer done()
	points, err := n.mountsOf(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	staging, target := mount.Resolve(req.GetStagingTargetPath()), mount.Resolve(req.GetTargetPath())
	published, err := checkPublished(points, req.GetVolumeId(), staging, target, a)
	if err != nil || published {
		return &csi.NodePublishVolumeResponse{}, err
	}
	if err := n.checkFree(target); err != nil {
		return nil, err
	}
	source, err := n.publishSource(points, req.GetVolumeId(), staging, a)
	if err != nil {
		return nil, err
	}
	if err := makeTarget(target, a.block); err != nil {
		return nil, status.Errorf(codes.Internal, "publish volume %s: make target path: %v", req.GetVolumeId(), err)
	}
	if err := n.mounter.Bind(source, target, a.readOnly); err != nil {
		return nil, fromMount(err, "publish volume %s", req.GetVolumeId())
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

// checkPublished reports whether the volume is at the target already, and refuses
// a second path for one writer.
func checkPublished(points []mount.Point, volumeID, staging, target string, a access) (bool, error) {
	for _, p := range points {
		switch {
		case p.Path == target && (p.ReadOnly != a.readOnly || (p.FSType == "") != a.block):
			return false, status.Errorf(codes.AlreadyExists,
				"publish volume %s: it is at %s already in another way (read-only=%v); unpublish it first", volumeID, target, p.ReadOnly)
		case p.Path == target:
			return true, nil
		case p.Path != staging && a.exclusive:
			return false, failedPrecondition("publish volume %s: it is at %s already, and its access mode allows one path at a time", volumeID, p.Path)
		}
	}
	return false, nil
}

// publishSource is what is bound to the target: the staged file system, or the
// device node.
func (n *node) publishSource(points []mount.Point, volumeID, staging string, a access) (string, error) {
	if !a.block {
		if !slices.ContainsFunc(points, func(p mount.Point) bool { return p.Path == staging }) {
			return "", failedPrecondition("publish volume %s: it is not staged at %s; stage it first", volumeID, staging)
		}
		return staging, nil
	}
	id, err := block.ParseID(volumeID)
	if err != nil {
		return "", notFound("volume %q does not exist", volumeID)
	}
	names, err := n.devices.List(block.VolumeID{ID: id})
	switch {
	case err != nil:
		return "", status.Errorf(codes.Internal, "publish volume %s: %v", volumeID, err)
	case len(names) == 0:
		return "", failedPrecondition("publish volume %s: it is not staged on this node; stage it first", volumeID)
	case len(names) > 1:
		return "", failedPrecondition("publish volume %s: device nodes of several attachments are left; unstage it and stage it again", volumeID)
	}
	return n.devices.Path(names[0]), nil
}

// makeTarget makes what a bind mount needs under it: a directory, or a file for a
// device.
func makeTarget(target string, device bool) error {
	if !device {
		return makeDirectory(target)
	}
	if err := makeDirectory(filepath.Dir(target)); err != nil {
		return err
	}
	f, err := os.OpenFile(target, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

func makeDirectory(path string) error { return os.MkdirAll(path, 0o750) }

// NodeUnpublishVolume takes a volume off a path of a pod and removes the path.
func (n *node) NodeUnpublishVolume(_ context.Context, req *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	switch {
	case req.GetVolumeId() == "":
		return nil, invalid("no volume ID given")
	case req.GetTargetPath() == "":
		return nil, invalid("no target path given")
	}
	if _, err := block.ParseID(req.GetVolumeId()); err != nil {
		return nil, notFound("volume %q does not exist", req.GetVolumeId())
	}
	done, err := n.running.begin(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer done()
	target := mount.Resolve(req.GetTargetPath())
	points, err := n.mountsOf(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	for _, p := range points {
		if p.Path != target {
			continue
		}
		if err := n.mounter.Unmount(target); err != nil {
			return nil, fromMount(err, "unpublish volume %s", req.GetVolumeId())
		}
	}
	if err := n.checkFree(target); err != nil {
		return nil, err
	}
	// Remove, not RemoveAll: what was written beside the mount is not ours.
	if err := os.Remove(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, status.Errorf(codes.Internal, "unpublish volume %s: remove target path: %v", req.GetVolumeId(), err)
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

// NodeGetVolumeStats tells how full a volume is.
func (n *node) NodeGetVolumeStats(_ context.Context, req *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	switch {
	case req.GetVolumeId() == "":
		return nil, invalid("no volume ID given")
	case req.GetVolumePath() == "":
		return nil, invalid("no volume path given")
	}
	points, err := n.mountsOf(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	path := mount.Resolve(req.GetVolumePath())
	i := slices.IndexFunc(points, func(p mount.Point) bool { return p.Path == path })
	if i < 0 {
		return nil, notFound("volume %q is not at %s", req.GetVolumeId(), req.GetVolumePath())
	}
	usage, err := n.usage(points[i])
	if err != nil {
		return nil, status.Errorf(codes.Internal, "measure volume %s: %v", req.GetVolumeId(), err)
	}
	return &csi.NodeGetVolumeStatsResponse{Usage: usage}, nil
}

// usage measures a file system, or a device, of which only the size is known.
func (n *node) usage(p mount.Point) ([]*csi.VolumeUsage, error) {
	if p.FSType == "" {
		size, err := n.mounter.DeviceSize(p.Path)
		if err != nil {
			return nil, fmt.Errorf("measure device: %w", err)
		}
		return []*csi.VolumeUsage{{Unit: csi.VolumeUsage_BYTES, Total: size}}, nil
	}
	u, err := n.mounter.FileSystemUsage(p.Path)
	if err != nil {
		return nil, fmt.Errorf("measure file system: %w", err)
	}
	return []*csi.VolumeUsage{
		{Unit: csi.VolumeUsage_BYTES, Total: u.TotalBytes, Used: u.UsedBytes, Available: u.AvailableBytes},
		{Unit: csi.VolumeUsage_INODES, Total: u.TotalInodes, Used: u.UsedInodes, Available: u.AvailableInodes},
	}, nil
}
