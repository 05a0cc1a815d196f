package harness

import (
	"os"
	"testing"
	"time"
)

func TestProcessCPU(t *testing.T) {
	const line = "4711 (a (b) c) S 1 4711 4711 0 -1 4194560 100 0 0 0 250 125 9 9 20 0 12 0 100 1 1"
	got, err := parseCPU([]byte(line))
	if err != nil || got != 3750*time.Millisecond {
		t.Errorf("%v (%v), want 250 + 125 ticks", got, err)
	}
	for _, bad := range []string{"", "4711 (x", "4711 (x) S 1 2", "4711 (x) S 1 2 3 4 5 6 7 8 9 10 a b"} {
		if _, err := parseCPU([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if used, err := CPU([]int{os.Getpid()}); err != nil || used < 0 {
		t.Errorf("of this process: %v (%v)", used, err)
	}
	if _, err := CPU([]int{0}); err == nil {
		t.Error("a process that is not there has used something")
	}
}
