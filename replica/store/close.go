package store

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Close ends the store: new requests fail with block.ErrClosed, those under way
// end, what they did is made durable, and the device is closed. It needs the
// executor to run. Closing twice is harmless. A disk of which an operation does not
// return stays open: that is block.ErrDiskFailed, and a matter of Tick.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closing || s.abandoned {
		s.mu.Unlock()
		return nil
	}
	s.closing = true
	for s.inFlight > 0 && !s.stuck() {
		s.quiet.Wait()
	}
	if s.failed == nil && (len(s.changed) > 0 || len(s.unsynced) > 0) {
		s.startRound()
	}
	for (s.round != nil || s.jobs > 0) && !s.stuck() {
		s.quiet.Wait()
	}
	stuck := s.stuck()
	s.left = true
	s.mu.Unlock()
	if stuck {
		return fmt.Errorf("close disk %s: an operation does not return, so its files stay open: %w", s.identity.Disk, block.ErrDiskFailed)
	}
	return s.shut()
}

// Abandon ends the store as the death of its process would, for tests and
// simulations: no Done is called any more, nothing is written. Jobs that the
// executor still holds do nothing. The device is left alone. No job may be
// running, so it is for executors that run jobs on the caller's goroutine.
func (s *Store) Abandon() error {
	s.mu.Lock()
	already := s.abandoned || s.closing
	s.abandoned = true
	s.mu.Unlock()
	if already {
		return nil
	}
	return s.closeFiles()
}

func (s *Store) isAbandoned() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.abandoned
}

// enter takes the mutex, unless the store was abandoned.
func (s *Store) enter() bool {
	s.mu.Lock()
	if s.abandoned {
		s.mu.Unlock()
		return false
	}
	return true
}

// jobBack takes the mutex at the end of a job, which counts as ended. In a store that
// was abandoned meanwhile it reports false, without the mutex.
func (s *Store) jobBack() bool {
	if !s.enter() {
		return false
	}
	s.jobDone()
	return true
}

// jobDone counts a job as ended.
func (s *Store) jobDone() {
	s.jobs--
	s.quiet.Broadcast()
}

// shut seals a store in order. The device comes last: with it goes the lock.
func (s *Store) shut() error {
	err := s.closeFiles()
	if inOrder := err == nil && s.guard.failed() == nil && s.Failed() == nil; inOrder && !s.shadow {
		// All is durable without. A disk that is full, or whose file system was taken
		// away, stays as after a kill.
		if sealErr := s.seal(); sealErr != nil {
			s.options.Logger.Warn("the disk is closed without a seal", "path", s.options.Path, "err", sealErr)
		}
	}
	if deviceErr := s.options.Device.Close(); err == nil {
		err = deviceErr
	}
	return err
}

func (s *Store) closeFiles() error {
	s.guard.release()
	var err error
	for _, file := range []vfs.File{s.journal.file, s.journal.next} {
		if file == nil {
			continue
		}
		if closeErr := file.Close(); closeErr != nil && err == nil {
			err = fmt.Errorf("close journal: %w", closeErr)
		}
	}
	if dbErr := s.db.Close(); dbErr != nil && err == nil {
		err = fmt.Errorf("close %s: %w", s.metaPath(), databaseError(dbErr))
	}
	return err
}
