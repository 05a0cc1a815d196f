package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/holdfast-io/holdfast/test/harness"
)

// What the checks find.
var (
	errLost       = errors.New("an acknowledged transaction is lost")
	errUnknown    = errors.New("a transaction is there that nobody was told of")
	errSums       = errors.New("the balances do not agree")
	errStructure  = errors.New("pg_amcheck found damage")
	errChecksum   = errors.New("pg_checksums found damage")
	errNoise      = errors.New("something went wrong that the database noticed")
	errUnequal    = errors.New("the replicas are not equal")
	errStandstill = errors.New("the volume did not go on")
)

// checkLedger looks for every acknowledged transaction of all runs, and for those
// that nobody was told of: of a run that was cut, each client may have one.
func (t *test) checkLedger(ctx context.Context) (string, error) {
	rows, err := t.database.ledgerRows(ctx)
	if err != nil {
		return "", err
	}
	found, err := compareLedger(t.runs, rows)
	return fmt.Sprintf("%d acknowledged transactions, all found", found), err
}

// ledgerRows is the whole ledger.
func (d *database) ledgerRows(ctx context.Context) (map[entry]bool, error) {
	text, err := d.Query(ctx, "SELECT run, client, n FROM ledger")
	if err != nil {
		return nil, err
	}
	rows := make(map[entry]bool)
	for line := range strings.Lines(text) {
		var e entry
		if _, err := fmt.Sscan(line, &e.run, &e.client, &e.n); err != nil {
			return nil, fmt.Errorf("row %q of the ledger: %w", line, err)
		}
		rows[e] = true
	}
	return rows, nil
}

func compareLedger(runs []*benchRun, rows map[entry]bool) (found int, err error) {
	for _, r := range runs {
		committed := 0
		for e := range rows {
			if e.run == r.number {
				committed++
			}
		}
		for _, c := range r.commits {
			if !rows[c.entry] {
				return found, fmt.Errorf("run %d, client %d, number %d, acknowledged at %s: %w",
					c.run, c.client, c.n, c.at.Format("15:04:05.000000"), errLost)
			}
			found++
		}
		unknown := committed - len(r.commits)
		if (unknown > 0 && !r.cut) || unknown > r.clients {
			return found, fmt.Errorf("%d in run %d: %w", unknown, r.number, errUnknown)
		}
	}
	if found == 0 {
		return 0, fmt.Errorf("no transaction was acknowledged: %w", errNoise)
	}
	return found, nil
}

// checkSums: each transaction adds the same to an account, a teller, a branch and
// the history, and a row to the ledger.
func (t *test) checkSums(ctx context.Context) (string, error) { return t.database.checkSums(ctx) }

func (d *database) checkSums(ctx context.Context) (string, error) {
	text, err := d.Query(ctx, `SELECT
		(SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),
		(SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(delta) FROM pgbench_history),
		(SELECT count(*) FROM pgbench_history), (SELECT count(*) FROM ledger)`)
	if err != nil {
		return "", err
	}
	var accounts, tellers, branches, history, moves, rows int64
	if _, err := fmt.Sscan(text, &accounts, &tellers, &branches, &history, &moves, &rows); err != nil {
		return "", fmt.Errorf("sums %q: %w", text, err)
	}
	if accounts != tellers || accounts != branches || accounts != history || moves != rows {
		return "", fmt.Errorf("accounts %d, tellers %d, branches %d, history %d; %d rows of history, %d of the ledger: %w",
			accounts, tellers, branches, history, moves, rows, errSums)
	}
	return fmt.Sprintf("accounts, tellers, branches and history: %d each", accounts), nil
}

// checkStructure lets PostgreSQL compare its tables and indexes, each with itself
// and with the other.
func (t *test) checkStructure(ctx context.Context) (string, error) {
	return t.database.checkStructure(ctx)
}

func (d *database) checkStructure(ctx context.Context) (string, error) {
	_, err := d.Run(ctx, "pg_amcheck", "--all", "--install-missing", "--heapallindexed", "--parent-check")
	if err != nil {
		return "", fmt.Errorf("%w: %w", errStructure, err)
	}
	return "pg_amcheck --heapallindexed --parent-check: clean", nil
}

// stopDatabase stops it in order: its last checkpoint writes all there is.
func (t *test) stopDatabase(ctx context.Context) (string, error) {
	return "", t.database.Stop(ctx)
}

// checkChecksums verifies every page of the stopped database.
func (t *test) checkChecksums(ctx context.Context) (string, error) {
	return t.database.checkChecksums(ctx)
}

func (d *database) checkChecksums(ctx context.Context) (string, error) {
	said, err := d.Run(ctx, "pg_checksums", "--check", "-D", d.Data)
	if err != nil {
		return "", fmt.Errorf("%w: %w", errChecksum, err)
	}
	scanned := regexp.MustCompile(`Blocks scanned: +(\d+)`).FindStringSubmatch(said)
	if scanned == nil || scanned[1] == "0" {
		return "", fmt.Errorf("it says %q: %w", said, errChecksum)
	}
	return "pg_checksums --check: " + scanned[1] + " pages, all good", nil
}

// checkLogs: neither the database nor the kernel has anything to complain about.
func (t *test) checkLogs(context.Context) (string, error) {
	text, err := os.ReadFile(t.database.LogPath())
	if err != nil {
		return "", err
	}
	found := complaints(string(text))
	kernel, err := t.kernel.complaints(t.devices)
	if err != nil {
		return "", err
	}
	if found = append(found, kernel...); len(found) > 0 {
		return "", fmt.Errorf("%w: %s", errNoise, strings.Join(found, "; "))
	}
	return "no complaint of the database, no I/O error in the kernel's log", nil
}

var (
	complaint = regexp.MustCompile(`(^|\] |^)(WARNING|ERROR|FATAL|PANIC): |could not|[Ii]nput/output error|terminated by signal`)
	// A server that was killed leaves the first to its children, one that is stopped the
	// others to one whose client has just left.
	expected = regexp.MustCompile(`FATAL:  terminating connection due to (unexpected postmaster exit|administrator command)|could not send data to client: Broken pipe`)
)

// complaints are the lines of a log of PostgreSQL that a good day does not have.
func complaints(log string) []string {
	var found []string
	for line := range strings.Lines(log) {
		if complaint.MatchString(line) && !expected.MatchString(line) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// checkEqual reads each replica from its own disk.
func (t *test) checkEqual(ctx context.Context) (string, error) {
	copies, err := t.cluster.Copies(ctx, t.volume)
	if err != nil {
		return "", err
	}
	if len(copies) != len(t.nodes()) {
		return "", fmt.Errorf("%d replicas, want %d: %w", len(copies), len(t.nodes()), errUnequal)
	}
	var all []harness.Sums
	var nodes []string
	for _, c := range copies {
		sums, err := c.Sums(ctx)
		if err != nil {
			return "", fmt.Errorf("%w: %w", errUnequal, err)
		}
		all, nodes = append(all, sums), append(nodes, c.Node.Name)
	}
	if err := compareSums(nodes, all); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d replicas, each SHA-256 %x", len(copies), all[0].Whole), nil
}

// compareSums compares the replicas of these nodes.
func compareSums(nodes []string, all []harness.Sums) error {
	for i, sums := range all {
		if differ := all[0].Differing(sums); len(differ) > 0 {
			return fmt.Errorf("those on %s and %s differ in %d extents of 64 KiB: %w", nodes[0], nodes[i], len(differ), errUnequal)
		}
	}
	return nil
}
