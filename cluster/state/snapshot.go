package state

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/holdfast-io/holdfast/internal/block"
)

type encodedState struct {
	Version     int                      `json:"version"`
	Cluster     block.ClusterID          `json:"cluster"`
	Incarnation block.ClusterIncarnation `json:"incarnation"`
	Index       uint64                   `json:"index"`
	Collected   uint64                   `json:"collected"`
	Nodes       []Node                   `json:"nodes"`
	Disks       []Disk                   `json:"disks"`
	Volumes     []Volume                 `json:"volumes"`
}

// Snapshot is the whole state in encoded form. Equal states give equal bytes.
func (s *State) Snapshot() ([]byte, error) {
	data, err := json.Marshal(encodedState{
		Version:     version,
		Cluster:     s.cluster,
		Incarnation: s.incarnation,
		Index:       s.index,
		Collected:   s.collected,
		Nodes:       slices.Collect(s.Nodes()),
		Disks:       slices.Collect(s.Disks()),
		Volumes:     slices.Collect(s.Volumes()),
	})
	if err != nil {
		return nil, fmt.Errorf("encode snapshot: %w", err)
	}
	return data, nil
}

// Restore reads what Snapshot wrote and checks it. Its error is block.ErrVersion
// or block.ErrCorrupt.
func Restore(data []byte) (*State, error) {
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, fmt.Errorf("restore snapshot: %w: %w", err, block.ErrCorrupt)
	}
	if head.Version != version {
		return nil, fmt.Errorf("restore snapshot: version %d, this build knows %d: %w", head.Version, version, block.ErrVersion)
	}
	var e encodedState
	if err := strict(data, &e); err != nil {
		return nil, fmt.Errorf("restore snapshot: %w: %w", err, block.ErrCorrupt)
	}
	s := &State{cluster: e.Cluster, incarnation: e.Incarnation, index: e.Index, collected: e.Collected}
	for _, n := range e.Nodes {
		s.nodes = s.nodes.with(n.ID.ID, n)
	}
	for _, d := range e.Disks {
		s.disks = s.disks.with(d.ID.ID, d)
	}
	for _, v := range e.Volumes {
		s = s.withVolume(v)
	}
	if s.nodes.count != len(e.Nodes) || s.disks.count != len(e.Disks) || s.volumes.count != len(e.Volumes) {
		return nil, fmt.Errorf("restore snapshot: an ID appears twice: %w", block.ErrCorrupt)
	}
	if err := s.Check(); err != nil {
		return nil, fmt.Errorf("restore snapshot: %w: %w", err, block.ErrCorrupt)
	}
	return s, nil
}
