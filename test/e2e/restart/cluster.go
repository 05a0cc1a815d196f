package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"google.golang.org/grpc"

	"github.com/holdfast-io/holdfast/internal/control"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

const (
	// volumeBytes is small: the guest is slow, and what counts happens at once.
	volumeBytes = 256 << 20
	// pollPause is the pause between two looks at what has no event.
	pollPause = 200 * time.Millisecond
	// mountPoint is where the volume is mounted.
	mountPoint = "/mnt"
)

// node is one daemon with its disk.
type node struct {
	number  int
	address string
	flags   []string
	conn    *grpc.ClientConn
	daemon  *exec.Cmd
}

// cluster is the daemons of the scenario.
type cluster struct{ nodes []*node }

// volume is the one that is served.
type volume struct{ id, node, device string }

// addNode makes a file system on a disk, starts a daemon that joins the first, and
// gives it the disk.
func (c *cluster) addNode(ctx context.Context, disk string) error {
	number := len(c.nodes) + 1
	home := fmt.Sprintf("/srv/node%d", number)
	data := filepath.Join(home, "disk")
	if err := os.MkdirAll(home, 0o700); err != nil {
		return err
	}
	if err := command(ctx, "mkfs.ext4", "-q", disk); err != nil {
		return err
	}
	if err := command(ctx, "mount", disk, home); err != nil {
		return err
	}
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	at := func(port int) string { return fmt.Sprintf("127.0.0.1:%d", 7400+10*number+port) }
	n := &node{number: number, address: at(0), flags: []string{
		"--data-dir", filepath.Join(home, "state"), "--run-dir", fmt.Sprintf("/run/node%d", number),
		"--name", fmt.Sprintf("node-%d", number), "--frontend", "nbd", "--log-level", "warn",
		"--listen-control", at(0), "--listen-data", at(1), "--listen-raft", at(2),
	}}
	if number == 1 {
		n.flags = append(n.flags, "--bootstrap")
	} else {
		n.flags = append(n.flags, "--join", c.nodes[0].address)
	}
	conn, err := control.Dial(n.address)
	if err != nil {
		return err
	}
	n.conn = conn
	c.nodes = append(c.nodes, n)
	if err := n.start(ctx); err != nil {
		return err
	}
	return await(ctx, "the disk to be added", func() error {
		_, err := holdfastv1.NewClusterClient(n.conn).AddDisk(ctx, &holdfastv1.AddDiskRequest{Path: data, Class: "ssd"})
		return err
	})
}

// start runs the daemon; it may take its time to answer.
func (n *node) start(ctx context.Context) error {
	n.daemon = exec.CommandContext(ctx, "./holdfastd", n.flags...)
	n.daemon.Stdout, n.daemon.Stderr = os.Stderr, os.Stderr
	if err := n.daemon.Start(); err != nil {
		return fmt.Errorf("start daemon %d: %w", n.number, err)
	}
	return await(ctx, fmt.Sprintf("daemon %d to answer", n.number), func() error {
		_, err := holdfastv1.NewNodeAgentClient(n.conn).GetNode(ctx, &holdfastv1.GetNodeRequest{})
		return err
	})
}

// kill ends the daemon with SIGKILL and waits for its end.
func (n *node) kill() error {
	if err := n.daemon.Process.Kill(); err != nil {
		return fmt.Errorf("kill daemon %d: %w", n.number, err)
	}
	err := n.daemon.Wait()
	n.daemon = nil
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("kill daemon %d: %w", n.number, err)
	}
	return nil
}

// stop ends the daemons that run.
func (c *cluster) stop() error {
	var errs []error
	for _, n := range c.nodes {
		if n.daemon != nil {
			errs = append(errs, n.kill())
		}
		errs = append(errs, n.conn.Close())
	}
	return errors.Join(errs...)
}

// attach creates a volume with a replica on every node, and shows it on the first.
func (c *cluster) attach(ctx context.Context) (*volume, error) {
	first := c.nodes[0].conn
	self, err := holdfastv1.NewNodeAgentClient(first).GetNode(ctx, &holdfastv1.GetNodeRequest{})
	if err != nil {
		return nil, fmt.Errorf("ask for the first node: %w", err)
	}
	v := &volume{node: self.GetId()}
	step("create, publish and stage a volume of %d MiB", volumeBytes>>20)
	err = await(ctx, "the volume to be created", func() error {
		created, err := holdfastv1.NewVolumesClient(first).CreateVolume(ctx, &holdfastv1.CreateVolumeRequest{
			Name: "restart", SizeBytes: volumeBytes,
			Parameters: &holdfastv1.VolumeParameters{Replicas: int32(len(c.nodes)), MinInSync: 1},
		})
		v.id = created.GetId()
		return err
	})
	if err != nil {
		return nil, err
	}
	if _, err := holdfastv1.NewVolumesClient(first).PublishVolume(ctx, &holdfastv1.PublishVolumeRequest{VolumeId: v.id, NodeId: v.node}); err != nil {
		return nil, fmt.Errorf("publish volume %s: %w", v.id, err)
	}
	staged, err := holdfastv1.NewNodeAgentClient(first).StageVolume(ctx, &holdfastv1.StageVolumeRequest{VolumeId: v.id})
	if err != nil {
		return nil, fmt.Errorf("stage volume %s: %w", v.id, err)
	}
	v.device = staged.GetDevicePath()
	return v, nil
}

// mount makes a file system on the volume and mounts it.
func (v *volume) mount(ctx context.Context) error {
	step("mkfs and mount %s", v.device)
	if err := command(ctx, "mkfs.ext4", "-q", v.device); err != nil {
		return err
	}
	return command(ctx, "mount", v.device, mountPoint)
}

// unmount unmounts the volume and checks its file system.
func (v *volume) unmount(ctx context.Context) error {
	step("unmount, check the file system")
	if err := command(ctx, "umount", mountPoint); err != nil {
		return err
	}
	return command(ctx, "fsck.ext4", "-fn", v.device)
}

// detach ends the attachment.
func (c *cluster) detach(ctx context.Context, v *volume) error {
	step("detach")
	first := c.nodes[0].conn
	if _, err := holdfastv1.NewNodeAgentClient(first).UnstageVolume(ctx, &holdfastv1.UnstageVolumeRequest{VolumeId: v.id}); err != nil {
		return fmt.Errorf("unstage volume %s: %w", v.id, err)
	}
	if _, err := holdfastv1.NewVolumesClient(first).UnpublishVolume(ctx, &holdfastv1.UnpublishVolumeRequest{VolumeId: v.id, NodeId: v.node}); err != nil {
		return fmt.Errorf("unpublish volume %s: %w", v.id, err)
	}
	return checkKernelLog()
}

// awaitInSync waits until Raft shows every replica in sync and the engine serves.
func (c *cluster) awaitInSync(ctx context.Context, v *volume) error {
	return await(ctx, "all replicas to be in sync", func() error {
		now, err := holdfastv1.NewVolumesClient(c.nodes[0].conn).GetVolume(ctx, &holdfastv1.GetVolumeRequest{Id: v.id})
		if err != nil {
			return err
		}
		for _, r := range now.GetReplicas() {
			if !r.GetInSync() {
				return fmt.Errorf("replica %s is not in sync", r.GetId())
			}
		}
		if !now.GetEngine().GetServing() {
			return fmt.Errorf("the engine does not serve")
		}
		return nil
	})
}
