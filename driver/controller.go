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

// pageEntries is how many volumes the daemon is asked for at a time.
const pageEntries = 500

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
	volume, err := c.volumes.CreateVolume(ctx, create)
	if status.Code(err) == codes.AlreadyExists {
		// The daemon compares the exact size, a capacity range may be satisfied
		// by another one.
		volume, err = c.volumes.GetVolume(ctx, &holdfastv1.GetVolumeRequest{Name: req.GetName()})
		if err == nil && !isAsked(volume, req.GetCapacityRange(), create.GetParameters()) {
			return nil, status.Errorf(codes.AlreadyExists,
				"volume %q exists with other properties: %d bytes, %s", req.GetName(), volume.GetSizeBytes(), volume.GetParameters())
		}
	}
	if err != nil {
		return nil, fromDaemon(err, "create volume %q", req.GetName())
	}
	return &csi.CreateVolumeResponse{Volume: toCSI(volume)}, nil
}

// parseCreate checks a request without asking anybody.
func parseCreate(req *csi.CreateVolumeRequest) (*holdfastv1.CreateVolumeRequest, error) {
	name := req.GetName()
	switch {
	case name == "":
		return nil, invalid("no volume name given")
	case len(name) > maxNameLength || !utf8.ValidString(name):
		return nil, invalid("volume name %q is not text of at most %d bytes", name, maxNameLength)
	case req.GetVolumeContentSource() != nil:
		return nil, invalid("a volume cannot be made from another volume or a snapshot yet")
	case len(req.GetMutableParameters()) > 0:
		return nil, invalid("mutable parameters are not supported")
	}
	if err := parseCapabilities(req.GetVolumeCapabilities()); err != nil {
		return nil, err
	}
	parameters, err := parseParameters(req.GetParameters())
	if err != nil {
		return nil, err
	}
	size, err := parseSize(req.GetCapacityRange())
	if err != nil {
		return nil, err
	}
	return &holdfastv1.CreateVolumeRequest{Name: name, SizeBytes: size, Parameters: parameters}, nil
}

// isAsked reports whether an existing volume answers a CreateVolume request.
func isAsked(volume *holdfastv1.Volume, capacity *csi.CapacityRange, parameters *holdfastv1.VolumeParameters) bool {
	return volume.GetState() == holdfastv1.Volume_READY &&
		fits(volume.GetSizeBytes(), capacity) && sameParameters(volume.GetParameters(), parameters)
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
	_, err = c.volumes.DeleteVolume(ctx, &holdfastv1.DeleteVolumeRequest{Id: req.GetVolumeId()})
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
	return &csi.ValidateVolumeCapabilitiesResponse{
		Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
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
	if volume.GetState() == holdfastv1.Volume_DELETING {
		return nil, notFound("volume %s is deleted", id)
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
	page, err := c.listPage(ctx, req.GetMaxEntries(), req.GetStartingToken())
	if err != nil {
		return nil, err
	}
	response := &csi.ListVolumesResponse{NextToken: page.GetNextToken()}
	for _, volume := range page.GetVolumes() {
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

// listPage lists at most maxEntries volumes, or all from the token on if that is 0;
// those are fetched in pages, because a message has a limit.
func (c *controller) listPage(ctx context.Context, maxEntries int32, token string) (*holdfastv1.ListVolumesResponse, error) {
	switch {
	case maxEntries < 0:
		return nil, invalid("max_entries is %d, below zero", maxEntries)
	case maxEntries > 0:
		return c.daemonPage(ctx, maxEntries, token)
	}
	all := &holdfastv1.ListVolumesResponse{}
	for {
		page, err := c.daemonPage(ctx, pageEntries, token)
		if err != nil {
			return nil, err
		}
		all.Volumes = append(all.Volumes, page.GetVolumes()...)
		if token = page.GetNextToken(); token == "" {
			return all, nil
		}
	}
}

// daemonPage asks the daemon for one page. The specification wants ABORTED for a
// token that is not one; tokens are volume IDs.
func (c *controller) daemonPage(ctx context.Context, maxEntries int32, token string) (*holdfastv1.ListVolumesResponse, error) {
	page, err := c.volumes.ListVolumes(ctx, &holdfastv1.ListVolumesRequest{MaxEntries: maxEntries, StartingToken: token})
	if status.Code(err) == codes.InvalidArgument && token != "" {
		return nil, status.Errorf(codes.Aborted, "starting_token %q is not one of ours; start again without it", token)
	}
	if err != nil {
		return nil, fromDaemon(err, "list volumes")
	}
	return page, nil
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
	return &csi.Volume{VolumeId: volume.GetId(), CapacityBytes: volume.GetSizeBytes()}
}

func publishedNodes(volume *holdfastv1.Volume) []string {
	if volume.GetPublishedNodeId() == "" {
		return nil
	}
	return []string{volume.GetPublishedNodeId()}
}
