package crash

import (
	"path"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// lyingDevice reports syncs as done that it has not carried out.
type lyingDevice struct {
	vfs.Device
	// late: each is carried out after all, when the next operation comes.
	late bool
	// count counts syncs, every says which are lies.
	count, every int
	owed         bool
}

// Submit implements vfs.Device.
func (d *lyingDevice) Submit(io *vfs.IO) {
	d.pay()
	if d.lies(io) {
		// A read, which the device makes on its executor, ends as the sync would have.
		done, data := io.Done, block.NewBuffer(block.BlockSize)
		read := &vfs.IO{Kind: vfs.Read, Length: block.BlockSize, Data: data.Data}
		read.Done = func(*vfs.IO) { done(io) }
		d.Device.Submit(read)
		return
	}
	d.Device.Submit(io)
}

// Do implements vfs.Doer.
func (d *lyingDevice) Do(io *vfs.IO) error {
	d.pay()
	if d.lies(io) {
		return nil
	}
	return vfs.Do(d.Device, io)
}

func (d *lyingDevice) lies(io *vfs.IO) bool {
	if io.Kind != vfs.Sync {
		return false
	}
	d.count++
	lie := d.count%d.every == 0
	d.owed = d.owed || lie && d.late
	return lie
}

func (d *lyingDevice) pay() {
	if d.owed {
		d.owed = false
		_ = vfs.Do(d.Device, &vfs.IO{Kind: vfs.Sync}) // in memory it cannot fail
	}
}

// stickyDir does not remove files of that prefix.
type stickyDir struct {
	vfs.Dir
	prefix string
}

// Remove implements vfs.Dir.
func (d *stickyDir) Remove(name string) error {
	if strings.HasPrefix(path.Base(name), d.prefix) {
		return nil
	}
	return d.Dir.Remove(name)
}

// TestPlantedFaults shows that lies of what the store stands on are noticed. The bugs
// of the store itself are planted by test/canaries.
func TestPlantedFaults(t *testing.T) {
	device := func(every int, late bool) Faults {
		return Faults{Device: func(d vfs.Device) vfs.Device { return &lyingDevice{Device: d, every: every, late: late} }}
	}
	unsynced := func(of func(name string) bool) Faults {
		return Faults{Sync: func(name string) bool { return !of(name) }}
	}
	for name, faults := range map[string]func() Faults{
		"data file not synced":              func() Faults { return device(1, false) },
		"every third sync of it left out":   func() Faults { return device(3, false) },
		"data file synced after the commit": func() Faults { return device(1, true) },
		"database's log not synced": func() Faults {
			return unsynced(func(name string) bool { return strings.HasSuffix(name, ".log") })
		},
		"tables not synced": func() Faults {
			return unsynced(func(name string) bool { return strings.HasSuffix(name, ".sst") })
		},
		"manifest not synced": func() Faults {
			return unsynced(func(name string) bool { return strings.HasPrefix(path.Base(name), "MANIFEST") })
		},
		"database's directory not synced": func() Faults {
			return unsynced(func(name string) bool { return path.Base(name) == "meta" })
		},
		"seal not synced": func() Faults {
			return unsynced(func(name string) bool { return path.Base(name) == "seal.new" })
		},
		"journals not removed": func() Faults {
			return Faults{Dir: func(d vfs.Dir) vfs.Dir { return &stickyDir{Dir: d, prefix: "journal-"} }}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := Run(Bounds{Few: 6, Samples: 20}, faults)
			if err != nil {
				t.Fatalf("noticed with the power on: %v", err)
			}
			if r.Failure == nil {
				t.Fatalf("%d crash states did not show it", r.States)
			}
			t.Logf("after %d crash states: %v", r.States, r.Failure)
		})
	}
}
