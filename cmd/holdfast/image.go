package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// partialSuffix marks an export that is not whole.
const partialSuffix = ".partial"

// imageView is the JSON of import and export.
type imageView struct {
	ID     string `json:"id"`
	Volume string `json:"volume"`
	File   string `json:"file"`
	Format string `json:"format"`
	Bytes  int64  `json:"bytes"`
}

func (a *app) volumeImportCommand() *cobra.Command {
	var format string
	c := &creation{}
	cmd := &cobra.Command{
		Use:   "import NAME FILE",
		Short: "Fill a volume from a disk image",
		Long: `Fill a volume from a raw or qcow2 file of this machine, with the program qemu-img.
A volume that does not exist is made, as large as the disk in the file or as
--size says; one that exists must not be in use and is overwritten as far as the
image goes. Meanwhile it is attached to the node whose daemon answers, which has
to be this machine.

What FILE is follows from its name (.raw, .img, .qcow2) or --format, never from
what is in it. A qcow2 file that needs another file is refused.`,
		Example: `  holdfast volume import db disk.qcow2
  holdfast volume import db /dev/vg0/db --format raw --size 100GiB --replicas 2`,
		Args: args("NAME", "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.name = args[0]
			return a.withImage(cmd, format, args[1], func(ctx context.Context, s *session, format string) error {
				return a.importImage(ctx, s, c, format, args[1])
			})
		},
	}
	cmd.Flags().StringVar(&format, "format", "", "raw or qcow2 (default: by the name of the file)")
	cmd.Flags().Var(&c.bytes, "size", "size of a volume that is made (default: that of the disk in the file)")
	c.parameterFlags(cmd)
	return cmd
}

func (a *app) volumeExportCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "export NAME FILE",
		Short: "Write a volume into a disk image",
		Long: `Write a volume into a new raw or qcow2 file of this machine, with the program
qemu-img; what the volume does not use takes no space there. Meanwhile it is
attached to the node whose daemon answers, which has to be this machine. For a
volume that is in use, export one made from a snapshot of it.

FILE appears when it is whole. Its format follows from its name (.raw, .img,
.qcow2) or --format.`,
		Example: `  holdfast volume export db db.qcow2

  holdfast snapshot create db today
  holdfast volume create db-today --from-snapshot today
  holdfast volume export db-today today.qcow2`,
		Args: args("NAME", "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withImage(cmd, format, args[1], func(ctx context.Context, s *session, format string) error {
				return a.exportImage(ctx, s, args[0], format, args[1])
			})
		},
	}
	cmd.Flags().StringVar(&format, "format", "", "raw or qcow2 (default: by the name of the file)")
	return cmd
}

// withImage checks what can be checked without a daemon, and runs do without a
// deadline, unless one was asked for: an image takes as long as it takes.
func (a *app) withImage(cmd *cobra.Command, named, file string, do func(ctx context.Context, s *session, format string) error) error {
	format, err := imageFormat(named, file)
	if err != nil {
		return err
	}
	if err := checkQemu(); err != nil {
		return err
	}
	return a.patiently(cmd, func(ctx context.Context, s *session) error { return do(ctx, s, format) })
}

func (a *app) importImage(ctx context.Context, s *session, c *creation, format, file string) error {
	bytes, err := imageSize(ctx, format, file)
	if err != nil {
		return err
	}
	call, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	volume, made, err := a.importTarget(call, s, c, bytes)
	if err != nil {
		return err
	}
	arguments := []string{"-n", "-W", "-m", "16", "-t", "writeback", "-f", format, "-O", formatRaw}
	if made {
		arguments = append(arguments, "--target-is-zero")
	}
	err = a.attached(ctx, s, volume, func(device string) error {
		return a.convert(ctx, "import of "+file, bytes, append(arguments, imagePath(file), device)...)
	})
	if err != nil && made {
		return a.undoCreation(ctx, s, volume, err)
	}
	if err != nil {
		return err
	}
	view := imageView{ID: volume.GetId(), Volume: volume.GetName(), File: file, Format: format, Bytes: bytes}
	return a.print(view, sentence(fmt.Sprintf("Volume %s filled from %s: %s.", view.Volume, file, formatSize(bytes))))
}

// undoCreation deletes a volume that was made for an import that failed. cause is what
// failed.
func (a *app) undoCreation(ctx context.Context, s *session, volume *holdfastv1.Volume, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.timeout)
	defer cancel()
	if _, err := s.volumes.DeleteVolume(ctx, &holdfastv1.DeleteVolumeRequest{Id: volume.GetId(), Purge: true}); err != nil {
		return fmt.Errorf("%w (and volume %s, which was made for it, is left: %w)", cause, volume.GetName(), err)
	}
	return cause
}

// importTarget finds or makes the volume for a disk of that size.
func (a *app) importTarget(ctx context.Context, s *session, c *creation, bytes int64) (volume *holdfastv1.Volume, made bool, err error) {
	volume, err = s.findFreeVolume(ctx, c.name)
	switch {
	case code(err) == codes.NotFound:
		request := &holdfastv1.CreateVolumeRequest{Name: c.name, SizeBytes: max(int64(c.bytes), bytes), Parameters: c.wanted()}
		if c.bytes != 0 && int64(c.bytes) < bytes {
			return nil, false, tooSmall("--size "+formatSize(int64(c.bytes)), bytes, "leave --size out, or make it larger")
		}
		view, err := a.create(ctx, s, request)
		return &holdfastv1.Volume{Id: view.ID, Name: view.Name, SizeBytes: view.SizeBytes}, true, err
	case err != nil:
		return nil, false, err
	case volume.GetSizeBytes() < bytes:
		what := fmt.Sprintf("volume %s, with %s,", volume.GetName(), formatSize(volume.GetSizeBytes()))
		return nil, false, tooSmall(what, bytes, fmt.Sprintf("make it larger: holdfast volume expand %s --size %s", volume.GetName(), formatSize(bytes)))
	}
	return volume, false, nil
}

// tooSmall says that something cannot hold a disk.
func tooSmall(what string, bytes int64, hint string) error {
	return failure{
		code:    codes.FailedPrecondition,
		message: fmt.Sprintf("%s is too small for the disk in the image, which has %s (%d bytes)", what, formatSize(bytes), bytes),
		hint:    hint,
	}
}

func (a *app) exportImage(ctx context.Context, s *session, name, format, file string) error {
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
		return failure{code: codes.AlreadyExists, message: file + " exists", hint: "remove it, or choose another name"}
	}
	call, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	volume, err := s.findFreeVolume(call, name)
	if err != nil {
		if found := (failure{}); errors.As(err, &found) && found.code == codes.FailedPrecondition {
			found.hint = "make a volume from a snapshot of it and export that, as holdfast volume export --help shows"
			return found
		}
		return err
	}
	partial := file + partialSuffix
	err = a.attached(ctx, s, volume, func(device string) error {
		return a.convert(ctx, "export of "+volume.GetName(), volume.GetSizeBytes(),
			"-t", "writeback", "-f", formatRaw, "-O", format, device, imagePath(partial))
	})
	if err == nil {
		err = os.Rename(partial, file)
	}
	if err != nil {
		if left := os.Remove(partial); left != nil && !errors.Is(left, fs.ErrNotExist) {
			err = errors.Join(err, left)
		}
		return err
	}
	view := imageView{ID: volume.GetId(), Volume: volume.GetName(), File: file, Format: format, Bytes: volume.GetSizeBytes()}
	return a.print(view, sentence(fmt.Sprintf("Volume %s written into %s: %s.", view.Volume, file, formatSize(view.Bytes))))
}

// attached attaches a volume to this machine, runs do with its device or its NBD URI,
// and detaches it, whatever comes in between.
func (a *app) attached(ctx context.Context, s *session, volume *holdfastv1.Volume, do func(device string) error) (err error) {
	call, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	view, err := a.attach(call, s, volume.GetId(), "")
	if err != nil {
		return err
	}
	defer func() {
		// What was written is on the volume for good only when it is detached in order.
		switch left := a.takeOff(ctx, s, volume); {
		case err == nil:
			err = left
		case left != nil:
			err = fmt.Errorf("%w (and it is still attached: %w)", err, left)
		}
	}()
	path := localPath(view.Device)
	if _, err := os.Stat(path); err != nil {
		return failure{
			code:    codes.FailedPrecondition,
			message: fmt.Sprintf("the device of volume %s is %s on node %s, and not on this machine", volume.GetName(), path, view.Node),
			hint:    "run this command on that node, or name the daemon of this machine with --server",
		}
	}
	return do(view.Device)
}

// takeOff detaches a volume, also when the context has ended.
func (a *app) takeOff(ctx context.Context, s *session, volume *holdfastv1.Volume) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.timeout)
	defer cancel()
	now, err := s.findVolume(ctx, volume.GetId())
	if err == nil {
		err = a.detach(ctx, s, now, false)
	}
	if err != nil {
		return fmt.Errorf("detach volume %s: %w", volume.GetName(), err)
	}
	return nil
}

// imagePath is the path of a file as qemu-img takes it: an absolute one is never read
// as a protocol or an option.
func imagePath(file string) string {
	if path, err := filepath.Abs(file); err == nil {
		return path
	}
	return file
}

// localPath is the path of a device, or of the socket in an NBD URI.
func localPath(device string) string {
	if uri, err := url.Parse(device); err == nil && !filepath.IsAbs(device) {
		return uri.Query().Get("socket")
	}
	return device
}
