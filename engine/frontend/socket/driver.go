package socket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast-io/holdfast/engine/frontend"
	"github.com/holdfast-io/holdfast/internal/block"
)

// Endings of the files of a device.
const (
	identityEnding = ".id"
	socketEnding   = ".nbd"
)

// maxSocketPath is what the kernel takes as the path of a unix socket, in bytes.
const maxSocketPath = 107

// Driver makes sockets.
type Driver struct {
	// RunDir holds the files of the devices. It must outlive the daemon but not
	// the machine.
	RunDir string
	// Logger may be nil.
	Logger *slog.Logger
}

var _ frontend.Driver = (*Driver)(nil)

// Name implements frontend.Driver.
func (d *Driver) Name() string { return "socket" }

// Available implements frontend.Driver.
func (d *Driver) Available(context.Context) error {
	if !filepath.IsAbs(d.RunDir) {
		return fmt.Errorf("NBD sockets need an absolute run directory, not %q: %w", d.RunDir, block.ErrInvalid)
	}
	if path := d.socketPath(block.AttachmentID{}); len(path) > maxSocketPath {
		return fmt.Errorf("run directory %s is too long for a socket: %w", d.RunDir, block.ErrInvalid)
	}
	return nil
}

func (d *Driver) identityPath(a block.AttachmentID) string {
	return filepath.Join(d.RunDir, a.String()+identityEnding)
}

func (d *Driver) socketPath(a block.AttachmentID) string {
	return filepath.Join(d.RunDir, a.String()+socketEnding)
}

// URI is what NBD clients take to find the default export on a unix socket.
func URI(socketPath string) string {
	// Slashes stay readable; the plus that stands for a space means itself to
	// the clients.
	path := strings.NewReplacer("%2F", "/", "+", "%20").Replace(url.QueryEscape(socketPath))
	return "nbd+unix:///?socket=" + path
}

// prepare checks what Attach and Adopt have in common.
func (d *Driver) prepare(ctx context.Context, spec *frontend.Spec) error {
	if err := d.Available(ctx); err != nil {
		return err
	}
	return spec.Validate()
}

// Attach implements frontend.Driver.
func (d *Driver) Attach(ctx context.Context, spec frontend.Spec) (frontend.Device, error) {
	if err := d.prepare(ctx, &spec); err != nil {
		return nil, err
	}
	device, err := d.attach(ctx, spec)
	if err != nil {
		return nil, fmt.Errorf("attach volume %s: %w", spec.Volume, err)
	}
	return device, nil
}

func (d *Driver) attach(ctx context.Context, spec frontend.Spec) (frontend.Device, error) {
	path := d.identityPath(spec.Attachment)
	if _, err := os.Stat(path); err == nil {
		return nil, fmt.Errorf("%s is there: %w", path, block.ErrExists)
	}
	if err := os.MkdirAll(d.RunDir, 0o700); err != nil {
		return nil, err
	}
	device, err := serve(ctx, d, spec)
	if err != nil {
		return nil, err
	}
	if err := writeIdentity(path, spec.Identity()); err != nil {
		return nil, errors.Join(err, device.Close(context.WithoutCancel(ctx)), d.remove(spec.Attachment))
	}
	return device, nil
}

// Adopt implements frontend.Driver.
func (d *Driver) Adopt(ctx context.Context, spec frontend.Spec) (frontend.Device, error) {
	if err := d.prepare(ctx, &spec); err != nil {
		return nil, err
	}
	device, err := d.adopt(ctx, spec)
	if err != nil {
		return nil, fmt.Errorf("adopt device of volume %s: %w", spec.Volume, err)
	}
	return device, nil
}

func (d *Driver) adopt(ctx context.Context, spec frontend.Spec) (frontend.Device, error) {
	found, err := readIdentity(d.identityPath(spec.Attachment))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, block.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	if found != spec.Identity() {
		return nil, fmt.Errorf("it belongs to %s: %w", found, block.ErrConflict)
	}
	device, err := serve(ctx, d, spec)
	if err != nil {
		return nil, err
	}
	return device, nil
}

// List implements frontend.Driver.
func (d *Driver) List(context.Context) ([]frontend.Identity, error) {
	paths, err := filepath.Glob(filepath.Join(d.RunDir, "*"+identityEnding))
	if err != nil {
		return nil, fmt.Errorf("list NBD sockets: %w", err)
	}
	var list []frontend.Identity
	for _, path := range paths {
		id, err := readIdentity(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list NBD sockets: %w", err)
		}
		list = append(list, id)
	}
	return list, nil
}

// Remove implements frontend.Driver.
func (d *Driver) Remove(_ context.Context, id frontend.Identity) error {
	if err := d.remove(id.Attachment); err != nil {
		return fmt.Errorf("remove device of volume %s: %w", id.Volume, err)
	}
	return nil
}

// remove takes the identity last: as long as it is there, the device is.
func (d *Driver) remove(a block.AttachmentID) error {
	for _, path := range []string{d.socketPath(a), d.identityPath(a)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func readIdentity(path string) (frontend.Identity, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return frontend.Identity{}, err
	}
	id, err := frontend.ParseIdentity(strings.TrimSuffix(string(text), "\n"))
	if err != nil {
		return frontend.Identity{}, fmt.Errorf("%s: %w: %w", path, block.ErrCorrupt, err)
	}
	return id, nil
}

// writeIdentity makes the file in one step, so that a reader finds all or
// nothing. It need not survive a power cut: neither does the device.
func writeIdentity(path string, id frontend.Identity) error {
	if err := os.WriteFile(path+".new", []byte(id.String()+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
