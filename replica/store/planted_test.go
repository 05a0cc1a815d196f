package store

import (
	"strings"
	"testing"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// lyingDevice reports operations for which lie says so as done without doing
// them.
type lyingDevice struct {
	vfs.Device
	executor func() vfs.Executor
	lie      func(io *vfs.IO) bool
}

func (d *lyingDevice) Submit(io *vfs.IO) {
	if d.lie(io) {
		d.executor().Go(func() { io.Done(io) })
		return
	}
	d.Device.Submit(io)
}

func (d *lyingDevice) Do(io *vfs.IO) error {
	if d.lie(io) {
		return nil
	}
	return vfs.Do(d.Device, io)
}

// everySecondSync leaves out every second sync.
func everySecondSync() func(io *vfs.IO) bool {
	n := 0
	return func(io *vfs.IO) bool {
		if io.Kind == vfs.Sync {
			n++
		}
		return io.Kind == vfs.Sync && n%2 == 0
	}
}

// lyingDir does not do what its lies name to files whose base name begins with
// prefix.
type lyingDir struct {
	vfs.Dir
	prefix  string
	noSync  bool
	noWrite bool
}

func (d *lyingDir) Create(name string, c pebblevfs.DiskWriteCategory) (pebblevfs.File, error) {
	f, err := d.Dir.Create(name, c)
	if err != nil || !strings.Contains(name, d.prefix) {
		return f, err
	}
	return &lyingFile{File: f, dir: d}, nil
}

func (d *lyingDir) ReuseForWrite(from, to string, c pebblevfs.DiskWriteCategory) (pebblevfs.File, error) {
	f, err := d.Dir.ReuseForWrite(from, to, c)
	if err != nil || !strings.Contains(to, d.prefix) {
		return f, err
	}
	return &lyingFile{File: f, dir: d}, nil
}

type lyingFile struct {
	pebblevfs.File
	dir *lyingDir
}

func (f *lyingFile) Write(b []byte) (int, error) {
	if f.dir.noWrite {
		return len(b), nil
	}
	return f.File.Write(b)
}

func (f *lyingFile) Sync() error {
	if f.dir.noSync {
		return nil
	}
	return f.File.Sync()
}

func (f *lyingFile) SyncData() error { return f.Sync() }

func (f *lyingFile) SyncTo(int64) (bool, error) { return true, f.Sync() }

// TestPlantedBugs shows that the random crash test finds what it is for.
func TestPlantedBugs(t *testing.T) {
	device := func(lie func() func(io *vfs.IO) bool) func(c **chaos) bugs {
		return func(c **chaos) bugs {
			return bugs{device: func(d vfs.Device) vfs.Device {
				return &lyingDevice{Device: d, executor: func() vfs.Executor { return (*c).steps }, lie: lie()}
			}}
		}
	}
	dir := func(lies lyingDir) func(**chaos) bugs {
		return func(**chaos) bugs {
			return bugs{dir: func(d vfs.Dir) vfs.Dir {
				broken := lies
				broken.Dir = d
				return &broken
			}}
		}
	}
	for name, plant := range map[string]func(c **chaos) bugs{
		"data file never synced": device(func() func(io *vfs.IO) bool {
			return func(io *vfs.IO) bool { return io.Kind == vfs.Sync }
		}),
		"every second sync left out": device(everySecondSync),
		"a write in a hundred lost": device(func() func(io *vfs.IO) bool {
			n := 0
			return func(io *vfs.IO) bool {
				n++
				return io.Kind == vfs.Write && n%100 == 0
			}
		}),
		"metadata not synced": dir(lyingDir{prefix: ".log", noSync: true}),
		"journal not written": dir(lyingDir{prefix: journalPrefix, noWrite: true}),
	} {
		t.Run(name, func(t *testing.T) {
			const seeds = 10
			for seed := uint64(1); seed <= seeds; seed++ {
				var c *chaos
				planted := plant(&c)
				c = newChaos(t, seed, bugs{})
				c.bugs = planted
				c.reopen()
				err := c.failure
				if err == nil {
					err = c.run(10)
				}
				if err != nil {
					t.Logf("seed %d: %v", seed, err)
					return
				}
			}
			t.Fatalf("%d seeds did not find it", seeds)
		})
	}
}

// TestCheckFinds plants damage in maps and allocation.
func TestCheckFinds(t *testing.T) {
	for name, damage := range map[string]func(s *Store) error{
		"lost extent": func(s *Store) error {
			s.space.use(s.space.end - 1)
			return nil
		},
		"extent given away": func(s *Store) error {
			s.space.unuse(s.replicas[0].pages[0].entries[0].first.extent())
			return nil
		},
		"extent of two": func(s *Store) error {
			e := s.replicas[0].pages[0].entries[0].entryState
			return s.db.Set(mapKey(nil, s.replicas[1].record.handle, 40), appendEntry(nil, &e), nil)
		},
		"lost slot": func(s *Store) error {
			s.space.allocSlots(1)
			return nil
		},
		"slot given away": func(s *Store) error {
			e := s.replicas[0].pages[3/pageExtents].entries[3%pageExtents]
			s.space.unuseArea(area{extent: uint32(e.at(0) / block.BlocksPerExtent), blocks: 1 << (e.at(0) % block.BlocksPerExtent)})
			return nil
		},
		"state of a cut removed": func(s *Store) error {
			return s.db.Delete(undoKey(nil, s.replicas[0].record.handle, 3, 1), nil)
		},
		"state that no cut needs": func(s *Store) error {
			return s.db.Set(undoKey(nil, s.replicas[0].record.handle, 3, 2), []byte{entryMark, 2, 0, 0, 0}, nil)
		},
		"change not noted": func(s *Store) error {
			return s.db.Delete(changeKey(nil, s.replicas[0].record.handle, 2, 3), nil)
		},
		"place owned twice": func(s *Store) error {
			e := s.replicas[0].pages[3/pageExtents].entries[3%pageExtents].entryState
			e.edit(func(p placement) placement { return p.withFlags(p.flags() | placementOwned) })
			return s.db.Set(mapKey(nil, s.replicas[0].record.handle, 3), appendEntry(nil, &e), nil)
		},
		"place of nobody": func(s *Store) error {
			e := s.replicas[0].pages[3/pageExtents].entries[3%pageExtents].entryState
			e.edit(func(p placement) placement { return p.withFlags(p.flags() &^ placementOwned) })
			return s.db.Set(mapKey(nil, s.replicas[0].record.handle, 3), appendEntry(nil, &e), nil)
		},
		"clone of something else": func(s *Store) error {
			e := s.replicas[2].pages[0].entries[0].entryState
			e.edit(func(p placement) placement {
				if p.foreign() {
					return makePlacement(p.mask(), p.flags(), p.base()+block.BlocksPerExtent)
				}
				return p
			})
			return s.db.Set(mapKey(nil, s.replicas[2].record.handle, 0), appendEntry(nil, &e), nil)
		},
		"entry removed": func(s *Store) error {
			return s.db.Delete(mapKey(nil, s.replicas[0].record.handle, 0), nil)
		},
		"entry damaged": func(s *Store) error {
			return s.db.Set(mapKey(nil, s.replicas[0].record.handle, 0), []byte{1, 2, 3}, nil)
		},
		"entry of nobody": func(s *Store) error {
			return s.db.Set(mapKey(nil, 77, 0), []byte{entryMark, 1, 0, 0, 0}, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			for n := byte(1); n <= 2; n++ {
				r := g.create(n, testSize)
				g.write(r, 0, fill(4*block.ExtentSize, n))
				g.cut(r, n)
				g.flush(r)
				g.write(r, 3*block.ExtentSize, fill(block.BlockSize, n+10))
				g.flush(r)
			}
			clone := CloneSpec{Source: replicaID(2), Snapshot: snapshotID(2)}
			clone.ReplicaSpec = ReplicaSpec{Replica: replicaID(3), Volume: block.VolumeID{ID: testID(9)}, Size: testSize}
			if err := g.store.Clone(clone); err != nil {
				t.Fatal(err)
			}
			g.write(g.replica(3), 0, fill(block.BlockSize, 20))
			g.flush(g.replica(3))
			if err := g.store.Check(); err != nil {
				t.Fatal(err)
			}
			if err := damage(g.store); err != nil {
				t.Fatal(err)
			}
			if err := g.store.Check(); err == nil {
				t.Fatal("not found")
			} else {
				t.Log(err)
			}
		})
	}
}
