// Package frontend is how an engine shows its volume to the machine: as a block
// device in front of an nbd.Backend. Its subpackages are the ways to do it: nbd,
// the kernel's NBD client; fuse, a helper process for kernels without one; and
// socket, for tools that speak NBD themselves and need no block device.
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
	"strings"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
)

// Device is one attachment's block device, served by this process.
type Device interface {
	// Path is the device node; of a socket, its NBD URI.
	Path() string
	// Resize makes the device larger; the backend must have the size already. A size
	// that it has, or a smaller one, changes nothing. It may wait for requests under
	// way. After an error it may be repeated.
	Resize(ctx context.Context, size int64) error
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

// Spec describes a device to attach or adopt.
type Spec struct {
	Volume     block.VolumeID
	Attachment block.AttachmentID
	// Size is in bytes; LogicalBlockSize is 512 or 4096, which is also the
	// default.
	Size             int64
	LogicalBlockSize int
	// Backend serves the device's I/O.
	Backend nbd.Backend
}

// Identity is what the device will carry.
func (s *Spec) Identity() Identity { return Identity{Volume: s.Volume, Attachment: s.Attachment} }

// Validate fills in defaults and reports what is wrong.
func (s *Spec) Validate() error {
	if s.LogicalBlockSize == 0 {
		s.LogicalBlockSize = block.BlockSize
	}
	switch {
	case s.Volume.IsZero() || s.Attachment.IsZero():
		return fmt.Errorf("device without volume and attachment: %w", block.ErrInvalid)
	case s.Size <= 0:
		return fmt.Errorf("device for volume %s of size %d: %w", s.Volume, s.Size, block.ErrInvalid)
	case s.Backend == nil:
		return fmt.Errorf("device for volume %s without a backend: %w", s.Volume, block.ErrInvalid)
	}
	info := s.Export()
	return info.Validate()
}

// Export describes the volume in the terms of NBD.
func (s *Spec) Export() nbd.ExportInfo {
	return nbd.ExportInfo{
		Name:     s.Attachment.String(),
		Size:     s.Size,
		MinBlock: uint32(s.LogicalBlockSize),
		Flush:    true, FUA: true, Trim: true, Zeroes: true,
	}
}

// Log is a logger with the keys of the volume; base may be nil.
func (s *Spec) Log(base *slog.Logger) *slog.Logger {
	if base == nil {
		base = slog.New(slog.DiscardHandler)
	}
	return base.With("volume", s.Volume.String(), "attachment", s.Attachment.String())
}

// Driver is one way to show volumes.
type Driver interface {
	// Name is what an override names: "nbd", "fuse" or "socket".
	Name() string
	// Available is nil when this machine can do it.
	Available(ctx context.Context) error
	// Attach makes a new device; block.ErrExists when there is one for the
	// attachment.
	Attach(ctx context.Context, spec Spec) (Device, error)
	// Adopt serves the device that an earlier daemon left, and resizes it if it is
	// smaller than the volume. block.ErrNotFound: there is none, or its I/O has failed
	// and it was removed.
	Adopt(ctx context.Context, spec Spec) (Device, error)
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
