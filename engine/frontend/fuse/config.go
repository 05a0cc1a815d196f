package fuse

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/holdfast-io/holdfast/engine/frontend"
	"github.com/holdfast-io/holdfast/internal/block"
)

// Names in the directory of a device.
const (
	configName = "config.json"
	stateName  = "state.json"
	socketName = "s"
	mountName  = "mnt"
	logName    = "log"
	diskName   = "disk"
)

// maxSocketPath is what the kernel takes as the path of a unix socket, in bytes.
const maxSocketPath = 107

// formatVersion is that of config.json and state.json.
const formatVersion = 1

// Config is what a helper is to do.
type Config struct {
	Version    int                `json:"version"`
	Volume     block.VolumeID     `json:"volume"`
	Attachment block.AttachmentID `json:"attachment"`
	// Size and BlockSize are in bytes.
	Size      int64 `json:"size"`
	BlockSize int   `json:"blockSize"`

	dir string
}

// LoadConfig reads config.json.
func LoadConfig(path string) (Config, error) {
	var c Config
	if err := readJSON(path, &c); err != nil {
		return Config{}, fmt.Errorf("read configuration of FUSE device: %w", err)
	}
	if c.Version != formatVersion {
		return Config{}, fmt.Errorf("configuration %s of version %d: %w", path, c.Version, block.ErrVersion)
	}
	c.dir = filepath.Dir(path)
	return c, nil
}

func (c *Config) path(name string) string { return filepath.Join(c.dir, name) }

func (c Config) withSize(size int64) Config {
	c.Size = size
	return c
}

func (c *Config) identity() frontend.Identity {
	return frontend.Identity{Volume: c.Volume, Attachment: c.Attachment}
}

// state is who serves a device.
type state struct {
	Version int `json:"version"`
	// Grows: the helper reads its configuration again when it gets growSignal. One of an
	// earlier version would die of that.
	Grows bool `json:"grows,omitempty"`
	process
}

// readState returns block.ErrNotFound when there was never a file system.
func readState(dir string) (state, error) {
	var s state
	err := readJSON(filepath.Join(dir, stateName), &s)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return state{}, fmt.Errorf("state of FUSE device: %w", block.ErrNotFound)
	case err != nil:
		return state{}, fmt.Errorf("read state of FUSE device: %w", err)
	case s.Version != formatVersion:
		return state{}, fmt.Errorf("state of FUSE device of version %d: %w", s.Version, block.ErrVersion)
	}
	return s, nil
}

func readJSON(path string, v any) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("%s: %w: %w", path, block.ErrCorrupt, err)
	}
	return nil
}

// writeJSON replaces a file in one step, so that a reader finds all or nothing.
// It need not survive a power cut: neither does the device.
func writeJSON(path string, v any) error {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", append(raw, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
