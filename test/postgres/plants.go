package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/holdfast-io/holdfast/test/harness"
)

// plantLost takes an acknowledged transaction from the ledger.
func (t *test) plantLost(ctx context.Context) error {
	c := t.runs[0].commits[len(t.runs[0].commits)/2]
	_, err := t.database.Query(ctx, fmt.Sprintf("DELETE FROM ledger WHERE run = %d AND client = %d AND n = %d", c.run, c.client, c.n))
	return err
}

// plantSums lets one branch have a little more.
func (t *test) plantSums(ctx context.Context) error {
	_, err := t.database.Query(ctx, "UPDATE pgbench_branches SET bbalance = bbalance + 1 WHERE bid = 1")
	return err
}

// plantStructure makes an index that is sound in itself, under checksums that are
// right, and lacks what its table holds: its expression is not what it was.
func (t *test) plantStructure(ctx context.Context) error {
	_, err := t.database.Query(ctx, `CREATE FUNCTION planted(int) RETURNS int IMMUTABLE LANGUAGE SQL AS 'SELECT $1';
		CREATE INDEX planted ON pgbench_tellers (planted(tid));
		CREATE OR REPLACE FUNCTION planted(int) RETURNS int IMMUTABLE LANGUAGE SQL AS 'SELECT $1 + 1'`)
	return err
}

// plantNoise makes the database complain.
func (t *test) plantNoise(ctx context.Context) error {
	if _, err := t.database.Query(ctx, "SELECT 1/0"); err == nil {
		return errors.New("PostgreSQL divides by zero")
	}
	return nil
}

// plantChecksum flips a byte in a table of the stopped database.
func (t *test) plantChecksum(context.Context) error {
	return harness.FlipByte(filepath.Join(t.database.Data, t.accounts), 3*8192+5000)
}

func (t *test) asidePath() string { return filepath.Join(t.scratch, "aside") }

// putAside copies the disk of a replica, as it is now. Its daemon is stopped in order
// for that: what a killed one leaves has to be brought in line by an engine before it
// can be read.
func (t *test) putAside(ctx context.Context) error {
	n := t.nodes()[starved]
	if err := n.Stop(ctx); err != nil {
		return err
	}
	if err := errors.Join(copyTree(ctx, t.disks[starved].StorePath(), t.asidePath()), n.Start(ctx)); err != nil {
		return err
	}
	return t.inSync(ctx)
}

// plantUnequal puts the disk of a replica back to what it was when it was put aside.
func (t *test) plantUnequal(ctx context.Context) error {
	n, store := t.nodes()[starved], t.disks[starved].StorePath()
	if err := errors.Join(n.Stop(ctx), os.RemoveAll(store)); err != nil {
		return err
	}
	if err := copyTree(ctx, t.asidePath(), store); err != nil {
		return err
	}
	if err := n.Start(ctx); err != nil {
		return err
	}
	return harness.Wait(ctx, "the old replica to be served", func(ctx context.Context) error {
		copies, err := t.cluster.Copies(ctx, t.volume)
		if err == nil && len(copies) != len(t.nodes()) {
			err = fmt.Errorf("%d replicas are", len(copies))
		}
		return err
	})
}

// copyTree copies a directory to a path at which nothing is, without the holes of its
// files.
func copyTree(ctx context.Context, from, to string) error {
	if out, err := exec.CommandContext(ctx, "cp", "-a", "--sparse=always", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("copy %s: %w: %s", from, err, out)
	}
	return nil
}
