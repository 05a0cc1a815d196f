package vfs

import (
	"testing"
)

func TestWatch(t *testing.T) {
	var w Watch
	if got := w.Tick(); got != 0 || !w.Idle() {
		t.Fatalf("age %d of nothing", got)
	}
	first := w.Begin()
	for want := 1; want <= 3; want++ {
		if got := w.Tick(); got != want {
			t.Fatalf("age %d, want %d", got, want)
		}
	}
	second := w.Begin()
	w.End(first)
	if got := w.Tick(); got != 1 || w.Idle() {
		t.Fatalf("age %d of the second, want 1", got)
	}
	for range 3 * watchSlots {
		w.End(w.Begin())
		w.Tick()
	}
	if got := w.Tick(); got < 1 {
		t.Fatal("what never ends was forgotten")
	}
	w.End(second)
	if got := w.Tick(); got != 0 || !w.Idle() {
		t.Fatalf("age %d of nothing", got)
	}
}

// TestWatchedDevice: a device works as it did, Done is the submitter's, and an operation
// counts from Submit to Done.
func TestWatchedDevice(t *testing.T) {
	steps := &StepExecutor{}
	var w Watch
	d := w.Device(NewMemDevice(steps, 64<<20))
	if err := d.Grow(1 << 20); err != nil {
		t.Fatal(err)
	}
	calls := 0
	io := write(0, blocks(7, 1))
	io.Done = func(got *IO) {
		calls++
		if got != io || got.Err != nil || !w.Idle() {
			t.Errorf("done with %+v", got)
		}
	}
	for again := range 2 {
		d.Submit(io)
		if w.Idle() {
			t.Fatal("nothing runs after Submit")
		}
		for steps.Pending() > 0 {
			steps.Step(0)
		}
		if calls != again+1 {
			t.Fatalf("%d calls of Done", calls)
		}
	}
	if got := readBlock(t, d, 0); got[0] != 7 || !w.Idle() {
		t.Fatal("the block is not there")
	}
	allocated := testing.AllocsPerRun(100, func() {
		io := w.Begin()
		w.End(io)
	})
	if allocated > 0 {
		t.Fatalf("%v allocations", allocated)
	}
}
