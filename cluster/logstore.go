package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
)

// LogStore keeps the Raft log and Raft's few durable numbers.
type LogStore interface {
	raft.LogStore
	raft.StableStore
	Close() error
}

// logSegmentBytes is small because the log is: some hundred bytes a command.
const logSegmentBytes = 8 << 20

// OpenLogStore is the one place that knows which library keeps the log.
func OpenLogStore(dir string, logger hclog.Logger) (LogStore, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open Raft log: %w", err)
	}
	meta := &metadb.BoltMetaDB{}
	log, err := wal.Open(dir, wal.WithLogger(logger), wal.WithSegmentSize(logSegmentBytes), wal.WithMetaStore(meta))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open Raft log %s: %w", dir, err), meta.Close())
	}
	return &walStore{WAL: log, meta: meta}, nil
}

// walStore closes what the WAL leaves open: its small database, whose lock would
// keep the next one out of the directory.
type walStore struct {
	*wal.WAL
	meta *metadb.BoltMetaDB
}

// Close implements LogStore.
func (s *walStore) Close() error { return errors.Join(s.WAL.Close(), s.meta.Close()) }

// raftDir is the state of Raft on disk.
type raftDir struct {
	logs      LogStore
	snapshots raft.SnapshotStore
	// fresh: nothing was ever voted for or logged here.
	fresh bool
}

func openRaftDir(dir string, logger hclog.Logger) (*raftDir, error) {
	logs, err := OpenLogStore(filepath.Join(dir, "log"), logger.Named("log"))
	if err != nil {
		return nil, err
	}
	const retained = 2
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(dir, retained, logger.Named("snapshots"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open Raft snapshots %s: %w", dir, err), logs.Close())
	}
	// A snapshot without a term is what is left when the log was lost, and no
	// better than nothing: the votes of this server are forgotten.
	term, err := logs.GetUint64([]byte("CurrentTerm"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read Raft term: %w", err), logs.Close())
	}
	last, err := logs.LastIndex()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read Raft log: %w", err), logs.Close())
	}
	return &raftDir{logs: logs, snapshots: snapshots, fresh: term == 0 && last == 0}, nil
}
