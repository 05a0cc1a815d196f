package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/test/harness"
)

// step is one part of the test.
type step struct {
	name  string
	title string
	// limit bounds the step, so that what hangs fails.
	limit time.Duration
	run   func(*test, context.Context) (string, error)
	// plant breaks what the step checks; finds is what it has to say then.
	plant func(*test, context.Context) error
	finds error
}

// The checks, each with its planted fault.
var (
	checkLedger    = step{"ledger", "every acknowledged transaction is in the ledger", 60 * time.Second, (*test).checkLedger, (*test).plantLost, errLost}
	checkShot      = step{"snapshot", "take one more snapshot, restore it and check it", 2 * time.Minute, (*test).checkShot, (*test).plantStale, errLost}
	checkSums      = step{"sums", "the sums of all balances agree", 60 * time.Second, (*test).checkSums, (*test).plantSums, errSums}
	checkStructure = step{"amcheck", "tables and indexes agree, each with itself and with the other", 2 * time.Minute, (*test).checkStructure, (*test).plantStructure, errStructure}
	checkLogs      = step{"logs", "nobody complained: the database's log, the kernel's log", 10 * time.Second, (*test).checkLogs, (*test).plantNoise, errNoise}
	stopDatabase   = step{"stop", "stop the database in order", 60 * time.Second, (*test).stopDatabase, nil, nil}
	checkChecksums = step{"checksums", "every page has its checksum", 60 * time.Second, (*test).checkChecksums, (*test).plantChecksum, errChecksum}
	detach         = step{"detach", "unmount the volume by CSI", 60 * time.Second, (*test).detach, nil, nil}
	checkEqual     = step{"equal", "read each replica from its own disk: all are equal", 2 * time.Minute, (*test).checkEqual, (*test).plantUnequal, errUnequal}
)

// stepsOf is the whole test.
func stepsOf() []step {
	faultLimit := 2*time.Minute + syncLimit
	return []step{
		{name: "cluster", title: "start three daemons, each with a disk of its own", limit: 2 * time.Minute, run: (*test).startCluster},
		{name: "volume", title: "create, stage (ext4) and mount a volume with 3 replicas", limit: time.Minute, run: (*test).makeVolume},
		{name: "database", title: "initdb --data-checksums, start PostgreSQL, pgbench -i", limit: 5 * time.Minute, run: (*test).makeDatabase},
		{name: "quiet", title: "pgbench without trouble, for comparison", limit: faultLimit, run: (*test).quiet},
		{name: "kill", title: "kill the daemon of a replica, start it 5 s later", limit: faultLimit, run: replicaKilled.step(), plant: (*test).plantStandstill, finds: errStandstill},
		{name: "freeze", title: "stop the daemon of another replica (SIGSTOP) for 10 s", limit: faultLimit, run: replicaStopped.step()},
		{name: "starve", title: "fill the disk of a replica for 8 s", limit: faultLimit, run: replicaStarved.step()},
		{name: "two", title: "stop one replica and kill another for 5 s: no majority is left", limit: faultLimit, run: twoAtOnce.step()},
		{name: "engine", title: "kill the daemon of the engine, start it again", limit: faultLimit, run: engineKilled.step()},
		{name: "crash", title: "kill all processes of PostgreSQL, start it again", limit: faultLimit, run: (*test).crash},
		checkShot, checkLedger, checkSums, checkStructure, checkLogs, stopDatabase, checkChecksums, detach, checkEqual,
		{name: "move", title: "mount it on another node: PostgreSQL starts, nothing is missing", limit: 2 * time.Minute, run: (*test).move},
		{name: "planted", title: "each check finds what is planted for it", limit: 5 * time.Minute, run: (*test).planted},
	}
}

// sabotageable are the steps that can be broken on request.
func sabotageable() []string {
	var names []string
	for _, s := range stepsOf() {
		if s.plant != nil {
			names = append(names, s.name)
		}
	}
	return names
}

// walk goes through the steps, reports each, and cleans up.
func walk(ctx context.Context, o options) error {
	t := &test{options: o}
	var steps []harness.Step
	for _, s := range stepsOf() {
		steps = append(steps, s.of(t))
	}
	return harness.Tell(ctx, steps, o.sabotage, t.cleanUp)
}

// of is the step of one test. Sabotaged, what it checks is broken first.
func (s step) of(t *test) harness.Step {
	return harness.Step{Name: s.name, Title: s.title, Limit: s.limit, Run: func(ctx context.Context, sabotaged bool) (string, error) {
		if sabotaged {
			if err := s.plant(t, ctx); err != nil {
				return "", fmt.Errorf("plant: %w", err)
			}
		}
		return s.run(t, ctx)
	}}
}

// planted shows each check what it is for, in an order in which what one plants does
// not hide what a later one plants. The fault steps are shown theirs by
// SABOTAGE only, as nothing goes on afterwards.
func (t *test) planted(ctx context.Context) (string, error) {
	var report strings.Builder
	for _, s := range []step{
		checkLogs, checkShot, checkLedger, checkSums, checkStructure, stopDatabase, checkChecksums,
		{name: "detach", run: (*test).detachMoved, limit: detach.limit}, checkEqual,
	} {
		step := s.of(t)
		result, err := step.Once(ctx, s.plant != nil)
		switch {
		case s.plant == nil && err != nil:
			return "", err
		case s.plant == nil:
		case err == nil:
			return "", fmt.Errorf("%s did not see what was planted: %s", s.name, result)
		case !errors.Is(err, s.finds):
			return "", fmt.Errorf("not what was planted: %w", err)
		default:
			fmt.Fprintf(&report, "%s\n", brief(err))
		}
	}
	return report.String(), nil
}

// brief is the first part of a long error.
func brief(err error) string {
	const most = 150
	line, _, _ := strings.Cut(err.Error(), "\n")
	if len(line) > most {
		line = line[:most] + "..."
	}
	return line
}

// names reports whether a file of /proc or /sys names something below a directory.
func names(file, dir string) bool {
	content, err := os.ReadFile(file)
	return err == nil && bytes.Contains(content, []byte(dir))
}
