package main

import (
	"errors"
	"testing"
)

// TestCompareShot: a snapshot holds of each client what was acknowledged before it was
// asked for, perhaps what was under way, and nothing that began after it was answered.
func TestCompareShot(t *testing.T) {
	for _, test := range []struct {
		name string
		rows []int
		cut  bool
		want error
	}{
		{"what was acknowledged", []int{1, 2}, false, nil},
		{"what was under way", []int{1, 2, 3, 4}, false, nil},
		{"an acknowledged one is lost", []int{1}, false, errLost},
		{"all are lost", nil, false, errLost},
		{"one is missing in the middle", []int{1, 2, 4}, false, errLost},
		{"one began after the answer", []int{1, 2, 3, 4, 5}, false, errUnknown},
		{"nobody began it", []int{1, 2, 9}, false, errUnknown},
	} {
		r := runAt(100, 10, 20, 40, 60, 80)
		rows := make(map[entry]bool)
		for _, n := range test.rows {
			rows[entry{1, 0, n}] = true
		}
		if err := compareShot([]*benchRun{r}, rows, at(30), at(50)); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, err, test.want)
		}
	}
	// A later run had not begun, and a client that was cut off may have committed.
	before, after := runAt(100, 10, 20), runAt(300, 210)
	before.cut, after.number = true, 2
	for i := range after.commits {
		after.commits[i].run = 2
	}
	rows := map[entry]bool{{1, 0, 1}: true, {1, 0, 2}: true, {1, 0, 3}: true, {1, 1, 1}: true}
	if err := compareShot([]*benchRun{before, after}, rows, at(150), at(160)); err != nil {
		t.Errorf("after a run that was cut: %v", err)
	}
	rows[entry{1, 0, 4}] = true
	if err := compareShot([]*benchRun{before, after}, rows, at(150), at(160)); !errors.Is(err, errUnknown) {
		t.Errorf("two more than were acknowledged: %v", err)
	}
	if err := compareShot([]*benchRun{before}, nil, at(5), at(6)); !errors.Is(err, errNoise) {
		t.Errorf("before anything was acknowledged: %v", err)
	}
}
