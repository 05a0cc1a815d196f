package driver

import (
	"context"
	"unicode/utf8"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// maxNameLength is the specification's limit of strings, in bytes.
const maxNameLength = 128

// controller is the CSI Controller service.
type controller struct {
	csi.UnimplementedControllerServer
	daemon
	running *inFlight
}

// ControllerGetCapabilities announces what is implemented.
func (c *controller) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	response := &csi.ControllerGetCapabilitiesResponse{}
	for _, t := range []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME,
		csi.ControllerServiceCapability_RPC_LIST_VOLUMES,
		csi.ControllerServiceCapability_RPC_LIST_VOLUMES_PUBLISHED_NODES,
		csi.ControllerServiceCapability_RPC_GET_CAPACITY,
		csi.ControllerServiceCapability_RPC_GET_VOLUME,
		csi.ControllerServiceCapability_RPC_GET_VOLUME_HEALTH,
		csi.ControllerServiceCapability_RPC_LIST_VOLUME_HEALTH,
		csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
		csi.ControllerServiceCapability_RPC_LIST_SNAPSHOTS,
		csi.ControllerServiceCapability_RPC_GET_SNAPSHOT,
		csi.ControllerServiceCapability_RPC_CLONE_VOLUME,
		csi.ControllerServiceCapability_RPC_EXPAND_VOLUME,
		csi.ControllerServiceCapability_RPC_MODIFY_VOLUME,
	} {
		response.Capabilities = append(response.Capabilities, &csi.ControllerServiceCapability{
			Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: t}},
		})
	}
	return response, nil
}

// CreateVolume makes a volume, or answers with the one of that name if it is what
// was asked for.
func (c *controller) CreateVolume(ctx context.Context, req *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	create, err := parseCreate(req)
	if err != nil {
		return nil, err
	}
	done, err := c.running.begin(req.GetName())
	if err != nil {
		return nil, err
	}
	defer done()
	if err := c.checkTopology(ctx, req.GetAccessibilityRequirements()); err != nil {
		return nil, err
	}
	volume, err := c.create(ctx, req.GetCapacityRange(), create)
	if err != nil {
		return nil, err
	}
	return &csi.CreateVolumeResponse{Volume: toCSI(volume)}, nil
}

// create has the daemon make a volume, or finds the one that answers the request
// already.
func (c *controller) create(ctx context.Context, capacity *csi.CapacityRange, create *holdfastv1.CreateVolumeRequest) (*holdfastv1.Volume, error) {
	if create.GetSourceSnapshotId() != "" || create.GetSourceVolumeId() != "" {
		source, err := c.sourceSize(ctx, create)
		if status.Code(err) == codes.NotFound {
			// The volume may have been made before its source was deleted.
			if volume, known := c.volumes.GetVolume(ctx, &holdfastv1.GetVolumeRequest{Name: create.GetName()}); known == nil && isAsked(volume, capacity, create) {
				return volume, nil
			}
		}
		if err != nil {
			return nil, err
		}
		if create.SizeBytes, err = sizeFrom(capacity, source); err != nil {
			return nil, err
		}
	}
	volume, err := c.volumes.CreateVolume(ctx, create)
	if status.Code(err) == codes.AlreadyExists {
		// The daemon compares the exact size, a capacity range may be satisfied
		// by another one.
		volume, err = c.volumes.GetVolume(ctx, &holdfastv1.GetVolumeRequest{Name: create.GetName()})
		if err == nil && !isAsked(volume, capacity, create) {
			return nil, status.Errorf(codes.AlreadyExists, "volume %q exists with other properties: %d bytes, %s, made from %s",
				create.GetName(), volume.GetSizeBytes(), volume.GetParameters(), origin(volume))
		}
	}
	if err != nil {
		return nil, fromDaemon(err, "create volume %q", create.GetName())
	}
	return volume, nil
}

// parseCreate checks a request without asking anybody.
func parseCreate(req *csi.CreateVolumeRequest) (*holdfastv1.CreateVolumeRequest, error) {
	if err := parseName("volume", req.GetName()); err != nil {
		return nil, err
	}
	snapshotID, volumeID, err := parseSource(req.GetVolumeContentSource())
	if err != nil {
		return nil, err
	}
	if err := parseCapabilities(req.GetVolumeCapabilities()); err != nil {
		return nil, err
	}
	parameters, err := parseParameters(req.GetParameters())
	if err != nil {
		return nil, err
	}
	// Those that may be changed take precedence.
	if err := parseMutable(req.GetMutableParameters(), parameters); err != nil {
		return nil, err
	}
	least := leastSize(req.GetVolumeCapabilities())
	size, err := parseSize(req.GetCapacityRange(), least, max(least, defaultSize))
	if err != nil {
		return nil, err
	}
	return &holdfastv1.CreateVolumeRequest{
		Name: req.GetName(), SizeBytes: size, Parameters: parameters, SourceSnapshotId: snapshotID, SourceVolumeId: volumeID,
	}, nil
}

// parseName checks the name of something new.
func parseName(kind, name string) error {
	switch {
	case name == "":
		return invalid("no %s name given", kind)
	case len(name) > maxNameLength || !utf8.ValidString(name):
		return invalid("%s name %q is not text of at most %d bytes", kind, name, maxNameLength)
	}
	return nil
}

// isAsked reports whether an existing volume answers a request; the size that
// create has is one choice of the capacity range.
func isAsked(volume *holdfastv1.Volume, capacity *csi.CapacityRange, create *holdfastv1.CreateVolumeRequest) bool {
	return volume.GetState() == holdfastv1.Volume_READY &&
		fits(volume.GetSizeBytes(), capacity) && sameParameters(volume.GetParameters(), create.GetParameters()) &&
		volume.GetSourceSnapshotId() == create.GetSourceSnapshotId() && volume.GetSourceVolumeId() == create.GetSourceVolumeId()
}

// checkTopology asks for one node of the requisite ones: a volume can be used on
// every node of the cluster.
func (c *controller) checkTopology(ctx context.Context, requirement *csi.TopologyRequirement) error {
	if len(requirement.GetRequisite()) == 0 {
		return nil
	}
	for _, topology := range requirement.GetRequisite() {
		known, err := c.knowsTopology(ctx, topology)
		if err != nil {
			return err
		}
		if known {
			return nil
		}
	}
	return status.Errorf(codes.ResourceExhausted, "none of the requisite topologies is a node of this cluster; segment %s names a node", TopologyKey)
}

// knowsTopology reports whether a topology covers a node of the cluster.
func (c *controller) knowsTopology(ctx context.Context, topology *csi.Topology) (bool, error) {
	for key := range topology.GetSegments() {
		if key != TopologyKey {
			return false, invalid("unknown topology segment %q; known is %s", key, TopologyKey)
		}
	}
	name, ok := topology.GetSegments()[TopologyKey]
	if !ok {
		return true, nil
	}
	nodes, err := c.cluster.ListNodes(ctx, &holdfastv1.ListNodesRequest{})
	if err != nil {
		return false, fromDaemon(err, "list nodes")
	}
	for _, n := range nodes.GetNodes() {
		if n.GetName() == name {
			return true, nil
		}
	}
	return false, nil
}

// DeleteVolume deletes a volume. One that does not exist is deleted already.
func (c *controller) DeleteVolume(ctx context.Context, req *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, invalid("no volume ID given")
	}
	if _, err := block.ParseID(req.GetVolumeId()); err != nil {
		// What cannot be an ID names nothing.
		return &csi.DeleteVolumeResponse{}, nil
	}
	done, err := c.running.begin(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer done()
	// The specification has callers delete snapshots first. The daemon counts them and
	// deletes in one step: another controller may be taking one.
	_, err = c.volumes.DeleteVolume(ctx, &holdfastv1.DeleteVolumeRequest{Id: req.GetVolumeId(), OnlyWithoutSnapshots: true})
	switch status.Code(err) {
	case codes.OK, codes.NotFound:
		return &csi.DeleteVolumeResponse{}, nil
	case codes.FailedPrecondition:
		if holder := c.holder(ctx, req.GetVolumeId()); holder != "" {
			return nil, failedPrecondition("delete volume %s: it is published to %s; unpublish it first", req.GetVolumeId(), holder)
		}
	}
	return nil, fromDaemon(err, "delete volume %s", req.GetVolumeId())
}

// ControllerPublishVolume allows a node to stage a volume.
func (c *controller) ControllerPublishVolume(ctx context.Context, req *csi.ControllerPublishVolumeRequest) (*csi.ControllerPublishVolumeResponse, error) {
	switch {
	case req.GetVolumeId() == "":
		return nil, invalid("no volume ID given")
	case req.GetNodeId() == "":
		return nil, invalid("no node ID given")
	case req.GetReadonly():
		return nil, invalid("a volume cannot be published read-only to a node; mount it read-only instead")
	}
	if _, err := parseCapability(req.GetVolumeCapability()); err != nil {
		return nil, err
	}
	if _, err := block.ParseID(req.GetVolumeId()); err != nil {
		return nil, notFound("volume %q does not exist", req.GetVolumeId())
	}
	if _, err := block.ParseID(req.GetNodeId()); err != nil {
		return nil, notFound("node %q does not exist", req.GetNodeId())
	}
	done, err := c.running.begin(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer done()
	_, err = c.volumes.PublishVolume(ctx, &holdfastv1.PublishVolumeRequest{VolumeId: req.GetVolumeId(), NodeId: req.GetNodeId()})
	if status.Code(err) == codes.FailedPrecondition {
		if holder := c.holder(ctx, req.GetVolumeId()); holder != "" {
			return nil, failedPrecondition("publish volume %s: it is published to %s; unpublish it there first", req.GetVolumeId(), holder)
		}
	}
	if err != nil {
		return nil, fromDaemon(err, "publish volume %s to node %s", req.GetVolumeId(), req.GetNodeId())
	}
	return &csi.ControllerPublishVolumeResponse{}, nil
}

// holder describes the node that a volume is published to; it is empty if there is
// none, or if that cannot be found out.
func (c *controller) holder(ctx context.Context, id string) string {
	volume, err := c.volumes.GetVolume(ctx, &holdfastv1.GetVolumeRequest{Id: id})
	if err != nil || volume.GetPublishedNodeId() == "" {
		return ""
	}
	nodes, err := c.cluster.ListNodes(ctx, &holdfastv1.ListNodesRequest{})
	if err != nil {
		return "node " + volume.GetPublishedNodeId()
	}
	for _, n := range nodes.GetNodes() {
		if n.GetId() == volume.GetPublishedNodeId() {
			return "node " + n.GetName() + " (" + n.GetId() + ")"
		}
	}
	return "node " + volume.GetPublishedNodeId()
}

// ControllerUnpublishVolume takes a node's permission back.
func (c *controller) ControllerUnpublishVolume(ctx context.Context, req *csi.ControllerUnpublishVolumeRequest) (*csi.ControllerUnpublishVolumeResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, invalid("no volume ID given")
	}
	if _, err := block.ParseID(req.GetVolumeId()); err != nil {
		return &csi.ControllerUnpublishVolumeResponse{}, nil
	}
	if _, err := block.ParseID(req.GetNodeId()); err != nil && req.GetNodeId() != "" {
		return &csi.ControllerUnpublishVolumeResponse{}, nil
	}
	done, err := c.running.begin(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer done()
	_, err = c.volumes.UnpublishVolume(ctx, &holdfastv1.UnpublishVolumeRequest{VolumeId: req.GetVolumeId(), NodeId: req.GetNodeId()})
	if status.Code(err) == codes.NotFound {
		return &csi.ControllerUnpublishVolumeResponse{}, nil
	}
	if err != nil {
		return nil, fromDaemon(err, "unpublish volume %s", req.GetVolumeId())
	}
	return &csi.ControllerUnpublishVolumeResponse{}, nil
}

// ValidateVolumeCapabilities tells whether a volume can be used in some way.
func (c *controller) ValidateVolumeCapabilities(ctx context.Context, req *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	switch {
	case req.GetVolumeId() == "":
		return nil, invalid("no volume ID given")
	case len(req.GetVolumeCapabilities()) == 0:
		return nil, invalid("no volume capabilities given")
	}
	volume, err := c.findVolume(ctx, req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if err := parseCapabilities(req.GetVolumeCapabilities()); err != nil {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: status.Convert(err).Message()}, nil
	}
	if len(req.GetParameters()) > 0 {
		parameters, err := parseParameters(req.GetParameters())
		if err != nil {
			return &csi.ValidateVolumeCapabilitiesResponse{Message: status.Convert(err).Message()}, nil
		}
		if !sameParameters(parameters, volume.GetParameters()) {
			return &csi.ValidateVolumeCapabilitiesResponse{Message: "the volume has other parameters: " + volume.GetParameters().String()}, nil
		}
	}
	if why := confirmMutable(req.GetMutableParameters(), volume); why != "" {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: why}, nil
	}
	return &csi.ValidateVolumeCapabilitiesResponse{
		Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
			MutableParameters:  req.GetMutableParameters(),
			VolumeContext:      req.GetVolumeContext(),
			VolumeCapabilities: req.GetVolumeCapabilities(),
			Parameters:         req.GetParameters(),
		},
	}, nil
}

// findVolume finds a volume that can be used; NOT_FOUND if there is none.
func (d daemon) findVolume(ctx context.Context, id string) (*holdfastv1.Volume, error) {
	if _, err := block.ParseID(id); err != nil {
		return nil, notFound("volume %q does not exist", id)
	}
	volume, err := d.volumes.GetVolume(ctx, &holdfastv1.GetVolumeRequest{Id: id})
	if err != nil {
		return nil, fromDaemon(err, "find volume %s", id)
	}
	switch volume.GetState() {
	case holdfastv1.Volume_DELETING:
		return nil, notFound("volume %s is deleted", id)
	case holdfastv1.Volume_TRASHED:
		return nil, notFound("volume %s is in the trash", id)
	}
	return volume, nil
}

// ControllerGetVolume describes one volume.
func (c *controller) ControllerGetVolume(ctx context.Context, req *csi.ControllerGetVolumeRequest) (*csi.ControllerGetVolumeResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, invalid("no volume ID given")
	}
	volume, err := c.findVolume(ctx, req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	return &csi.ControllerGetVolumeResponse{
		Volume: toCSI(volume),
		Status: &csi.ControllerGetVolumeResponse_VolumeStatus{PublishedNodeIds: publishedNodes(volume)},
	}, nil
}

// ListVolumes lists the volumes that can be used.
func (c *controller) ListVolumes(ctx context.Context, req *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	volumes, next, err := c.volumePage(ctx, req.GetMaxEntries(), req.GetStartingToken())
	if err != nil {
		return nil, err
	}
	response := &csi.ListVolumesResponse{NextToken: next}
	for _, volume := range volumes {
		if volume.GetState() != holdfastv1.Volume_READY {
			continue
		}
		response.Entries = append(response.Entries, &csi.ListVolumesResponse_Entry{
			Volume: toCSI(volume),
			Status: &csi.ListVolumesResponse_VolumeStatus{PublishedNodeIds: publishedNodes(volume)},
		})
	}
	return response, nil
}

// volumePage lists volumes, see listPage.
func (c *controller) volumePage(ctx context.Context, maxEntries int32, token string) ([]*holdfastv1.Volume, string, error) {
	return listPage(maxEntries, token, "volumes", func(maxEntries int32, token string) ([]*holdfastv1.Volume, string, error) {
		page, err := c.volumes.ListVolumes(ctx, &holdfastv1.ListVolumesRequest{MaxEntries: maxEntries, StartingToken: token})
		return page.GetVolumes(), page.GetNextToken(), err
	})
}

// GetCapacity tells what new volumes may take. A volume can be used on every node,
// so the whole cluster's capacity can be reached from each.
func (c *controller) GetCapacity(ctx context.Context, req *csi.GetCapacityRequest) (*csi.GetCapacityResponse, error) {
	if len(req.GetVolumeCapabilities()) > 0 {
		if err := parseCapabilities(req.GetVolumeCapabilities()); err != nil {
			return nil, err
		}
	}
	parameters, err := parseParameters(req.GetParameters())
	if err != nil {
		return nil, err
	}
	known, err := c.knowsTopology(ctx, req.GetAccessibleTopology())
	if err != nil {
		return nil, err
	}
	if !known {
		return &csi.GetCapacityResponse{}, nil
	}
	capacity, err := c.volumes.GetCapacity(ctx, &holdfastv1.GetCapacityRequest{Parameters: parameters})
	if err != nil {
		return nil, fromDaemon(err, "ask for capacity")
	}
	return &csi.GetCapacityResponse{
		AvailableCapacity: capacity.GetAvailableBytes(),
		MaximumVolumeSize: wrapperspb.Int64(capacity.GetMaximumVolumeBytes()),
		MinimumVolumeSize: wrapperspb.Int64(sizeStep),
	}, nil
}

// toCSI describes a volume. It names no topology: it can be used everywhere.
func toCSI(volume *holdfastv1.Volume) *csi.Volume {
	return &csi.Volume{VolumeId: volume.GetId(), CapacityBytes: volume.GetSizeBytes(), ContentSource: sourceOf(volume)}
}

func publishedNodes(volume *holdfastv1.Volume) []string {
	if volume.GetPublishedNodeId() == "" {
		return nil
	}
	return []string{volume.GetPublishedNodeId()}
}
