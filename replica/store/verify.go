package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// VerifyOptions say how VerifyDisk works.
type VerifyOptions struct {
	// Workers is how many blocks are read at once; 0 means 16.
	Workers int
	// Buffered goes through the page cache, for file systems without O_DIRECT.
	Buffered bool
	// Progress, if set, is called with the bytes that were verified, and all of them.
	// It is called from one goroutine at a time.
	Progress func(done, total int64)
}

// Fault is something wrong with a disk.
type Fault struct {
	// File is the file that it is in, or the directory of the metadata; Offset the
	// byte, -1 where the fault is no single place.
	File   string
	Offset int64
	What   string
}

// faultsMax bounds the faults that are listed; all are counted.
const faultsMax = 1000

// Verification is what VerifyDisk found.
type Verification struct {
	Identity Identity
	Replicas int
	// Blocks are those whose checksums were compared.
	Blocks int64
	// Unsettled are blocks that differ from their checksums in regions that were being
	// written when the disk was left: that is not damage, a resync settles it.
	Unsettled int64
	// Faults are in the order of their files and offsets; Count is how many there are.
	Faults []Fault
	Count  int
}

// verifier looks at a disk that nothing else has open.
type verifier struct {
	path    string
	options VerifyOptions
	device  *vfs.OSDevice
	done    atomic.Int64
	total   int64

	mu     sync.Mutex
	result Verification
}

func (v *verifier) found(file string, offset int64, format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.result.Count++
	if len(v.result.Faults) < faultsMax {
		v.result.Faults = append(v.result.Faults, Fault{File: file, Offset: offset, What: fmt.Sprintf(format, args...)})
	}
}

func (v *verifier) dataPath() string { return filepath.Join(v.path, dataName) }
func (v *verifier) metaPath() string { return filepath.Join(v.path, metaName) }

// VerifyDisk verifies the disk in the directory at path and changes nothing on it:
// seal, superblock, flush slots, journal, metadata, the allocation against the maps, and each
// block against its checksum. What is wrong is in the result; the error says why the
// disk could not be looked at: block.ErrNotFound, block.ErrInUse, block.ErrVersion, or
// the end of ctx.
func VerifyDisk(ctx context.Context, path string, options VerifyOptions) (*Verification, error) {
	options.Workers = cmp.Or(options.Workers, 16)
	v := &verifier{path: path, options: options}
	device, err := vfs.OpenOSDevice(v.dataPath(), vfs.OSDeviceOptions{Workers: options.Workers, ReadOnly: true, Buffered: options.Buffered})
	if err != nil {
		return nil, fmt.Errorf("check disk in %s: %w", path, err)
	}
	v.device = device
	err = v.verify(ctx)
	if err := errors.Join(err, device.Close()); err != nil {
		return nil, fmt.Errorf("check disk in %s: %w", path, err)
	}
	slices.SortStableFunc(v.result.Faults, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Offset, b.Offset))
	})
	v.oncePerPlace()
	return &v.result, nil
}

// oncePerPlace leaves one fault of those that the seal and the bytes themselves show.
func (v *verifier) oncePerPlace() {
	all := len(v.result.Faults)
	v.result.Faults = slices.CompactFunc(v.result.Faults, func(a, b Fault) bool { return a.Offset >= 0 && a.File == b.File && a.Offset == b.Offset })
	v.result.Count -= all - len(v.result.Faults)
}

func (v *verifier) verify(ctx context.Context) error {
	id, err := ReadIdentity(v.device)
	if errors.Is(err, block.ErrVersion) {
		return err
	}
	if err != nil {
		v.found(v.dataPath(), 0, "%v", err)
		return nil
	}
	v.result.Identity = id
	executor := vfs.NewGoExecutor(4)
	defer executor.Close()
	s, faults, err := openShadow(v.path, v.device, executor)
	for _, f := range faults {
		v.found(f.File, f.Offset, "%s", f.What)
	}
	if errors.Is(err, block.ErrVersion) {
		return err
	}
	if err != nil {
		v.found(v.metaPath(), -1, "%s", firstLine(err))
		return nil
	}
	s.settle()
	err = v.verifyStore(ctx, s)
	return errors.Join(err, s.Close())
}

// openShadow opens a disk as ever and changes it in memory only. It also returns what
// is not as the seal says, and opens the disk all the same.
func openShadow(path string, device vfs.Device, executor vfs.Executor) (s *Store, faults []Fault, err error) {
	incarnation, err := vfs.SystemIncarnation(filepath.Join(path, dataName))
	if err != nil {
		return nil, nil, err
	}
	dir := newShadowDir(pebblevfs.Default)
	faults, err = checkSeal(dir, path, device)
	if err == nil && len(faults) > 0 {
		err = dir.Remove(filepath.Join(path, sealName))
	}
	if err != nil {
		return nil, faults, err
	}
	s, err = Open(Options{
		Dir: dir, Path: path, Device: newShadowDevice(device, executor), Executor: executor,
		Incarnation: incarnation, Logger: slog.New(slog.DiscardHandler),
	})
	if err == nil {
		s.shadow = true
	}
	return s, faults, err
}

// settle waits until what the open has begun, deletions above all, has ended.
func (s *Store) settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.failed == nil && (s.jobs > 0 || s.round != nil || len(s.deletions) > 0 || s.pruning != nil) {
		s.quiet.Wait()
	}
}

func (v *verifier) verifyStore(ctx context.Context, s *Store) error {
	v.result.Replicas = len(s.replicas)
	if err := s.Check(); err != nil {
		for _, fault := range split(err) {
			v.found(v.metaPath(), -1, "%v", fault)
		}
	}
	// All that the database has, so that damage is found where nothing above looks.
	if err := scan(s.db, nil, nil, func(_, _ []byte) error { return ctx.Err() }); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		v.found(v.metaPath(), -1, "%s", firstLine(err))
	}
	v.verifyFlushSlots(s)
	return v.verifyBlocks(ctx, s)
}

// firstLine leaves out what pebble adds to an error for its own use.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// split is the list that errors.Join made.
func split(err error) []error {
	if list, ok := err.(interface{ Unwrap() []error }); ok {
		return list.Unwrap()
	}
	return []error{err}
}

// verifyFlushSlots reads the slots of the replicas. The two blocks of one take turns, so
// that one of them may be damaged by a loss of power: then the other one counts.
func (v *verifier) verifyFlushSlots(s *Store) {
	b := block.NewBuffer(2 * block.BlockSize)
	defer b.Release()
	for _, r := range s.replicas {
		offset := flushOffset(r.record.slot, 0)
		if err := vfs.Do(v.device, &vfs.IO{Kind: vfs.Read, Offset: offset, Length: 2 * block.BlockSize, Data: b.Data}); err != nil {
			v.found(v.dataPath(), offset, "flush slot of replica %s: %v", r.id, err)
			continue
		}
		var errs [2]error
		for half := range errs {
			data := b.Data[half*block.BlockSize:][:block.BlockSize]
			if !isZero(data) {
				_, errs[half] = decodeFlush(data)
			}
		}
		for half, err := range errs {
			if err == nil {
				continue
			}
			what := fmt.Sprintf("flush slot of replica %s: %v", r.id, err)
			if errs[1-half] == nil {
				what += "; the other block counts"
			}
			v.found(v.dataPath(), offset+int64(half)*block.BlockSize, "%s", what)
		}
	}
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// verifyBlocks compares every block that a map names with its checksum.
func (v *verifier) verifyBlocks(ctx context.Context, s *Store) error {
	if err := s.eachEntry(func(e *mapEntry) error {
		v.total += int64(bits.OnesCount16(e.state.data)) * block.BlockSize
		return ctx.Err()
	}); err != nil {
		return err
	}
	queue := make(chan mapEntry, 4*v.options.Workers)
	group, ctx := errgroup.WithContext(ctx)
	for range v.options.Workers {
		group.Go(func() error {
			buffer := block.NewBuffer(block.ExtentSize)
			defer buffer.Release()
			for e := range queue {
				v.verifyEntry(&e, buffer.Data)
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(queue)
		return s.eachEntry(func(e *mapEntry) error {
			select {
			case queue <- *e:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	return group.Wait()
}

// mapEntry is what the database has of an extent: in the map of a head, or kept for
// cuts.
type mapEntry struct {
	replica *Replica
	extent  uint32
	// keptFor is the layer of the newest cut that a kept state stands for, headLayer
	// for a head.
	keptFor uint32
	state   entryState
}

// eachEntry calls f for every entry of every map in the database.
func (s *Store) eachEntry(f func(e *mapEntry) error) error {
	handles := map[handle]*Replica{}
	for _, r := range s.replicas {
		handles[r.record.handle] = r
	}
	var e mapEntry
	return scanEntries(s.db, func(_ []byte, h handle, extent, keptFor uint32, state *entryState, err error) error {
		e.replica = handles[h]
		if readable := err == nil && e.replica != nil; !readable {
			return nil // Check has found it
		}
		e.extent, e.keptFor, e.state = extent, keptFor, *state
		return f(&e)
	})
}

// scanEntries calls f for each entry of the maps of heads, then for each state that is
// kept, with the error of one that cannot be read.
func scanEntries(db *pebble.DB, f func(key []byte, h handle, extent, keptFor uint32, state *entryState, err error) error) error {
	var e entryState
	err := scan(db, []byte{keyMap}, []byte{keyMap + 1}, func(key, value []byte) error {
		h, extent, err := splitMapKey(key)
		if err == nil {
			err = decodeEntry(value, &e)
		}
		return f(key, h, extent, headLayer, &e, err)
	})
	if err != nil {
		return err
	}
	return scan(db, []byte{keyUndo}, []byte{keyUndo + 1}, func(key, value []byte) error {
		h, extent, layer, err := splitUndoKey(key)
		if err == nil {
			err = decodeEntry(value, &e)
		}
		return f(key, h, extent, layer, &e, err)
	})
}

// verifyEntry reads the blocks of an entry, those that lie together at once.
func (v *verifier) verifyEntry(e *mapEntry, buffer []byte) {
	for b := 0; b < block.BlocksPerExtent; {
		if e.state.data&(1<<b) == 0 {
			b++
			continue
		}
		end := b + 1
		for end < block.BlocksPerExtent && e.state.data&(1<<end) != 0 && e.state.at(end) == e.state.at(b)+int64(end-b) {
			end++
		}
		v.verifyRun(e, b, buffer[:(end-b)*block.BlockSize])
		b = end
	}
}

// verifyRun verifies blocks from first on that lie together. A run that cannot be read
// is read block by block.
func (v *verifier) verifyRun(e *mapEntry, first int, data []byte) {
	offset := e.state.at(first) * block.BlockSize
	err := vfs.Do(v.device, &vfs.IO{Kind: vfs.Read, Offset: offset, Length: int64(len(data)), Data: data})
	if err != nil && len(data) > block.BlockSize {
		for at := 0; at < len(data); at += block.BlockSize {
			v.verifyRun(e, first+at/block.BlockSize, data[at:at+block.BlockSize])
		}
		return
	}
	for at := 0; at < len(data); at += block.BlockSize {
		b := first + at/block.BlockSize
		if err != nil {
			v.found(v.dataPath(), offset, "%s cannot be read: %v", e.name(b), err)
		} else if sum := block.Checksum(data[at : at+block.BlockSize]); sum != e.state.sums[b] {
			v.differs(e, b, offset+int64(at), sum)
		}
	}
	v.count(int64(len(data)))
}

// name tells people which block it is.
func (e *mapEntry) name(b int) string {
	of := ""
	if e.keptFor != headLayer {
		of = fmt.Sprintf(", kept for snapshots (layers %d to %d),", e.state.layer, e.keptFor)
	}
	return fmt.Sprintf("block at byte %d of replica %s, volume %s%s", e.place(b), e.replica.id, e.replica.record.volume, of)
}

// place is the byte of block b in the volume.
func (e *mapEntry) place(b int) int64 {
	return int64(e.extent)*block.ExtentSize + int64(b)*block.BlockSize
}

// unsettled: the checksum may be stale, for the block was being written.
func (e *mapEntry) unsettled(b int) bool {
	return e.keptFor == headLayer && e.state.layer > e.replica.newestValid && e.replica.suspect.Has(block.RegionOf(e.place(b)))
}

func (v *verifier) differs(e *mapEntry, b int, offset int64, sum uint32) {
	if e.unsettled(b) {
		v.mu.Lock()
		v.result.Unsettled++
		v.mu.Unlock()
		return
	}
	v.found(v.dataPath(), offset, "%s has checksum %#08x, its map says %#08x", e.name(b), sum, e.state.sums[b])
}

func (v *verifier) count(bytes int64) {
	done := v.done.Add(bytes)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.result.Blocks += bytes / block.BlockSize
	if v.options.Progress != nil {
		v.options.Progress(done, v.total)
	}
}
