// Package frontend is how an engine shows its volume to the machine: as a block
// device in front of an nbd.Backend. Its subpackages are the ways to do it: nbd,
// the kernel's NBD client, and fuse, a helper process for kernels without one.
//
// A device carries its volume and attachment (rule 2), outlives the daemon that
// made it, and waits meanwhile: Close leaves it for the next daemon, which finds
// it by Adopt. Detach removes it. What a daemon finds and Raft does not know is
// removed with Driver.Remove; its I/O fails.
package frontend

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
)

// Device is one attachment's block device, served by this process.
type Device interface {
	// Path is the device node.
	Path() string
	// Close stops serving in order and leaves the device for the next daemon:
	// its I/O waits. Requests that the backend has are waited for until ctx
	// ends; then they are left unanswered, which the error says. Nothing of the
	// device runs in this process afterwards. It is idempotent.
	Close(ctx context.Context) error
	// Detach removes the device and then stops serving. A device in use is
	// block.ErrInUse if the driver can tell; Driver.Remove takes no account of
	// that. It is idempotent, and to be repeated after an error.
	Detach(ctx context.Context) error
}

// Identity is what a device carries.
type Identity struct {
	Volume     block.VolumeID
	Attachment block.AttachmentID
}

// String is the form in which a kernel device carries its identity.
func (i Identity) String() string { return i.Volume.String() + "/" + i.Attachment.String() }

// ParseIdentity reads what String prints.
func ParseIdentity(s string) (Identity, error) {
	volume, attachment, ok := strings.Cut(s, "/")
	if !ok {
		return Identity{}, fmt.Errorf("device identity %q: %w", s, block.ErrInvalid)
	}
	v, err := block.ParseID(volume)
	if err != nil {
		return Identity{}, fmt.Errorf("device identity: %w", err)
	}
	a, err := block.ParseID(attachment)
	if err != nil {
		return Identity{}, fmt.Errorf("device identity: %w", err)
	}
	return Identity{Volume: block.VolumeID{ID: v}, Attachment: block.AttachmentID{ID: a}}, nil
}

// Options describe a device to attach or adopt.
type Options struct {
	Identity
	// Size is in bytes; LogicalBlockSize is 512 or 4096.
	Size             int64
	LogicalBlockSize int
	// RunDir is a directory for what must outlive the daemon but not the
	// machine.
	RunDir string
	// Backend serves the device's I/O.
	Backend nbd.Backend
	Logger  *slog.Logger
}

// Validate reports what is wrong with the options.
func (o *Options) Validate() error {
	switch {
	case o.Volume.IsZero() || o.Attachment.IsZero():
		return fmt.Errorf("device without volume and attachment: %w", block.ErrInvalid)
	case o.Size <= 0:
		return fmt.Errorf("device for volume %s of size %d: %w", o.Volume, o.Size, block.ErrInvalid)
	case o.Backend == nil:
		return fmt.Errorf("device for volume %s without a backend: %w", o.Volume, block.ErrInvalid)
	case !filepath.IsAbs(o.RunDir):
		return fmt.Errorf("device for volume %s: run directory %q: %w", o.Volume, o.RunDir, block.ErrInvalid)
	}
	info := o.Export()
	return info.Validate()
}

// Export describes the volume in the terms of NBD.
func (o *Options) Export() nbd.ExportInfo {
	return nbd.ExportInfo{
		Name:     o.Attachment.String(),
		Size:     o.Size,
		MinBlock: uint32(o.LogicalBlockSize),
		Flush:    true, FUA: true, Trim: true, Zeroes: true,
	}
}

// Log is the logger with the keys of the volume.
func (o *Options) Log() *slog.Logger {
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return log.With("volume", o.Volume.String(), "attachment", o.Attachment.String())
}

// Driver is one way to show volumes.
type Driver interface {
	// Name is what an override names: "nbd" or "fuse".
	Name() string
	// Available is nil when this machine can do it.
	Available(ctx context.Context) error
	// Attach makes a new device; block.ErrExists when there is one for the
	// attachment.
	Attach(ctx context.Context, o Options) (Device, error)
	// Adopt serves the device that an earlier daemon left. block.ErrNotFound:
	// there is none. block.ErrDetached: there was one, and its I/O has failed.
	Adopt(ctx context.Context, o Options) (Device, error)
	// List names the devices on this machine, served or not.
	List(ctx context.Context) ([]Identity, error)
	// Remove ends a device that nobody serves: its I/O fails. One that does not
	// exist is not an error.
	Remove(ctx context.Context, id Identity) error
}

// Choose returns the first driver that this machine can use, or the one that
// override names.
func Choose(ctx context.Context, override string, drivers ...Driver) (Driver, error) {
	var reasons []error
	for _, d := range drivers {
		if override != "" && d.Name() != override {
			continue
		}
		err := d.Available(ctx)
		if err == nil {
			return d, nil
		}
		reasons = append(reasons, fmt.Errorf("frontend %s: %w", d.Name(), err))
	}
	if len(reasons) == 0 {
		return nil, fmt.Errorf("frontend %q is not known: %w", override, block.ErrInvalid)
	}
	return nil, errors.Join(reasons...)
}
