package fuse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/engine/frontend"
	"github.com/holdfast-io/holdfast/internal/block"
)

// endTimeout is how long a helper may take to end after a signal.
const endTimeout = 5 * time.Second

// Driver makes FUSE devices.
type Driver struct {
	// RunDir holds the directories of the devices. It must outlive the daemon
	// but not the machine.
	RunDir string
	// Helper is the command that calls Main; the path of a configuration file
	// is appended.
	Helper []string
	// Logger may be nil.
	Logger *slog.Logger
}

var _ frontend.Driver = (*Driver)(nil)

// Name implements frontend.Driver.
func (d *Driver) Name() string { return "fuse" }

// Available implements frontend.Driver.
func (d *Driver) Available(context.Context) error {
	if len(d.Helper) == 0 || !filepath.IsAbs(d.RunDir) {
		return fmt.Errorf("FUSE devices need a helper command and an absolute run directory: %w", block.ErrInvalid)
	}
	for _, path := range []string{"/dev/fuse", loopControl} {
		if err := unix.Access(path, unix.R_OK|unix.W_OK); err != nil {
			return fmt.Errorf("FUSE devices need %s: %w: %w", path, block.ErrUnavailable, err)
		}
	}
	return frontend.Privileged()
}

func (d *Driver) dir(a block.AttachmentID) string { return filepath.Join(d.RunDir, a.String()) }

// prepare checks what Attach and Adopt have in common.
func (d *Driver) prepare(ctx context.Context, spec *frontend.Spec) (Config, error) {
	if err := d.Available(ctx); err != nil {
		return Config{}, err
	}
	if err := spec.Validate(); err != nil {
		return Config{}, err
	}
	config := Config{
		Version: formatVersion, Volume: spec.Volume, Attachment: spec.Attachment,
		Size: spec.Size, BlockSize: spec.LogicalBlockSize, dir: d.dir(spec.Attachment),
	}
	if path := config.path(socketName); len(path) > maxSocketPath {
		return Config{}, fmt.Errorf("run directory %s is too long for a socket: %w", d.RunDir, block.ErrInvalid)
	}
	return config, nil
}

// Attach implements frontend.Driver.
func (d *Driver) Attach(ctx context.Context, spec frontend.Spec) (frontend.Device, error) {
	config, err := d.prepare(ctx, &spec)
	if err != nil {
		return nil, err
	}
	if old, err := readState(config.dir); err == nil && old.alive() {
		loop, err := findLoop(spec.Attachment)
		if loop != "" || err != nil {
			return nil, errors.Join(fmt.Errorf("attach volume %s: device %q has it: %w", spec.Volume, loop, block.ErrExists), err)
		}
	}
	// What a device that never became complete, or died, has left.
	if err := d.Remove(ctx, spec.Identity()); err != nil {
		return nil, fmt.Errorf("attach volume %s: %w", spec.Volume, err)
	}
	if err := os.MkdirAll(config.path(mountName), 0o700); err != nil {
		return nil, fmt.Errorf("attach volume %s: %w", spec.Volume, err)
	}
	if err := writeJSON(config.path(configName), config); err != nil {
		return nil, fmt.Errorf("attach volume %s: %w", spec.Volume, err)
	}
	device, err := serve(ctx, d, config, spec)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("attach volume %s: %w", spec.Volume, err), d.Remove(ctx, spec.Identity()))
	}
	if err := d.complete(ctx, device); err != nil {
		return nil, d.giveUp(ctx, device, err)
	}
	return device, nil
}

// complete starts the helper and puts the loop device on its file.
func (d *Driver) complete(ctx context.Context, device *Device) error {
	config := device.config
	if err := d.start(ctx, config); err != nil {
		return err
	}
	var err error
	if device.helper, err = readState(config.dir); err != nil {
		return err
	}
	device.loop, err = attachLoop(filepath.Join(config.path(mountName), diskName), config.Attachment, config.BlockSize)
	if err != nil {
		return err
	}
	if err := tuneLoop(device.loop); err != nil {
		device.log.Warn("loop device is not tuned", "err", err)
	}
	return nil
}

// giveUp undoes an Attach.
func (d *Driver) giveUp(ctx context.Context, device *Device, cause error) error {
	// ctx may be what failed.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*endTimeout)
	defer cancel()
	return errors.Join(
		fmt.Errorf("attach volume %s: %w", device.spec.Volume, cause),
		d.Remove(ctx, device.spec.Identity()),
		device.Close(ctx),
	)
}

// start runs the helper and waits until it has the device or has failed.
func (d *Driver) start(ctx context.Context, config Config) error {
	read, write, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	defer read.Close()
	log, err := os.OpenFile(config.path(logName), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return errors.Join(fmt.Errorf("open log of helper: %w", err), write.Close())
	}
	// The helper outlives ctx and this process.
	command := exec.CommandContext(context.WithoutCancel(ctx), d.Helper[0], append(d.Helper[1:len(d.Helper):len(d.Helper)], config.path(configName))...)
	command.Dir = "/"
	command.Stdout, command.Stderr = log, log
	command.ExtraFiles = []*os.File{write}
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = errors.Join(command.Start(), write.Close(), log.Close())
	if err != nil {
		return fmt.Errorf("start helper: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = read.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	said, err := io.ReadAll(io.LimitReader(read, 4096))
	if err == nil && string(said) == readyWord {
		return command.Process.Release()
	}
	if err == nil {
		err = fmt.Errorf("helper: %s: %w", said, block.ErrUnavailable)
	}
	// It has no state file by which Remove could find it.
	_ = command.Process.Kill()
	_ = command.Wait()
	return err
}

// Adopt implements frontend.Driver.
func (d *Driver) Adopt(ctx context.Context, spec frontend.Spec) (frontend.Device, error) {
	config, err := d.prepare(ctx, &spec)
	if err != nil {
		return nil, err
	}
	found, err := LoadConfig(config.path(configName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("adopt device of volume %s: %w", spec.Volume, block.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("adopt device of volume %s: %w", spec.Volume, err)
	}
	if found.Size > config.Size || found.withSize(config.Size) != config {
		return nil, fmt.Errorf("adopt device of volume %s: it was made for %+v: %w", spec.Volume, found, block.ErrConflict)
	}
	state, err := readState(config.dir)
	if err != nil {
		return nil, fmt.Errorf("adopt device of volume %s: %w", spec.Volume, err)
	}
	loop, err := findLoop(spec.Attachment)
	if err != nil {
		return nil, fmt.Errorf("adopt device of volume %s: %w", spec.Volume, err)
	}
	if loop == "" || !state.alive() {
		// Its I/O has failed; no helper can bring back what the users were told.
		return nil, errors.Join(
			fmt.Errorf("adopt device of volume %s: it was never complete, or its helper has ended: %w", spec.Volume, block.ErrNotFound),
			d.Remove(ctx, spec.Identity()),
		)
	}
	device, err := serve(ctx, d, config, spec)
	if err != nil {
		return nil, fmt.Errorf("adopt device of volume %s: %w", spec.Volume, err)
	}
	device.helper, device.loop = state, loop
	// An earlier daemon may have ended between the volume's growth and the device's.
	if err := device.Resize(ctx, spec.Size); err != nil {
		return nil, errors.Join(fmt.Errorf("adopt device of volume %s: %w", spec.Volume, err), device.Close(ctx))
	}
	return device, nil
}

// List implements frontend.Driver.
func (d *Driver) List(context.Context) ([]frontend.Identity, error) {
	entries, err := os.ReadDir(d.RunDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list FUSE devices: %w", err)
	}
	var list []frontend.Identity
	for _, entry := range entries {
		// Nothing else is touched: a file system on one of the devices that are
		// listed would not answer.
		if _, err := block.ParseID(entry.Name()); err != nil {
			continue
		}
		config, err := LoadConfig(filepath.Join(d.RunDir, entry.Name(), configName))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list FUSE devices: %w", err)
		}
		list = append(list, config.identity())
	}
	return list, nil
}

// Remove implements frontend.Driver.
func (d *Driver) Remove(ctx context.Context, id frontend.Identity) error {
	dir := d.dir(id.Attachment)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	state, err := readState(dir)
	if err == nil {
		err = endProcess(ctx, state.process)
	}
	if err != nil && !errors.Is(err, block.ErrNotFound) {
		return fmt.Errorf("remove device of volume %s: %w", id.Volume, err)
	}
	loop, err := findLoop(id.Attachment)
	if err == nil && loop != "" {
		err = forceLoop(loop, id.Attachment)
	}
	err = errors.Join(err, unmount(filepath.Join(dir, mountName), unix.MNT_DETACH))
	if err == nil {
		err = os.RemoveAll(dir)
	}
	if err != nil {
		return fmt.Errorf("remove device of volume %s: %w", id.Volume, err)
	}
	return nil
}

// endProcess ends a helper: first it may take its device down, then it is
// killed.
func endProcess(ctx context.Context, p process) error {
	h, err := p.open()
	if err != nil {
		return err
	}
	defer h.release()
	if err := h.signal(unix.SIGTERM); err != nil {
		return err
	}
	orderly, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	if h.wait(orderly) == nil {
		return nil
	}
	if err := h.signal(unix.SIGKILL); err != nil {
		return err
	}
	return h.wait(ctx)
}
