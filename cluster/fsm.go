package cluster

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
)

// fsm is the thin adapter between Raft and the state machine. Raft calls it from
// one goroutine; readers take whole states.
type fsm struct {
	// fatal is told once when this build cannot go on with the log.
	fatal func(error)

	mu      sync.Mutex
	current *state.State
	// changed is closed, and replaced, when current is.
	changed chan struct{}
	stopped error
}

func newFSM(fatal func(error)) *fsm {
	return &fsm{fatal: fatal, current: &state.State{}, changed: make(chan struct{})}
}

var _ raft.BatchingFSM = (*fsm)(nil)

// read is the current state and the channel that is closed when it is no longer.
func (f *fsm) read() (*state.State, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.current, f.changed
}

func (f *fsm) publish(s *state.State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s == f.current {
		return
	}
	f.current = s
	close(f.changed)
	f.changed = make(chan struct{})
}

// ApplyBatch implements raft.BatchingFSM.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	results := make([]any, len(logs))
	s, _ := f.read()
	for i, log := range logs {
		if log.Type != raft.LogCommand {
			continue
		}
		var r state.Result
		s, r = f.apply(s, log)
		results[i] = r
	}
	f.publish(s)
	return results
}

// Apply implements raft.FSM.
func (f *fsm) Apply(log *raft.Log) any { return f.ApplyBatch([]*raft.Log{log})[0] }

// apply makes the state after one entry. A command of a version that this build
// does not know would be carried out by newer members; to skip it would be to
// disagree with them, so this member stops there. One that is plainly malformed is
// refused alike by all.
func (f *fsm) apply(s *state.State, log *raft.Log) (*state.State, state.Result) {
	if f.stopped != nil {
		return s, state.Result{Err: f.stopped}
	}
	command, err := state.Decode(log.Data)
	if errors.Is(err, block.ErrVersion) {
		f.stopped = fmt.Errorf("apply entry %d: %w", log.Index, err)
		f.fatal(f.stopped)
		return s, state.Result{Err: f.stopped}
	}
	if err != nil {
		return s, state.Result{Err: err}
	}
	return s.Apply(log.Index, command)
}

// Snapshot implements raft.FSM.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if f.stopped != nil {
		return nil, f.stopped
	}
	s, _ := f.read()
	return fsmSnapshot{s}, nil
}

// Restore implements raft.FSM.
func (f *fsm) Restore(from io.ReadCloser) (err error) {
	defer func() { err = errors.Join(err, from.Close()) }()
	data, err := io.ReadAll(from)
	if err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	s, err := state.Restore(data)
	if err != nil {
		return err
	}
	f.publish(s)
	return nil
}

type fsmSnapshot struct{ state *state.State }

// Persist implements raft.FSMSnapshot.
func (s fsmSnapshot) Persist(sink raft.SnapshotSink) error {
	data, err := s.state.Save()
	if err == nil {
		_, err = sink.Write(data)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("save snapshot: %w", err), sink.Cancel())
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (fsmSnapshot) Release() {}
