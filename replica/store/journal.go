package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfast-io/holdfast/internal/block"
)

const (
	journalMagic        = "HFJOURNL"
	journalHeaderLength = 64
	journalPrefix       = "journal-"
	// journalSpare is the name of a file that becomes a journal when it is needed.
	journalSpare = journalPrefix + "spare"

	recordHeaderLength = 12
	// journalTail is room for the last write of a file, in bytes.
	journalTail = 1 << 20
	// maxRecordLength is the longest payload of a record: the head and every cut.
	maxRecordLength = 8 + 4 + 4 + 2 + (maxCuts+1)*(4+maxEntryLength)
)

// journal makes changes of the map survive the death of the process: records go
// to a file by write(2). It is read back only under the incarnation that wrote
// it. Fields are guarded by the store's mutex, except file, which belongs to
// the one job that runs.
type journal struct {
	// seq numbers the records; applied is the number up to which the database
	// has them, written that up to which the file has.
	seq     uint64
	applied uint64
	written uint64
	// pending are encoded records that wait for the job, with the pieces that
	// wait for them.
	pending []byte
	waiting []*piece
	running bool
	// helped: the device's thread has the job.
	writes aside
	helped bool
	// spare take the place of pending and waiting while the job has those.
	spare        []byte
	spareWaiting []*piece

	file vfs.File
	// next is the spare one, which has its space already.
	next vfs.File
	// size is the length of file, last its newest record.
	size int64
	name string
	last uint64
	// old are full files, with the newest record of each.
	old []journalFile
}

type journalFile struct {
	name string
	last uint64
}

// journalRecord is the state of one extent after a change: its head, and what
// changed of the states that cuts keep.
type journalRecord struct {
	seq    uint64
	handle handle
	extent uint32
	states []keptState
}

// keptState is an entry of a chain; layer 0 is the head, no state that there is
// none any more.
type keptState struct {
	layer uint32
	state *entryState
}

func encodeJournalHeader(disk block.DiskID, inc block.Incarnation) []byte {
	b := binary.LittleEndian.AppendUint32([]byte(journalMagic), Version)
	b = append(b, disk.ID[:]...)
	b = appendIncarnation(b, inc)
	return binary.LittleEndian.AppendUint32(b, block.Checksum(b))
}

// decodeJournalHeader also returns the version of the records that follow.
func decodeJournalHeader(b []byte) (disk block.DiskID, inc block.Incarnation, version uint32, err error) {
	d := decoder{rest: b}
	if string(d.take(len(journalMagic))) != journalMagic {
		return disk, inc, 0, fmt.Errorf("journal header at byte 0: %w", block.ErrCorrupt)
	}
	version = d.u32()
	disk.ID = d.id()
	inc = d.incarnation()
	sum := d.u32()
	if d.short || sum != block.Checksum(b[:journalHeaderLength-4]) {
		return disk, inc, 0, fmt.Errorf("journal header at byte 0: checksum: %w", block.ErrCorrupt)
	}
	if !readable(version) {
		return disk, inc, 0, versionError(version)
	}
	return disk, inc, version, nil
}

// beginJournalRecord and endJournalRecord go around the states of a record.
func beginJournalRecord(b []byte, seq uint64, h handle, extent uint32) []byte {
	b = append(b, make([]byte, recordHeaderLength)...)
	b = binary.LittleEndian.AppendUint64(b, seq)
	b = binary.LittleEndian.AppendUint32(b, uint32(h))
	b = binary.LittleEndian.AppendUint32(b, extent)
	return binary.LittleEndian.AppendUint16(b, 0)
}

func appendRecordState(b []byte, start int, layer uint32, e *entryState) []byte {
	const countAt = recordHeaderLength + 8 + 4 + 4
	count := b[start+countAt:]
	binary.LittleEndian.PutUint16(count, binary.LittleEndian.Uint16(count)+1)
	return appendState(binary.LittleEndian.AppendUint32(b, layer), e)
}

func endJournalRecord(b []byte, start int) []byte {
	head, payload := b[start:start+recordHeaderLength], b[start+recordHeaderLength:]
	binary.LittleEndian.PutUint32(head, uint32(len(payload)))
	binary.LittleEndian.PutUint32(head[4:], block.Checksum(payload))
	binary.LittleEndian.PutUint32(head[8:], block.Checksum(head[:8]))
	return b
}

// decodeJournalRecord reads the first record of b and returns the bytes after
// it. A record that b ends within is io.ErrUnexpectedEOF: the process died while
// it wrote, and nobody was told that the record is there.
func decodeJournalRecord(b []byte, version uint32, r *journalRecord) (rest []byte, err error) {
	if len(b) < recordHeaderLength {
		return nil, io.ErrUnexpectedEOF
	}
	length := binary.LittleEndian.Uint32(b)
	if binary.LittleEndian.Uint32(b[8:]) != block.Checksum(b[:8]) || length > maxRecordLength {
		return nil, fmt.Errorf("journal record header: %w", block.ErrCorrupt)
	}
	if int(length) > len(b)-recordHeaderLength {
		return nil, io.ErrUnexpectedEOF
	}
	payload, rest := b[recordHeaderLength:recordHeaderLength+length], b[recordHeaderLength+length:]
	if binary.LittleEndian.Uint32(b[4:]) != block.Checksum(payload) {
		return nil, fmt.Errorf("journal record: checksum: %w", block.ErrCorrupt)
	}
	d := decoder{rest: payload}
	r.seq = d.u64()
	r.handle = handle(d.u32())
	r.extent = d.u32()
	if err := r.decodeStates(&d, version); err != nil {
		return nil, fmt.Errorf("journal record: %w", err)
	}
	return rest, nil
}

// decodeStates reads what comes after the extent. Version 1 has the head alone.
func (r *journalRecord) decodeStates(d *decoder, version uint32) error {
	r.states = nil
	if version == 1 {
		state := new(entryState)
		if err := d.entry(state); err != nil {
			return err
		}
		if state.data == 0 {
			state = nil
		}
		r.states = append(r.states, keptState{state: state})
		return d.end("record")
	}
	for range d.u16() {
		layer := d.u32()
		state, err := d.state()
		if err != nil {
			return err
		}
		if d.short {
			break
		}
		r.states = append(r.states, keptState{layer: layer, state: state})
	}
	return d.end("record")
}

// journalNames lists the journal files of a directory, oldest first.
func journalNames(fs vfs.FS, dir string) ([]string, error) {
	all, err := fs.List(dir)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	var names []string
	for _, name := range all {
		if strings.HasPrefix(name, journalPrefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// readJournal calls apply for each record of the journal files.
func (s *Store) readJournal(apply func(r *journalRecord) error) error {
	names, err := journalNames(s.options.Dir, s.options.Path)
	if err != nil {
		return err
	}
	for _, name := range names {
		path := s.options.Dir.PathJoin(s.options.Path, name)
		content, err := readFile(s.options.Dir, path)
		if err != nil {
			return err
		}
		if err := s.replayFile(path, content, apply); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) replayFile(path string, content []byte, apply func(r *journalRecord) error) error {
	if len(content) < journalHeaderLength {
		return nil
	}
	disk, inc, version, err := decodeJournalHeader(content[:journalHeaderLength])
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if disk != s.identity.Disk {
		return fmt.Errorf("read %s: it belongs to disk %s: %w", path, disk, block.ErrForeign)
	}
	if inc != s.options.Incarnation {
		return fmt.Errorf("read %s: it was written under another incarnation: %w", path, block.ErrCorrupt)
	}
	var r journalRecord
	for rest := content[journalHeaderLength:]; len(rest) > 0; {
		at := len(content) - len(rest)
		rest, err = decodeJournalRecord(rest, version, &r)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err == nil {
			err = apply(&r)
		}
		if err != nil {
			return fmt.Errorf("read %s at byte %d: %w", path, at, err)
		}
	}
	return nil
}

func readFile(fs vfs.FS, path string) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	defer f.Close()
	content, err := io.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return content, nil
}

// record queues the state of p's extent for the journal, with all that the
// database may lack of what cuts keep. The mutex is held.
func (s *Store) record(p *piece) {
	j, e, r := &s.journal, p.entry(), p.page.replica
	j.seq++
	start := len(j.pending)
	b := beginJournalRecord(j.pending, j.seq, r.record.handle, p.extent())
	b = appendRecordState(b, start, headLayer, r.stored(&e.entryState))
	for u := e.undo; u != nil; u = u.next {
		b = appendRecordState(b, start, u.layer, u.state)
	}
	j.pending = endJournalRecord(b, start)
}

func (s *Store) startJournal() {
	if !s.journal.running && len(s.journal.waiting) > 0 {
		s.journal.running = true
		s.jobs++
		s.startWriting()
	}
}

// startWriting leaves the writing of records to the device's thread, unless it means
// making and removing files, which takes time.
func (s *Store) startWriting() {
	j := &s.journal
	if s.journalStays(j.applied) {
		j.helped = j.writes.start(s, s.journalJob)
		return
	}
	j.helped = false
	s.options.Executor.Go(s.journalJob)
}

// runJournal is the job that writes what is pending.
func (s *Store) runJournal() {
	if !s.enter() {
		return
	}
	j := &s.journal
	buf, waiting, seq, applied := j.pending, j.waiting, j.seq, j.applied
	j.pending, j.waiting = j.spare[:0], j.spareWaiting[:0]
	j.spare, j.spareWaiting = nil, nil
	err, took := s.failed, time.Duration(0)
	s.mu.Unlock()

	if err == nil {
		// After a write that failed, a record may end anywhere: another one behind it
		// would make the journal, and with it the disk, unreadable.
		began := time.Now()
		err = s.writeJournal(buf, seq, applied)
		took = time.Since(began)
	}

	s.mu.Lock()
	defer s.unlock()
	s.jobDone()
	if j.helped {
		j.writes.took(took)
	}
	j.running = false
	if err != nil {
		s.fail(err)
	} else {
		j.written = seq
		s.letGo()
	}
	for i, p := range waiting {
		waiting[i] = nil
		s.pieceDone(p, errors.Join(p.err, s.failed))
	}
	j.spare, j.spareWaiting = buf[:0], waiting[:0]
	s.startJournal()
}

// writeJournal appends buf, whose last record is seq, to the current file. Only the
// journal's job calls it.
func (s *Store) writeJournal(buf []byte, seq, applied uint64) error {
	j := &s.journal
	if !s.journalStays(applied) {
		if err := s.turnJournals(seq, applied); err != nil {
			return err
		}
	}
	if _, err := j.file.Write(buf); err != nil {
		return fmt.Errorf("write %s: %w", j.name, err)
	}
	j.size += int64(len(buf))
	j.last = seq
	return nil
}

// journalStays: the next records go to the current file, and no older one can go.
func (s *Store) journalStays(applied uint64) bool {
	j := &s.journal
	return j.file != nil && j.size < s.options.JournalSize && (len(j.old) == 0 || j.old[0].last > applied)
}

// turnJournals ends a full file, removes those of which nothing is needed any more, and
// sees to it that there is a current and a spare one.
func (s *Store) turnJournals(seq, applied uint64) error {
	j, fs := &s.journal, s.options.Dir
	if j.file != nil && j.size >= s.options.JournalSize {
		if err := j.file.Close(); err != nil {
			return fmt.Errorf("close %s: %w", j.name, err)
		}
		j.old = append(j.old, journalFile{name: j.name, last: j.last})
		j.file = nil
	}
	for len(j.old) > 0 && j.old[0].last <= applied {
		if err := fs.Remove(fs.PathJoin(s.options.Path, j.old[0].name)); err != nil {
			return fmt.Errorf("remove %s: %w", j.old[0].name, err)
		}
		j.old = j.old[1:]
	}
	if j.file == nil {
		if err := s.beginJournal(seq); err != nil {
			return err
		}
	}
	if j.next == nil {
		// Without room for another one the current one still has its own.
		if err := s.allocateJournal(); err != nil && !isFull(err) {
			return err
		}
	}
	return nil
}

// beginJournal makes the spare file the journal. It is named after a record in its first
// write, so that the names of files rise.
func (s *Store) beginJournal(seq uint64) error {
	j, fs := &s.journal, s.options.Dir
	if j.next == nil {
		if err := s.allocateJournal(); err != nil {
			return err
		}
	}
	j.name = fmt.Sprintf("%s%016x", journalPrefix, seq)
	if err := fs.Rename(fs.PathJoin(s.options.Path, journalSpare), fs.PathJoin(s.options.Path, j.name)); err != nil {
		return fmt.Errorf("rename %s to %s: %w", journalSpare, j.name, err)
	}
	j.file, j.next = j.next, nil
	header := encodeJournalHeader(s.identity.Disk, s.options.Incarnation)
	if _, err := j.file.Write(header); err != nil {
		return fmt.Errorf("write %s: %w", j.name, err)
	}
	j.size = journalHeaderLength
	return nil
}

// allocateJournal makes the spare file. Taking its space now keeps a full file system from
// failing a write later, the last one included, which begins below the size of a journal
// and ends behind it; having it before it is needed lets a disk that others filled to the
// last block go on until the map is in the database and an older journal can go.
func (s *Store) allocateJournal() error {
	fs := s.options.Dir
	path := fs.PathJoin(s.options.Path, journalSpare)
	file, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("create %s: %w", journalSpare, err)
	}
	if err := file.Preallocate(0, s.options.JournalSize+journalTail); err != nil {
		return errors.Join(fmt.Errorf("allocate %s: %w", journalSpare, err), file.Close(), fs.Remove(path))
	}
	s.journal.next = file
	return nil
}
