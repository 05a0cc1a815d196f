package harness

import (
	"context"
	"fmt"
	"net"
	"net/url"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// Attach publishes a volume to the node and stages it there, and returns what dials
// its NBD export. The daemon shows volumes as sockets (--frontend socket).
func (n *Node) Attach(ctx context.Context, volume string) (func(context.Context) (net.Conn, error), error) {
	if _, err := n.Volumes().PublishVolume(ctx, &holdfastv1.PublishVolumeRequest{VolumeId: volume, NodeId: n.ID()}); err != nil {
		return nil, fmt.Errorf("publish volume to %s: %w", n.Name, err)
	}
	var staged *holdfastv1.StageVolumeResponse
	err := Wait(ctx, "staging", func(ctx context.Context) error {
		var err error
		staged, err = n.Agent().StageVolume(ctx, &holdfastv1.StageVolumeRequest{VolumeId: volume})
		if err != nil && status.Code(err) != codes.Unavailable {
			return Stop(err)
		}
		return err // a daemon that has just been started opens its disks first
	})
	if err != nil {
		return nil, fmt.Errorf("stage volume on %s: %w", n.Name, err)
	}
	uri, err := url.Parse(staged.GetDevicePath())
	if err != nil {
		return nil, err
	}
	path := uri.Query().Get("socket")
	return func(ctx context.Context) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", path)
	}, nil
}
