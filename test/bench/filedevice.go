package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/engine/frontend"
	"github.com/holdfast-io/holdfast/engine/frontend/fuse"
	"github.com/holdfast-io/holdfast/engine/frontend/nbd"
	"github.com/holdfast-io/holdfast/internal/block"
	protocol "github.com/holdfast-io/holdfast/internal/nbd"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// makeFile preallocates a file.
func makeFile(path string, bytes int64) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(unix.Fallocate(int(file.Fd()), 0, 0, bytes), file.Close())
}

// fileDevice shows a plain file in the way in which a daemon shows a volume, served by
// this process.
type fileDevice struct {
	file   vfs.Device
	device frontend.Device
}

// attachFile shows the file. What the device needs lies in dir; helper is the command
// that a daemon would start where the kernel has no NBD; name is that of the frontend, or
// "auto".
func attachFile(ctx context.Context, path, dir, name string, helper []string, engine vfs.Engine) (*fileDevice, error) {
	if name == "auto" {
		name = ""
	}
	var ids [3]block.ID
	for i := range ids {
		var err error
		if ids[i], err = block.NewID(rand.Reader); err != nil {
			return nil, err
		}
	}
	driver, err := frontend.Choose(ctx, name, &nbd.Driver{Node: block.NodeID{ID: ids[0]}}, &fuse.Driver{RunDir: dir, Helper: helper})
	if err != nil {
		return nil, fmt.Errorf("show a file as a device: %w", err)
	}
	file, err := vfs.OpenDevice(path, vfs.OSDeviceOptions{Engine: engine})
	if err != nil {
		return nil, err
	}
	device, err := driver.Attach(ctx, frontend.Spec{
		Volume: block.VolumeID{ID: ids[1]}, Attachment: block.AttachmentID{ID: ids[2]},
		Size: file.Size(), Backend: fileBackend{file},
	})
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &fileDevice{file: file, device: device}, nil
}

// detach takes the device away, and then closes the file.
func (d *fileDevice) detach(ctx context.Context) error {
	if err := d.device.Detach(ctx); err != nil {
		return err
	}
	return d.file.Close()
}

// fileBackend is a file where a daemon has its engine: one copy, no map, no checksums.
type fileBackend struct{ file vfs.Device }

// Submit implements nbd.Backend.
func (b fileBackend) Submit(r *protocol.Request) {
	io := &vfs.IO{Offset: r.Offset, Length: r.Length, Submitting: r.Turn()}
	var buf *block.Buffer
	switch r.Kind {
	case protocol.KindRead:
		buf = block.NewBuffer(int(r.Length))
		io.Kind, io.Data = vfs.Read, buf.Data
	case protocol.KindWrite:
		io.Kind, io.Data = vfs.Write, r.Buf.Data
	case protocol.KindZero, protocol.KindTrim:
		io.Kind = vfs.Discard
	case protocol.KindFlush:
		io.Kind = vfs.Sync
	default:
		r.Complete(fmt.Errorf("%s of a file: %w", r.Kind, block.ErrInvalid), nil)
		return
	}
	io.Done = func(io *vfs.IO) {
		if io.Err == nil && r.FUA {
			b.file.Submit(&vfs.IO{Kind: vfs.Sync, Done: func(io *vfs.IO) { r.CompleteIn(io.Ending, io.Err, buf) }})
			return
		}
		r.CompleteIn(io.Ending, io.Err, buf)
	}
	b.file.Submit(io)
}

// attachLoop puts a loop device on a file itself, with direct I/O and the blocks of a
// volume.
func attachLoop(ctx context.Context, path string) (string, error) {
	out, err := exec.CommandContext(ctx, "losetup", "--find", "--show", "--direct-io=on", "--sector-size", "4096", path).CombinedOutput()
	device := strings.TrimSpace(string(out))
	if err != nil {
		return "", fmt.Errorf("put a loop device on %s: %w: %s", path, err, device)
	}
	direct, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(device), "loop/dio"))
	if err != nil || strings.TrimSpace(string(direct)) != "1" {
		return device, errors.Join(fmt.Errorf("%s has no direct I/O: its file is cached twice; give a -dir on another file system", device), err)
	}
	return device, nil
}

// detachLoop takes a loop device off its file.
func detachLoop(ctx context.Context, device string) error {
	if out, err := exec.CommandContext(ctx, "losetup", "--detach", device).CombinedOutput(); err != nil {
		return fmt.Errorf("detach %s: %w: %s", device, err, out)
	}
	return nil
}

// fillDevice writes a device to its last byte, so that what follows overwrites and reads
// what is there. It writes zeros: a device that holds anything else is not formatted.
func fillDevice(ctx context.Context, path string, bytes int64) (err error) {
	device, err := os.OpenFile(path, os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, device.Close()) }()
	buf := block.NewBuffer(block.MaxTransfer)
	defer buf.Release()
	clear(buf.Data)
	for offset := int64(0); offset < bytes; offset += block.MaxTransfer {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if _, err := device.WriteAt(buf.Data[:min(block.MaxTransfer, bytes-offset)], offset); err != nil {
			return fmt.Errorf("fill %s: %w", path, err)
		}
	}
	return device.Sync()
}
