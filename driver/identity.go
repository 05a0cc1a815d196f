package driver

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// identity is the CSI Identity service.
type identity struct {
	csi.UnimplementedIdentityServer
	cluster holdfastv1.ClusterClient
	version string
}

// GetPluginInfo names the plugin.
func (i *identity) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: Name, VendorVersion: i.version}, nil
}

// GetPluginCapabilities tells which services there are, whichever of them this
// process serves. Volumes can be used on every node that runs Holdfast, hence the
// accessibility constraint.
func (i *identity) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	response := &csi.GetPluginCapabilitiesResponse{}
	for _, service := range []csi.PluginCapability_Service_Type{
		csi.PluginCapability_Service_CONTROLLER_SERVICE,
		csi.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS,
	} {
		response.Capabilities = append(response.Capabilities, &csi.PluginCapability{
			Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{Type: service}},
		})
	}
	// While it is in use or not.
	response.Capabilities = append(response.Capabilities, &csi.PluginCapability{
		Type: &csi.PluginCapability_VolumeExpansion_{
			VolumeExpansion: &csi.PluginCapability_VolumeExpansion{Type: csi.PluginCapability_VolumeExpansion_ONLINE},
		},
	})
	return response, nil
}

// Probe is ready when the daemon answers. A daemon that is starting is not a
// reason to restart the plugin, so it is "not ready" and no error.
func (i *identity) Probe(ctx context.Context, _ *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	_, err := i.cluster.GetCluster(ctx, &holdfastv1.GetClusterRequest{})
	switch code := daemonCode(status.Code(err)); code {
	case codes.OK:
		return &csi.ProbeResponse{Ready: wrapperspb.Bool(true)}, nil
	case codes.Unavailable, codes.DeadlineExceeded:
		return &csi.ProbeResponse{Ready: wrapperspb.Bool(false)}, nil
	default:
		return nil, status.Errorf(codes.FailedPrecondition, "ask the daemon: %s", status.Convert(err).Message())
	}
}
