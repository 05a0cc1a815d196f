package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// ledgerWriters are the database connections that write at once.
const ledgerWriters = 4

// ledger is a SQLite database on the volume, written by concurrent connections
// with synchronous=FULL. Every row that SQLite has acknowledged is noted off the
// volume, so that afterwards each can be looked for.
type ledger struct {
	database string
	notes    *os.File
	writers  []*ledgerWriter

	mu     sync.Mutex
	paused bool
	active int
	wake   *sync.Cond
	acked  map[string]bool
	last   time.Time
	gap    time.Duration
	err    error
	done   sync.WaitGroup
	stop   bool
}

// ledgerWriter is one sqlite3 process.
type ledgerWriter struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Scanner
	stderr strings.Builder
}

const ledgerSchema = `PRAGMA journal_mode=WAL;
CREATE TABLE ledger(writer INTEGER, n INTEGER, payload BLOB, PRIMARY KEY(writer, n));
`

// startLedger makes the database in dir and starts its writers. Acknowledged
// rows are noted in the file notes.
func startLedger(ctx context.Context, dir, notes string) (*ledger, error) {
	l := &ledger{
		database: filepath.Join(dir, "ledger.db"),
		acked:    make(map[string]bool),
		last:     time.Now(),
	}
	l.wake = sync.NewCond(&l.mu)
	if out, err := sqlite(ctx, l.database, ledgerSchema); err != nil {
		return nil, fmt.Errorf("make database: %w: %s", err, out)
	}
	file, err := os.Create(notes)
	if err != nil {
		return nil, err
	}
	l.notes = file
	for i := range ledgerWriters {
		w, err := newLedgerWriter(ctx, l.database)
		if err != nil {
			return nil, err
		}
		l.writers = append(l.writers, w)
		l.active++
		l.done.Go(func() {
			l.write(i, w)
			l.leave()
		})
	}
	return l, nil
}

// newLedgerWriter starts a process that outlives the step: cleaning up ends it.
func newLedgerWriter(ctx context.Context, database string) (*ledgerWriter, error) {
	w := &ledgerWriter{cmd: exec.CommandContext(context.WithoutCancel(ctx), "sqlite3", "-batch", "-bail", database)}
	stdin, err := w.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	w.stdin, w.stdout = stdin, bufio.NewScanner(stdout)
	w.cmd.Stderr = &w.stderr
	if err := w.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start sqlite3: %w", err)
	}
	_, err = io.WriteString(stdin, ".timeout 120000\nPRAGMA synchronous=FULL;\n")
	return w, err
}

// write commits row after row until the ledger stops.
func (l *ledger) write(writer int, w *ledgerWriter) {
	for n := 0; l.proceed(); n++ {
		row := fmt.Sprintf("%d:%d", writer, n)
		_, err := fmt.Fprintf(w.stdin, "BEGIN IMMEDIATE; INSERT INTO ledger VALUES(%d, %d, randomblob(3000)); COMMIT; SELECT 'ack';\n", writer, n)
		if err == nil && !(w.stdout.Scan() && w.stdout.Text() == "ack") {
			err = fmt.Errorf("no acknowledgement: %s", strings.TrimSpace(w.stderr.String()))
		}
		if err != nil {
			l.fail(fmt.Errorf("row %s: %w", row, err))
			return
		}
		l.acknowledge(row)
	}
}

// proceed waits while the ledger is paused; false when it is to stop.
func (l *ledger) proceed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.active--
	l.wake.Broadcast()
	for l.paused && !l.stop {
		l.wake.Wait()
	}
	l.active++
	return !l.stop && l.err == nil
}

// leave notes that a writer has ended.
func (l *ledger) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.active--
	l.wake.Broadcast()
}

// hold waits until no transaction runs and lets none begin until resume.
func (l *ledger) hold(ctx context.Context) error {
	defer context.AfterFunc(ctx, l.wake.Broadcast)()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.paused = true
	for l.active > 0 && ctx.Err() == nil {
		l.wake.Wait()
	}
	if l.active > 0 {
		return fmt.Errorf("%d transactions do not end: %w", l.active, ctx.Err())
	}
	return nil
}

func (l *ledger) resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.paused = false
	l.last = time.Now()
	l.wake.Broadcast()
}

func (l *ledger) acknowledge(row string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.gap = max(l.gap, now.Sub(l.last))
	l.last = now
	l.acked[row] = true
	if _, err := fmt.Fprintln(l.notes, row); err != nil && l.err == nil {
		l.err = err
	}
}

func (l *ledger) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil && !l.stop {
		l.err = err
	}
}

// rows is the number of acknowledged rows so far, and what went wrong.
func (l *ledger) rows() (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked), l.err
}

// longestPause is the longest time without any acknowledgement since the last
// call.
func (l *ledger) longestPause() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	gap := max(l.gap, time.Since(l.last))
	l.gap, l.last = 0, time.Now()
	return gap
}

// advance waits until the database has committed what counts as going on.
func (l *ledger) advance(ctx context.Context) error {
	const n = rowsPerStep
	start, err := l.rows()
	for ctx.Err() == nil {
		if err != nil {
			return err
		}
		var now int
		if now, err = l.rows(); err == nil && now >= start+n {
			return nil
		}
		if waitErr := pause(ctx, 20*time.Millisecond); waitErr != nil {
			break
		}
	}
	now, _ := l.rows()
	return fmt.Errorf("the database stands still: %d of %d rows: %w", now-start, n, ctx.Err())
}

// close ends the writers after their current transaction.
func (l *ledger) close(ctx context.Context) error {
	l.end()
	if err := l.reap(ctx); err != nil {
		return err
	}
	return errors.Join(l.err, l.notes.Close())
}

// kill ends the writers without ceremony, when the demo is given up.
func (l *ledger) kill() {
	l.end()
	for _, w := range l.writers {
		_ = w.cmd.Process.Kill() // it may have ended
	}
}

// end lets no further transaction begin.
func (l *ledger) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stop = true
	l.wake.Broadcast()
}

// reap waits for the writers, which cannot even be killed while the volume does
// not answer them.
func (l *ledger) reap(ctx context.Context) error {
	ended := make(chan error, 1)
	go func() {
		l.done.Wait()
		var errs []error
		for _, w := range l.writers {
			w.stdin.Close()
			if err := w.cmd.Wait(); err != nil {
				errs = append(errs, fmt.Errorf("sqlite3: %w: %s", err, strings.TrimSpace(w.stderr.String())))
			}
		}
		ended <- errors.Join(errs...)
	}()
	select {
	case err := <-ended:
		l.writers = nil
		return err
	case <-ctx.Done():
		return fmt.Errorf("the database's writers do not end: %w", ctx.Err())
	}
}

// verify looks for every acknowledged row in the database under dir and lets
// SQLite check its structure.
func (l *ledger) verify(ctx context.Context, dir string) (rows int, err error) {
	database := filepath.Join(dir, filepath.Base(l.database))
	check, err := sqlite(ctx, database, "PRAGMA integrity_check;\n")
	if err != nil {
		return 0, fmt.Errorf("integrity check: %w: %s", err, check)
	}
	if got := strings.TrimSpace(check); got != "ok" {
		return 0, fmt.Errorf("integrity check: %s", got)
	}
	out, err := sqlite(ctx, database, "SELECT writer || ':' || n FROM ledger WHERE length(payload) = 3000;\n")
	if err != nil {
		return 0, fmt.Errorf("read rows: %w: %s", err, out)
	}
	found := make(map[string]bool)
	for _, row := range strings.Fields(out) {
		found[row] = true
	}
	for row := range l.acked {
		if !found[row] {
			return 0, fmt.Errorf("row %s was acknowledged and is not there", row)
		}
	}
	return len(l.acked), nil
}

func sqlite(ctx context.Context, database, script string) (string, error) {
	cmd := exec.CommandContext(ctx, "sqlite3", "-batch", "-bail", database)
	cmd.Stdin = strings.NewReader(script)
	out, err := cmd.CombinedOutput()
	return string(out), err
}
