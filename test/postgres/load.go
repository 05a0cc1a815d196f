package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/test/harness"
	"github.com/holdfast-io/holdfast/test/harness/postgresql"
)

// ledgerSchema names each transaction by the run of pgbench, its client, and its
// number there.
const ledgerSchema = `CREATE TABLE ledger (run int, client int, n int, PRIMARY KEY (run, client, n));
CREATE EXTENSION amcheck;`

// transaction is pgbench's own (TPC-B like), and the ledger's row. n counts in the
// client alone, so it is also the number under which pgbench logs the transaction.
const transaction = `\set n :n + 1
\set aid random(1, 100000 * :scale)
\set bid random(1, 1 * :scale)
\set tid random(1, 10 * :scale)
\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid;
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = :bid;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (:tid, :bid, :aid, :delta, CURRENT_TIMESTAMP);
INSERT INTO ledger VALUES (:run, :client_id, :n);
END;
`

// entry is a row of the ledger.
type entry struct{ run, client, n int }

// commit is an acknowledged transaction.
type commit struct {
	entry
	at time.Time
}

// benchRun is one run of pgbench.
type benchRun struct {
	number int
	// cut: the server was killed under it, so each client may have committed one
	// transaction more than it was told.
	cut bool
	// commits are those that pgbench was told of, in the order of their time.
	commits []commit

	database *database
	clients  int
	cmd      *exec.Cmd
	said     bytes.Buffer
	// ended is closed when pgbench has ended, at until and with the result end.
	ended chan struct{}
	until time.Time
	end   error
}

// fill makes pgbench's tables and the ledger.
func (d *database) fill(ctx context.Context, scale int) error {
	if _, err := d.Run(ctx, "pgbench", "-i", "-q", "-s", strconv.Itoa(scale)); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(d.Home, "transaction.sql"), []byte(transaction), 0o644); err != nil {
		return err
	}
	_, err := d.Query(ctx, ledgerSchema)
	return err
}

// runLimit ends a run that nobody finishes. No step takes as long.
const runLimit = time.Hour

// load starts a run of pgbench that lasts until finish, and waits until it commits.
func (d *database) load(ctx context.Context, number int, o options) (*benchRun, error) {
	r := &benchRun{number: number, database: d, clients: o.clients, ended: make(chan struct{})}
	// Killing it would lose what it has not written to its log yet, so a canceled step
	// does not.
	r.cmd = d.Program(context.WithoutCancel(ctx), "pgbench", "-n", "-M", "prepared",
		"-c", strconv.Itoa(o.clients), "-j", "2", "-T", strconv.Itoa(int(runLimit.Seconds())), "-s", strconv.Itoa(o.scale),
		"-D", "n=0", "-D", "run="+strconv.Itoa(number), "-f", filepath.Join(d.Home, "transaction.sql"),
		"--log", "--log-prefix="+r.logPrefix())
	r.cmd.Stdout, r.cmd.Stderr = &r.said, &r.said
	if err := r.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start pgbench: %w", err)
	}
	go func() {
		r.end = r.cmd.Wait()
		r.until = time.Now()
		close(r.ended)
	}()
	return r, r.advance(ctx)
}

func (r *benchRun) logPrefix() string {
	return filepath.Join(r.database.Home, fmt.Sprintf("run-%d", r.number))
}

// progressRows is how many transactions show that a run goes on.
const progressRows = 5

// advance waits until the run has committed some more.
func (r *benchRun) advance(ctx context.Context) error {
	first := -1
	return harness.Wait(ctx, fmt.Sprintf("%d transactions", progressRows), func(ctx context.Context) error {
		text, err := r.database.Query(ctx, fmt.Sprintf("SELECT count(*) FROM ledger WHERE run = %d", r.number))
		if err != nil {
			return err
		}
		rows, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil {
			return harness.Stop(err)
		}
		if first < 0 {
			first = rows
		}
		select {
		case <-r.ended:
			return harness.Stop(fmt.Errorf("pgbench has ended: %w: %s", errors.Join(errStandstill, r.end), r.said.String()))
		default:
		}
		if rows < first+progressRows {
			return fmt.Errorf("%d are committed", rows-first)
		}
		return nil
	})
}

// giveUp ends a run whose log no longer counts.
func (r *benchRun) giveUp() {
	_ = r.cmd.Process.Kill() // it may have ended
	<-r.ended
}

// finish tells the run that its time is over, lets it end and reads its log. A run that
// was not cut must have had no error and no client that gave up.
func (r *benchRun) finish(ctx context.Context) error {
	// The alarm clock of -T ends a run in order, and so does its signal.
	if err := r.cmd.Process.Signal(unix.SIGALRM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end pgbench: %w", err)
	}
	select {
	case <-r.ended:
	case <-ctx.Done():
		return fmt.Errorf("pgbench stands still: %w: %s", ctx.Err(), r.said.String())
	}
	said := r.said.String()
	if (r.end != nil || strings.Contains(said, "error:")) && !r.cut {
		return fmt.Errorf("pgbench: %w: %s", errors.Join(r.end, errNoise), said)
	}
	logs, err := filepath.Glob(r.logPrefix() + ".*")
	if err != nil {
		return err
	}
	for _, log := range logs {
		text, err := os.ReadFile(log)
		if err != nil {
			return err
		}
		commits, err := parseLog(text, r.number)
		if err != nil {
			return fmt.Errorf("read %s: %w", log, err)
		}
		r.commits = append(r.commits, commits...)
	}
	slices.SortFunc(r.commits, func(a, b commit) int { return a.at.Compare(b.at) })
	summary, err := postgresql.ParseSummary(said)
	if err != nil {
		return err
	}
	if summary.Failed > 0 || summary.Processed != len(r.commits) {
		return fmt.Errorf("pgbench processed %d transactions, failed %d, and logged %d: %w",
			summary.Processed, summary.Failed, len(r.commits), errNoise)
	}
	return nil
}

// parseLog reads a log of pgbench: a line for each acknowledged transaction, with
// client, number in the client, duration, script, seconds and microseconds since
// 1970.
func parseLog(text []byte, number int) ([]commit, error) {
	var commits []commit
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		var (
			c                               = commit{entry: entry{run: number}}
			duration, script, seconds, usec int64
		)
		if n, err := fmt.Sscan(lines.Text(), &c.client, &c.n, &duration, &script, &seconds, &usec); err != nil {
			return nil, fmt.Errorf("line %q: %d fields: %w", lines.Text(), n, err)
		}
		c.at = time.Unix(seconds, usec*1000)
		commits = append(commits, c)
	}
	return commits, lines.Err()
}

// pause is the longest time without a commit that overlaps the time from..to, as far
// as the run goes. The time after the last commit counts as well.
func (r *benchRun) pause(from, to time.Time) time.Duration {
	if r.until.Before(to) {
		to = r.until
	}
	longest := time.Duration(0)
	last := from
	for _, c := range r.commits {
		if c.at.After(from) && last.Before(to) {
			longest = max(longest, c.at.Sub(last))
		}
		last = c.at
	}
	if last.Before(to) && from.Before(to) {
		longest = max(longest, to.Sub(last))
	}
	return longest
}

// commitsIn reports whether a transaction committed in that time.
func (r *benchRun) commitsIn(from, to time.Time) bool {
	return slices.ContainsFunc(r.commits, func(c commit) bool { return c.at.After(from) && c.at.Before(to) })
}

// tps is the rate of commits over the run.
func (r *benchRun) tps() float64 {
	if len(r.commits) < 2 {
		return 0
	}
	return float64(len(r.commits)-1) / r.commits[len(r.commits)-1].at.Sub(r.commits[0].at).Seconds()
}
