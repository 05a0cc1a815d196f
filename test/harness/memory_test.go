package harness

import (
	"os"
	"testing"
)

func TestMemory(t *testing.T) {
	const text = "00400000-7ffc ---p 00000000 00:00 0  [rollup]\nRss:    2048 kB\nPss:     512 kB\nPss_Anon:   100 kB\n"
	if m, err := parseMemory(text); err != nil || m != (Memory{Resident: 2 << 20, Proportional: 512 << 10}) {
		t.Errorf("%+v (%v)", m, err)
	}
	for _, bad := range []string{"", "Rss: 1 kB\n", "Rss: x kB\nPss: 1 kB\n", "Rss: 1 MB\nPss: 1 kB\n"} {
		if m, err := parseMemory(bad); err == nil {
			t.Errorf("%q is taken for %+v", bad, m)
		}
	}
	if m, err := MemoryOf([]int{os.Getpid()}); err != nil || m.Resident <= 0 || m.Proportional > m.Resident {
		t.Errorf("of this process: %+v (%v)", m, err)
	}
}
