package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"sync"

	"github.com/holdfast-io/holdfast/internal/block"
)

// spentDisks are the incarnations under which disks have failed, by their directory.
// What such a disk had in its caches may be lost, and nobody could tell: the next sync
// would say that all is well (rule 31). So it is opened again under another incarnation
// alone, which shows that it may have lost something (rule 17), also by a daemon that was
// started since: a file keeps them, a JSON object of directories.
type spentDisks struct {
	path string
	// writing is held while the file is written, which nobody else waits for.
	writing sync.Mutex

	mu   sync.Mutex
	list map[string]block.Incarnation
}

func (s *spentDisks) read() error {
	data, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	list := make(map[string]block.Incarnation)
	if err == nil {
		if err = json.Unmarshal(data, &list); err != nil {
			err = fmt.Errorf("%w: %w: restore it; or mount the file systems of disks that have failed anew, and remove it", block.ErrCorrupt, err)
		}
	}
	if err != nil {
		return fmt.Errorf("read list of failed disks %s: %w", s.path, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = list
	return nil
}

// of is the incarnation under which the disk in a directory has failed last, or zero.
func (s *spentDisks) of(dir string) block.Incarnation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list[dir]
}

// note notes that a disk has failed, durably.
func (s *spentDisks) note(dir string, spent block.Incarnation) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	list := maps.Clone(s.list)
	s.mu.Unlock()
	if list[dir] == spent {
		return nil
	}
	if list == nil {
		list = make(map[string]block.Incarnation)
	}
	list[dir] = spent
	data, err := json.MarshalIndent(list, "", "  ")
	if err == nil {
		err = writeDurably(s.path, data)
	}
	if err != nil {
		return fmt.Errorf("write list of failed disks: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = list
	return nil
}
