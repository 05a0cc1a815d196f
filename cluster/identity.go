package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/block"
)

const identityVersion = 1

// identity is who this node is, kept in identity.json. It belongs to the Raft
// state beside it: without that state it may not be used again (rule 1), because
// the votes and acknowledgements given under it are forgotten.
type identity struct {
	Version int             `json:"version"`
	Node    block.NodeID    `json:"node"`
	Cluster block.ClusterID `json:"cluster"`
	// Joined is set once the cluster has taken the node in.
	Joined bool `json:"joined"`
}

func newIdentity(random io.Reader) (identity, error) {
	id, err := block.NewID(random)
	if err != nil {
		return identity{}, fmt.Errorf("make node identity: %w", err)
	}
	return identity{Version: identityVersion, Node: block.NodeID{ID: id}}, nil
}

// loadIdentity reads the identity of a directory; ok is false if it has none.
func loadIdentity(dir string) (id identity, ok bool, err error) {
	path := filepath.Join(dir, "identity.json")
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return identity{}, false, nil
	}
	if err != nil {
		return identity{}, false, fmt.Errorf("read node identity: %w", err)
	}
	if err := json.Unmarshal(data, &id); err != nil {
		return identity{}, false, fmt.Errorf("read node identity %s: %w: %w", path, err, block.ErrCorrupt)
	}
	if id.Version != identityVersion {
		return identity{}, false, fmt.Errorf("read node identity %s: version %d, this build knows %d: %w", path, id.Version, identityVersion, block.ErrVersion)
	}
	if id.Node.IsZero() {
		return identity{}, false, fmt.Errorf("read node identity %s: no node ID: %w", path, block.ErrCorrupt)
	}
	return id, true, nil
}

// save replaces the identity of a directory durably.
func (id identity) save(dir string) error {
	data, err := json.Marshal(id)
	if err != nil {
		return fmt.Errorf("encode node identity: %w", err)
	}
	path := filepath.Join(dir, "identity.json")
	if err := writeSynced(path+".new", data); err != nil {
		return fmt.Errorf("write node identity: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write node identity: %w", err)
	}
	return syncDir(dir)
}

func writeSynced(path string, data []byte) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}

func syncDir(dir string) (err error) {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}

// lockDir makes sure that one process uses a directory. Closing the file gives
// it back.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock directory %s: another process has it (%w): %w", dir, err, block.ErrInUse), f.Close())
	}
	return f, nil
}
