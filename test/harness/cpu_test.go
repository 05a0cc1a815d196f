package harness

import (
	"errors"
	"os"
	"testing"
	"time"
)

func TestProcessCPU(t *testing.T) {
	const line = "4711 (a (b) c) S 1 4711 4711 0 -1 4194560 100 0 0 0 250 125 9 9 20 0 12 0 100 1 1"
	for want, fields := range map[time.Duration][]int{3750 * time.Millisecond: ownTime, 3930 * time.Millisecond: timeWithChildren} {
		if got, err := parseCPU([]byte(line), fields); err != nil || got != want {
			t.Errorf("fields %v: %v (%v), want %v of 250 + 125 + 9 + 9 ticks", fields, got, err, want)
		}
	}
	for _, bad := range []string{"", "4711 (x", "4711 (x) S 1 2", "4711 (x) S 1 2 3 4 5 6 7 8 9 10 a b"} {
		if _, err := parseCPU([]byte(bad), ownTime); err == nil {
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

// TestFamilyCPU: what a child has used counts after it has ended, too.
func TestFamilyCPU(t *testing.T) {
	p := newProcess(t)
	started(t, p, `sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; echo ready; sleep 60`)
	pid := p.life.cmd.Process.Pid
	family, err := FamilyCPU(pid)
	own, ownErr := CPU([]int{pid})
	if err := errors.Join(err, ownErr); err != nil || family < own+2*Tick {
		t.Errorf("%v of the family, %v of the process itself (%v)", family, own, err)
	}
}
