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
	Snapshots   []Snapshot               `json:"snapshots,omitempty"`
	Scrubs      []Scrub                  `json:"scrubs,omitempty"`
	Settings    *Settings                `json:"settings,omitempty"`
}

// Save is the whole state in encoded form. Equal states give equal bytes.
func (s *State) Save() ([]byte, error) {
	version := version1
	for v := range s.Volumes() {
		version = max(version, v.version())
	}
	for d := range s.Disks() {
		if d.Cordoned || d.Draining {
			version = version2
		}
	}
	if s.snapshots.count > 0 || s.scrubs.count > 0 || s.settings != nil {
		version = version2
	}
	data, err := json.Marshal(encodedState{
		Version:     version,
		Cluster:     s.cluster,
		Incarnation: s.incarnation,
		Index:       s.index,
		Collected:   s.collected,
		Nodes:       slices.Collect(s.Nodes()),
		Disks:       slices.Collect(s.Disks()),
		Volumes:     slices.Collect(s.Volumes()),
		Snapshots:   slices.Collect(s.Snapshots()),
		Scrubs:      slices.Collect(s.Scrubs()),
		Settings:    s.settings,
	})
	if err != nil {
		return nil, fmt.Errorf("encode state: %w", err)
	}
	return data, nil
}

// Restore reads what Save wrote and checks it. Its error is block.ErrVersion
// or block.ErrCorrupt.
func Restore(data []byte) (*State, error) {
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, fmt.Errorf("restore state: %w: %w", err, block.ErrCorrupt)
	}
	if err := checkVersion(head.Version); err != nil {
		return nil, fmt.Errorf("restore state: %w", err)
	}
	var e encodedState
	if err := strict(data, &e); err != nil {
		return nil, fmt.Errorf("restore state: %w: %w", err, block.ErrCorrupt)
	}
	s := &State{cluster: e.Cluster, incarnation: e.Incarnation, index: e.Index, collected: e.Collected, settings: e.Settings}
	for _, n := range e.Nodes {
		s.nodes = s.nodes.with(n.ID.ID, n)
	}
	for _, d := range e.Disks {
		s.disks = s.disks.with(d.ID.ID, d)
	}
	for _, v := range e.Volumes {
		s = s.withVolume(v)
	}
	for _, r := range e.Snapshots {
		s = s.withSnapshot(r)
	}
	for _, r := range e.Scrubs {
		s = s.withScrub(r)
	}
	if s.nodes.count != len(e.Nodes) || s.disks.count != len(e.Disks) || s.volumes.count != len(e.Volumes) || s.snapshots.count != len(e.Snapshots) ||
		s.scrubs.count != len(e.Scrubs) {
		return nil, fmt.Errorf("restore state: an ID appears twice: %w", block.ErrCorrupt)
	}
	if err := s.Check(); err != nil {
		return nil, fmt.Errorf("restore state: %w: %w", err, block.ErrCorrupt)
	}
	return s, nil
}
