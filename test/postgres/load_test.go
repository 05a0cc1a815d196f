package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/test/harness"
)

// at is a time in a run, in milliseconds.
func at(ms int) time.Time { return time.UnixMilli(int64(1_700_000_000_000 + ms)) }

// runAt is a run of one client that committed at these times.
func runAt(until int, times ...int) *benchRun {
	r := &benchRun{number: 1, clients: 2, until: at(until)}
	for i, ms := range times {
		r.commits = append(r.commits, commit{entry: entry{1, 0, i + 1}, at: at(ms)})
	}
	return r
}

func TestParseLog(t *testing.T) {
	commits, err := parseLog([]byte("0 1 2668 0 1795447782 325377\n3 17 4601 0 1795447782 327316\n"), 5)
	if err != nil || len(commits) != 2 {
		t.Fatalf("got %v, %v", commits, err)
	}
	want := commit{entry: entry{run: 5, client: 3, n: 17}, at: time.Unix(1795447782, 327316000)}
	if commits[1] != want {
		t.Errorf("got %v, want %v", commits[1], want)
	}
	for _, bad := range []string{"0 1 failed 0 1795447782 325377\n", "0 1 2668\n", "\n", "x 1 2668 0 1 2\n"} {
		if commits, err := parseLog([]byte(bad), 5); err == nil {
			t.Errorf("%q gave %v", bad, commits)
		}
	}
}

func FuzzParseLog(f *testing.F) {
	f.Add([]byte("0 1 2668 0 1795447782 325377\n"))
	f.Add([]byte("0 1 failed 0 1795447782 325377\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		commits, err := parseLog(text, 1)
		if err == nil && len(commits)*len("0 0 0 0 0 0") > len(text) {
			t.Errorf("%d commits in %q", len(commits), text)
		}
	})
}

func TestPause(t *testing.T) {
	r := runAt(5000, 0, 100, 200, 3200, 3300, 4900)
	for _, test := range []struct{ from, to, want int }{
		{0, 5000, 3000},    // the longest
		{50, 150, 100},     // both ends are inside of pauses
		{1000, 2000, 3000}, // a pause around all of it
		{3250, 4000, 1600}, // the end of one, until its commit
		{4950, 5000, 100},  // after the last commit, until the end
		{4950, 9000, 100},  // the run has ended before
		{8000, 9000, 0},
	} {
		if got := r.pause(at(test.from), at(test.to)); got != time.Duration(test.want)*time.Millisecond {
			t.Errorf("pause from %d to %d is %v, want %d ms", test.from, test.to, got, test.want)
		}
	}
	if r.commitsIn(at(250), at(3100)) || !r.commitsIn(at(250), at(3250)) {
		t.Error("commits are seen in a pause, or not after it")
	}
}

// TestCompareLedger: a lost transaction is found, one that nobody was told of is too,
// and what a killed server may leave is let pass.
func TestCompareLedger(t *testing.T) {
	rows := func(n int) map[entry]bool {
		all := make(map[entry]bool)
		for i := range n {
			all[entry{1, 0, i + 1}] = true
		}
		return all
	}
	for _, test := range []struct {
		name string
		rows int
		cut  bool
		want error
	}{
		{"all are there", 3, false, nil},
		{"the last is lost", 2, false, errLost},
		{"the last is lost by a crash", 2, true, errLost},
		{"one too many", 4, false, errUnknown},
		{"one for each client after a crash", 5, true, nil},
		{"too many after a crash", 6, true, errUnknown},
	} {
		r := runAt(100, 1, 2, 3)
		r.cut = test.cut
		found, err := compareLedger([]*benchRun{r}, rows(test.rows))
		if !errors.Is(err, test.want) || err == nil && found != 3 {
			t.Errorf("%s: found %d, %v; want %v", test.name, found, err, test.want)
		}
	}
	if _, err := compareLedger(nil, rows(0)); !errors.Is(err, errNoise) {
		t.Errorf("without any transaction: %v", err)
	}
}

func TestComplaints(t *testing.T) {
	const good = `2026-11-23 15:29:39.713 UTC [22560] LOG:  starting PostgreSQL 15.18
2026-11-23 15:29:46.358 UTC [22725] FATAL:  terminating connection due to unexpected postmaster exit
2026-11-30 00:41:48.908 UTC [1273] FATAL:  terminating connection due to administrator command
2026-11-30 00:41:48.908 UTC [1273] LOG:  could not send data to client: Broken pipe
2026-11-23 15:29:50.358 UTC [22725] LOG:  database system was not properly shut down; automatic recovery in progress
2026-11-23 15:29:50.400 UTC [22725] LOG:  invalid record length at 0/2F0A8D8: wanted 24, got 0
`
	if found := complaints(good); len(found) > 0 {
		t.Errorf("complaints about a good log: %q", found)
	}
	for _, bad := range []string{
		"2026-11-23 15:29:39.713 UTC [22560] PANIC:  could not fdatasync file \"000000010000000000000003\": Input/output error",
		"2026-11-23 15:29:39.713 UTC [22560] WARNING:  page verification failed, calculated checksum 1 but expected 2",
		"2026-11-23 15:29:39.713 UTC [22560] ERROR:  invalid page in block 3 of relation base/5/16400",
		"2026-11-23 15:29:39.713 UTC [22560] LOG:  could not write temporary statistics file",
		"2026-11-23 15:29:39.713 UTC [22560] LOG:  server process (PID 7) was terminated by signal 11: Segmentation fault",
	} {
		if found := complaints(good + bad + "\n" + good); len(found) != 1 || found[0] != bad {
			t.Errorf("%q: found %q", bad, found)
		}
	}
}

func TestAccuses(t *testing.T) {
	for line, want := range map[string]bool{
		"I/O error, dev nbd0, sector 2048 op 0x1:(WRITE) flags 0x800 phys_seg 1 prio class 0":     true,
		"EXT4-fs error (device nbd0): ext4_find_entry:1455: inode #2: comm ls: reading directory": true,
		"EXT4-fs (nbd0): Remounting filesystem read-only":                                         true,
		"Buffer I/O error on dev nbd0, logical block 0, lost sync page write":                     true,
		"I/O error, dev nbd01, sector 2048 op 0x1:(WRITE)":                                        true,
		"EXT4-fs (nbd0): mounted filesystem 5d6d with ordered data mode":                          false,
		"I/O error, dev loop7, sector 2048 op 0x1:(WRITE) flags 0x800 phys_seg 1 prio class 0":    false,
		"block nbd0: reconnected socket":                                                          false,
	} {
		if got := accuses(line, []string{"nbd0", "nbd01"}); got != want {
			t.Errorf("%q: %v", line, got)
		}
	}
}

func TestCompareSums(t *testing.T) {
	sums := func(text string) harness.Sums {
		t.Helper()
		s, err := harness.SumsOf(t.Context(), strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	nodes := []string{"n1", "n2", "n3"}
	same := sums("the same bytes")
	if err := compareSums(nodes, []harness.Sums{same, same, same}); err != nil {
		t.Errorf("equal replicas: %v", err)
	}
	for _, bad := range []string{"The same bytes", "the same bytes and more", ""} {
		if err := compareSums(nodes, []harness.Sums{same, same, sums(bad)}); !errors.Is(err, errUnequal) {
			t.Errorf("the last replica reads %q: %v", bad, err)
		}
	}
}

func TestOptions(t *testing.T) {
	good := options{scale: 1, clients: 4, volumeMiB: 256, lead: time.Second, every: time.Second}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for _, bad := range []options{
		{clients: 4, volumeMiB: 256, lead: time.Second, every: time.Second}, {scale: 1, volumeMiB: 256, lead: time.Second, every: time.Second}, {scale: 1, clients: 4, lead: time.Second, every: time.Second}, {scale: 1, clients: 4, volumeMiB: 256, every: time.Second},
		{scale: 1, clients: 4, volumeMiB: 256, lead: time.Second},
		{scale: 1, clients: 4, volumeMiB: 256, lead: time.Second, every: time.Second, disks: []string{"/dev/one"}},
	} {
		if err := bad.Validate(); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}
