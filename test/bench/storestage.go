package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
	"github.com/holdfast-io/holdfast/replica/store"
	"github.com/holdfast-io/holdfast/test/harness"
)

// Contenders of the store's benchmark.
const (
	fioFile    = "fio"
	deviceFile = "device"
	ofStore    = "store"
)

// storeTitles are they in the order of the report.
var storeTitles = [...]titled{
	{fioFile, "file, fio (io_uring)"},
	{deviceFile, "file, our I/O layer"},
	{ofStore, "store"},
}

// storeWorkloads are what the store promises a ratio for.
func storeWorkloads() []workload {
	const page = 4 << 10
	var all []workload
	for _, depth := range []int{1, 16, 64} {
		all = append(all, workload{
			Name: fmt.Sprintf("overwrite-%d", depth), Title: fmt.Sprintf("4 KiB random overwrite, depth %d", depth),
			Pattern: "randwrite", BlockBytes: page, Depth: depth, Target: 0.9,
		})
	}
	all = append(all, flushWorkload(1, 0.8), flushWorkload(16, 0.9), flushWorkload(64, 0.9),
		workload{
			Name: "first-16", Title: "4 KiB first write to a thin volume, depth 16",
			Pattern: "randwrite", BlockBytes: page, Depth: 16, First: true, Target: 0.6,
		},
		workload{Name: "seqread", Title: "1 MiB sequential read, depth 4", Pattern: "read", BlockBytes: 1 << 20, Depth: 4, Target: 0.95},
		workload{Name: "seqwrite", Title: "1 MiB sequential write, depth 4", Pattern: "write", BlockBytes: 1 << 20, Depth: 4, Target: 0.95},
	)
	for _, depth := range []int{1, 16, 64} {
		all = append(all, workload{
			Name: fmt.Sprintf("randread-%d", depth), Title: fmt.Sprintf("4 KiB random read, depth %d", depth),
			Pattern: "randread", BlockBytes: page, Depth: depth, Target: 0.95,
		})
	}
	return append(all, workload{
		Name: "coldmap-16", Title: "4 KiB random read, depth 16, map ten times the cache",
		Pattern: "randread", BlockBytes: page, Depth: 16, ColdMap: true, Target: 0.7,
	})
}

func flushWorkload(writers int, target float64) workload {
	return workload{
		Name: fmt.Sprintf("flush-%d", writers), Title: fmt.Sprintf("4 KiB random write + flush, writers: %d", writers),
		Pattern: "randwrite", BlockBytes: 4 << 10, Depth: writers, Flush: true, Target: target,
	}
}

// storeStage is a store, and its data file, which the others read and write past it: the
// same blocks of the disk. Of two files the one may be half as fast again as the other,
// for it is not known what a disk, or a host, makes of a place.
type storeStage struct {
	options  options
	dir      string
	fio      fio
	executor *vfs.GoExecutor
	// store is open when it is its turn.
	store *store.Store
	// cold: the store was opened with little memory for maps.
	cold bool
	// spoilt: others have written over the volume.
	spoilt bool
	// made counts replicas, for their IDs.
	made byte
}

// storeCopies is how often the size is stored: the volume, another volume that is new
// each time, and twice as much for what the store needs.
const storeCopies = 4

// storeSetting implements setting.
func storeSetting(o options) (stage, error) {
	if err := wantTools(map[string]string{"fio": "fio"}); err != nil {
		return nil, err
	}
	if err := wantFree(o.Dir, storeCopies*o.SizeBytes); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(o.Dir, "hf-bench-")
	if err != nil {
		return nil, err
	}
	return &storeStage{options: o, dir: dir, fio: fio{dir: dir}}, nil
}

func (s *storeStage) storePath() string { return filepath.Join(s.dir, "store") }
func (s *storeStage) dataPath() string  { return filepath.Join(s.storePath(), "data") }

// set implements stage.
func (s *storeStage) set(ctx context.Context, p *progress) error {
	for _, step := range []struct {
		note string
		do   func(context.Context) error
	}{
		{"formatting a store", s.makeStore},
		{"writing a volume", s.makeVolume},
		{"writing another volume, and deleting it", s.wearIn},
	} {
		p.note(step.note)
		if err := errors.Join(ctx.Err(), step.do(ctx)); err != nil {
			return fmt.Errorf("%s: %w", step.note, err)
		}
	}
	return nil
}

// fill writes all there is, once, and flushes it.
func (s *storeStage) fill(put put) error {
	w := workload{Name: "fill", Pattern: "write", BlockBytes: 1 << 20, Depth: 4, First: true}
	if _, err := newGenerator(w, s.options.SizeBytes, 1, put).run(time.Hour); err != nil {
		return err
	}
	w = workload{Name: "flush", Pattern: "write", BlockBytes: 4 << 10, Depth: 1, Flush: true}
	_, err := newGenerator(w, s.options.SizeBytes, 1, put).run(0)
	return err
}

func (s *storeStage) diskOptions() store.DiskOptions {
	o := store.DiskOptions{Engine: s.options.Engine}
	o.Executor, o.Logger = s.executor, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if s.cold {
		o.CacheSize = store.MapBytes(s.options.SizeBytes) / 10
	}
	return o
}

// storeJobs is as many as a daemon has.
const storeJobs = 16

func (s *storeStage) makeStore(context.Context) error {
	s.executor = vfs.NewGoExecutor(storeJobs)
	// As a daemon does for each of its disks.
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1)
	if err := os.Mkdir(s.storePath(), 0o700); err != nil {
		return err
	}
	var id store.Identity
	id.Cluster.ID[0], id.Node.ID[0], id.Disk.ID[0] = 1, 1, 1
	if err := store.FormatDisk(s.storePath(), s.diskOptions(), id); err != nil {
		return err
	}
	return s.open(false)
}

// open opens the store, if it has to with other memory for maps.
func (s *storeStage) open(cold bool) (err error) {
	if s.store != nil && s.cold == cold {
		return nil
	}
	if err := s.leave(); err != nil {
		return err
	}
	s.cold = cold
	s.store, err = store.OpenDisk(s.storePath(), s.diskOptions())
	return err
}

// leave closes the store, so that others can have its file.
func (s *storeStage) leave() error {
	if s.store == nil {
		return nil
	}
	err := errors.Join(s.clearLog(), s.store.Close())
	s.store = nil
	return err
}

// clearLog does what an engine does once all is flushed: the checksums of what was
// overwritten become durable with it.
func (s *storeStage) clearLog() error {
	r, err := s.store.Replica(s.replicaID(1))
	if err != nil {
		return err
	}
	return do(r, &store.Op{Kind: store.Update, Meta: &block.Update{ClearLog: r.Log()}})
}

// replicaID is that of the n-th volume; the first one stays.
func (s *storeStage) replicaID(n byte) (id block.ReplicaID) {
	id.ID[0], id.ID[1] = 2, n
	return id
}

// newReplica adds an empty volume.
func (s *storeStage) newReplica() (*store.Replica, error) {
	s.made++
	spec := store.ReplicaSpec{Replica: s.replicaID(s.made), Size: s.options.SizeBytes}
	spec.Volume.ID[0], spec.Volume.ID[1] = 3, s.made
	if err := s.store.Create(spec); err != nil {
		return nil, err
	}
	return s.store.Replica(spec.Replica)
}

func (s *storeStage) makeVolume(context.Context) error {
	r, err := s.newReplica()
	if err != nil {
		return err
	}
	return s.fill(toReplica(r))
}

// wearIn makes the store's file as big as it will be, and every extent written once,
// as on a disk that has been used: else it is the file system that is measured.
func (s *storeStage) wearIn(ctx context.Context) error {
	r, err := s.newReplica()
	if err != nil {
		return err
	}
	if err := s.fill(toReplica(r)); err != nil {
		return err
	}
	return s.delete(ctx, r)
}

// delete waits until the space is free.
func (s *storeStage) delete(ctx context.Context, r *store.Replica) error {
	before := s.store.Space().Used
	want := before - r.Used()
	if err := s.store.Delete(r.ID()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	return harness.Wait(ctx, "the volume to be gone", func(context.Context) error {
		if used := s.store.Space().Used; used > want {
			return fmt.Errorf("%d MiB are used", used>>20)
		}
		return nil
	})
}

// all implements stage.
func (s *storeStage) all() []contender {
	loads := []func(context.Context, workload, int) (load, error){
		s.past(s.fio.loads(uringTarget(s.dataPath(), store.FirstByte), s.options)), s.past(s.loadDevice), s.loadStore,
	}
	var list []contender
	for i, title := range storeTitles {
		list = append(list, contender{Name: title.name, Title: title.title, load: loads[i]})
	}
	return list
}

// past puts a load on the file of the closed store.
func (s *storeStage) past(put func(context.Context, workload, int) (load, error)) func(context.Context, workload, int) (load, error) {
	return func(ctx context.Context, w workload, round int) (load, error) {
		if err := s.leave(); err != nil {
			return load{}, err
		}
		s.spoilt = s.spoilt || w.writes()
		return put(ctx, w, round)
	}
}

func (s *storeStage) loadDevice(_ context.Context, w workload, round int) (load, error) {
	w.First = false // the blocks are there
	d, err := vfs.OpenDevice(s.dataPath(), vfs.OSDeviceOptions{Engine: s.options.Engine})
	if err != nil {
		return load{}, err
	}
	l, err := newGenerator(w, s.options.SizeBytes, round, toDevice(d, store.FirstByte)).run(s.options.Runtime)
	return l, errors.Join(err, d.Close())
}

func (s *storeStage) loadStore(ctx context.Context, w workload, round int) (load, error) {
	if err := s.open(w.ColdMap); err != nil {
		return load{}, err
	}
	if w.First {
		r, err := s.newReplica()
		if err != nil {
			return load{}, err
		}
		l, err := newGenerator(w, s.options.SizeBytes, round, toReplica(r)).run(s.options.Runtime)
		if err != nil {
			return load{}, err
		}
		return l, s.delete(ctx, r)
	}
	r, err := s.store.Replica(s.replicaID(1))
	if err != nil {
		return load{}, err
	}
	if s.spoilt {
		if err := s.fill(toReplica(r)); err != nil {
			return load{}, err
		}
		s.spoilt = false
	}
	if err := s.warm(r, w); err != nil {
		return load{}, err
	}
	return newGenerator(w, s.options.SizeBytes, round, toReplica(r)).run(s.options.Runtime)
}

// warm has the map in memory, as far as there is room, and the regions that will be
// written in the log. It writes no more than that: the disk would still be busy with it
// while the load is measured.
func (s *storeStage) warm(r *store.Replica, w workload) error {
	touch := workload{Name: "warm", Pattern: "read", BlockBytes: 1 << 20, Depth: 4, First: true}
	if _, err := newGenerator(touch, s.options.SizeBytes, 1, toReplica(r)).run(warmLimit); err != nil || !w.writes() {
		return err
	}
	first := block.NewBuffer(block.BlockSize)
	defer first.Release()
	for at := int64(0); at < s.options.SizeBytes; at += block.RegionSize {
		if err := do(r, &store.Op{Kind: store.Write, Offset: at, Length: block.BlockSize, Buf: first}); err != nil {
			return err
		}
	}
	return nil
}

// do carries out one operation.
func do(r *store.Replica, op *store.Op) error {
	done := make(chan error, 1)
	op.Done = func(op *store.Op) { done <- op.Err }
	r.Submit(op)
	return <-done
}

// warmLimit is enough for a volume of the default size.
const warmLimit = 10 * time.Second

// strike implements stage.
func (s *storeStage) strike(context.Context) error {
	var err error
	if s.store != nil {
		err = s.store.Close()
	}
	if s.executor != nil {
		s.executor.Close()
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// wantFree fails unless that many bytes are free in dir.
func wantFree(dir string, bytes int64) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("-dir %s: %w", dir, err)
	}
	if free := int64(fs.Bavail) * fs.Bsize; free < bytes {
		return fmt.Errorf("-dir %s: %d MiB are free, %d are needed: free some, or give another -dir or a smaller -size",
			dir, free>>20, bytes>>20)
	}
	return nil
}
