package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

const (
	sealName = "seal"
	// unfinishedSeal is the seal until it is written and synced.
	unfinishedSeal = "seal.new"
	sealMagic      = "HFSEALED"
)

// seal proves of a store that was closed in order that its metadata is what it was
// then, where nothing else can tell damage from a write that was cut off.
type seal struct {
	flushes []sealedFlush
	files   []sealedFile
}

// sealedFlush is the newest flush record of a slot.
type sealedFlush struct {
	slot    uint32
	counter uint64
}

// sealedFile is a file of the database, with the checksum of each block of it.
type sealedFile struct {
	name   string
	length int64
	sums   []uint32
}

func (q *seal) encode() []byte {
	le := binary.LittleEndian
	b := le.AppendUint32([]byte(sealMagic), Version)
	b = le.AppendUint32(b, uint32(len(q.flushes)))
	for _, f := range q.flushes {
		b = le.AppendUint32(b, f.slot)
		b = le.AppendUint64(b, f.counter)
	}
	b = le.AppendUint32(b, uint32(len(q.files)))
	for _, f := range q.files {
		b = le.AppendUint16(b, uint16(len(f.name)))
		b = append(b, f.name...)
		b = le.AppendUint64(b, uint64(f.length))
		for _, sum := range f.sums {
			b = le.AppendUint32(b, sum)
		}
	}
	return le.AppendUint32(b, block.Checksum(b))
}

func decodeSeal(b []byte) (*seal, error) {
	d := decoder{rest: b[:max(0, len(b)-4)]}
	if string(d.take(len(sealMagic))) != sealMagic || binary.LittleEndian.Uint32(b[len(b)-4:]) != block.Checksum(b[:len(b)-4]) {
		return nil, fmt.Errorf("decode seal at byte 0: checksum: %w", block.ErrCorrupt)
	}
	if version := d.u32(); version != Version {
		return nil, versionError(version)
	}
	q := &seal{}
	for n := d.u32(); n > 0 && !d.short; n-- {
		q.flushes = append(q.flushes, sealedFlush{slot: d.u32(), counter: d.u64()})
	}
	for n := d.u32(); n > 0 && !d.short; n-- {
		f := sealedFile{name: string(d.take(int(d.u16()))), length: int64(d.u64())}
		if f.length < 0 || f.length/block.BlockSize > int64(len(d.rest)) {
			d.short = true
		}
		for at := int64(0); at < f.length && !d.short; at += block.BlockSize {
			f.sums = append(f.sums, d.u32())
		}
		q.files = append(q.files, f)
	}
	return q, d.end("seal")
}

// sealFile reads a file as a seal has it.
func sealFile(f pebblevfs.File, name string) (sealedFile, error) {
	q := sealedFile{name: name}
	b := make([]byte, block.BlockSize)
	for {
		n, err := io.ReadFull(f, b)
		if n > 0 {
			q.length += int64(n)
			q.sums = append(q.sums, block.Checksum(b[:n]))
		}
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return q, nil
		case err != nil:
			return q, fmt.Errorf("read %s: %w", name, err)
		}
	}
}

// differs is the byte from which on a file is not as it was, -1 if it is.
func (q *sealedFile) differs(now *sealedFile) int64 {
	for i, sum := range q.sums {
		if i >= len(now.sums) || now.sums[i] != sum {
			return min(int64(i)*block.BlockSize, now.length)
		}
	}
	if now.length != q.length {
		return q.length
	}
	return -1
}

// sealedNames lists the files of the database that a seal has.
func sealedNames(dir vfs.Dir, meta string) ([]string, error) {
	names, err := dir.List(meta)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", meta, err)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return isTable(name) || strings.HasPrefix(name, logSpare) })
	slices.Sort(names)
	return names, nil
}

// seal seals a store that has ended in order. The database is closed.
func (s *Store) seal() error {
	dir, path := s.options.Dir, s.options.Path
	if err := s.removeJournals(); err != nil {
		return err
	}
	q, err := s.newSeal()
	if err != nil {
		return err
	}
	unfinished := dir.PathJoin(path, unfinishedSeal)
	if err := writeSynced(dir, unfinished, q.encode()); err != nil {
		_ = dir.Remove(unfinished) // it is in the way of nobody
		return err
	}
	if err := dir.Rename(unfinished, dir.PathJoin(path, sealName)); err != nil {
		return fmt.Errorf("rename %s: %w", unfinished, err)
	}
	return syncDir(dir, path)
}

// newSeal reads what a seal has. All of it is durable then, names too.
func (s *Store) newSeal() (*seal, error) {
	dir := s.options.Dir
	q := &seal{}
	for _, r := range s.replicas {
		if counter := r.durableFlush.counter; counter > 0 {
			q.flushes = append(q.flushes, sealedFlush{slot: r.record.slot, counter: counter})
		}
	}
	names, err := sealedNames(dir, s.metaPath())
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		f, err := syncedFile(dir, dir.PathJoin(s.metaPath(), name), name)
		if err != nil {
			return nil, err
		}
		q.files = append(q.files, f)
	}
	return q, syncDir(dir, s.metaPath())
}

// syncedFile syncs a file, so that no loss of power can make it differ, and reads it.
func syncedFile(dir vfs.Dir, path, name string) (sealedFile, error) {
	f, err := dir.Open(path)
	if err != nil {
		return sealedFile{}, fmt.Errorf("open %s: %w", path, err)
	}
	err = f.Sync()
	q, readErr := sealFile(f, name)
	return q, errors.Join(err, readErr, f.Close())
}

func writeSynced(dir vfs.Dir, path string, content []byte) error {
	f, err := dir.Create(path, pebblevfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// breakSeal verifies the seal, if there is one, and removes it, durably: it must be
// gone before anything changes. Without one, somebody may have removed it who was
// killed before it was durable.
func (s *Store) breakSeal() error {
	dir, path := s.options.Dir, s.options.Path
	faults, err := checkSeal(dir, path, s.options.Device)
	if err != nil {
		return err
	}
	if len(faults) > 0 {
		f := faults[0]
		return fmt.Errorf("%s at byte %d: %s; `holdfast disk check` tells what else, then replace the disk: %w", f.File, f.Offset, f.What, block.ErrCorrupt)
	}
	if err := dir.Remove(dir.PathJoin(path, sealName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", sealName, err)
	}
	return syncDir(dir, path)
}

// checkSeal compares a disk with its seal. There are no faults if it has none, or one
// that does not count any more.
func checkSeal(dir vfs.Dir, path string, device vfs.Device) (faults []Fault, err error) {
	q, err := readSeal(dir, path)
	if errors.Is(err, block.ErrCorrupt) {
		return []Fault{{File: dir.PathJoin(path, sealName), What: err.Error()}}, nil
	}
	if err != nil || q == nil {
		return nil, err
	}
	if counts, err := q.counts(dir, path); err != nil || !counts {
		return nil, err
	}
	err = q.check(dir, path, device, func(_ SealRecord, fault *Fault) error {
		if fault != nil {
			faults = append(faults, *fault)
		}
		return nil
	})
	return faults, err
}

// check compares each piece with what is on the disk, files of the database first.
func (q *seal) check(dir vfs.Dir, path string, device vfs.Device, f func(SealRecord, *Fault) error) error {
	for i := range q.files {
		file := &q.files[i]
		name := dir.PathJoin(path, metaName, file.name)
		fault, err := file.check(dir, name)
		if err == nil {
			err = f(SealRecord{File: name, Bytes: file.length}, fault)
		}
		if err != nil {
			return err
		}
	}
	data := dir.PathJoin(path, dataName)
	for _, flush := range q.flushes {
		fault, err := flush.check(device, data)
		if err == nil {
			err = f(SealRecord{File: data, Byte: flush.offset(), Bytes: block.BlockSize, Counter: flush.counter}, fault)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readSeal reads the seal of a disk, nil if it has none.
func readSeal(dir vfs.Dir, path string) (*seal, error) {
	name := dir.PathJoin(path, sealName)
	content, err := readFile(dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	q, err := decodeSeal(content)
	if errors.Is(err, block.ErrVersion) {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return q, err
}

// counts reports whether nobody has opened the store since it was sealed who does not
// know seals: he would have left files that the seal does not name.
func (q *seal) counts(dir vfs.Dir, path string) (bool, error) {
	names, err := sealedNames(dir, dir.PathJoin(path, metaName))
	if err != nil {
		return false, err
	}
	journals, err := journalNames(dir, path)
	unknown := func(name string) bool {
		return !slices.ContainsFunc(q.files, func(f sealedFile) bool { return f.name == name })
	}
	return len(journals) == 0 && !slices.ContainsFunc(names, unknown), err
}

// notAsSealed is what is wrong with what differs.
const notAsSealed = "it is not as it was when the store was closed: the disk has lost or changed it"

// check compares the file at path with what it was.
func (q *sealedFile) check(dir vfs.Dir, path string) (*Fault, error) {
	f, err := dir.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &Fault{File: path, What: "it was there when the store was closed, and is missing"}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	now, err := sealFile(f, q.name)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if at := q.differs(&now); at >= 0 {
		return &Fault{File: path, Offset: at, What: notAsSealed}, nil
	}
	return nil, nil
}

func (q *sealedFlush) offset() int64 { return flushOffset(q.slot, q.counter) }

// check compares the flush record in the data file with what it was.
func (q *sealedFlush) check(device vfs.Device, data string) (*Fault, error) {
	b := block.NewBuffer(block.BlockSize)
	defer b.Release()
	io := &vfs.IO{Kind: vfs.Read, Offset: q.offset(), Length: block.BlockSize, Data: b.Data}
	if err := vfs.Do(device, io); err != nil {
		return nil, err
	}
	record, err := decodeFlush(b.Data)
	if errors.Is(err, block.ErrVersion) {
		return nil, fmt.Errorf("data file at byte %d: %w", io.Offset, err)
	}
	if err != nil || record.counter != q.counter {
		return &Fault{File: data, Offset: io.Offset, What: "flush record: " + notAsSealed}, nil
	}
	return nil, nil
}
