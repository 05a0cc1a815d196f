package main

import "github.com/holdfast-io/holdfast/test/harness/postgresql"

// database is a PostgreSQL server whose data directory lies on the volume; its home lies
// off it.
type database struct{ *postgresql.Server }

// newDatabase makes the home of a database that is small beside its data, so that it
// reads and writes the volume, and checkpoints often.
func newDatabase(home string) (*database, error) {
	server, err := postgresql.New(home, "max_connections=20",
		"shared_buffers=24MB", "min_wal_size=32MB", "max_wal_size=64MB", "checkpoint_timeout=30s", "jit=off")
	if err != nil {
		return nil, err
	}
	return &database{server}, nil
}
