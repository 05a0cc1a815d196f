package store

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// JournalRecord is a record of a journal file.
type JournalRecord struct {
	File string `json:"file"`
	Byte int    `json:"byte"`
	// Record is its number; Number and Extent say what it is about.
	Record uint64 `json:"record"`
	Number uint32 `json:"number"`
	Extent uint32 `json:"extent"`
	// States are the entries of the extent that it sets or, without blocks, removes.
	States []JournalState `json:"states"`
	Error  string         `json:"error,omitempty"`
}

// JournalState is one entry that a record sets.
type JournalState struct {
	// KeptFor is 0 for the head; see MapRecord.
	KeptFor uint32     `json:"keptFor,omitempty"`
	Removed bool       `json:"removed,omitempty"`
	Layer   uint32     `json:"layer"`
	Blocks  []MapBlock `json:"blocks"`
}

// Row implements Record.
func (r JournalRecord) Row() []string {
	text := ""
	for _, s := range r.States {
		switch {
		case s.Removed:
			text += fmt.Sprintf(" %d: removed", s.KeptFor)
		default:
			text += fmt.Sprintf(" %d:%s", s.KeptFor, places(s.Blocks))
		}
	}
	return []string{
		r.File, strconv.Itoa(r.Byte), strconv.FormatUint(r.Record, 10), strconv.Itoa(int(r.Number)), strconv.Itoa(int(r.Extent)), text, r.Error,
	}
}

func journalStates(states []keptState) (shown []JournalState) {
	for _, k := range states {
		s := JournalState{KeptFor: k.layer, Removed: k.state == nil}
		if k.state != nil {
			s.Layer, s.Blocks = k.state.layer, mapBlocks(k.state)
		}
		shown = append(shown, s)
	}
	return shown
}

func (i *Inspector) journal(f func(Record) error) error {
	names, err := journalNames(pebblevfs.Default, i.path)
	if err != nil {
		return err
	}
	for _, name := range names {
		path := filepath.Join(i.path, name)
		content, err := readFile(pebblevfs.Default, path)
		if err != nil {
			return err
		}
		if err := journalRecords(name, content, f); err != nil {
			return err
		}
	}
	return nil
}

func journalRecords(name string, content []byte, f func(Record) error) error {
	if len(content) < journalHeaderLength {
		return nil // its process died before it wrote a record
	}
	_, _, version, err := decodeJournalHeader(content[:journalHeaderLength])
	if err != nil {
		return f(JournalRecord{File: name, Error: said(err)})
	}
	var r journalRecord
	for rest := content[journalHeaderLength:]; len(rest) > 0; {
		at := len(content) - len(rest)
		next, err := decodeJournalRecord(rest, version, &r)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return f(JournalRecord{File: name, Byte: at, Error: said(err)})
		}
		record := JournalRecord{File: name, Byte: at, Record: r.seq, Number: uint32(r.handle), Extent: r.extent, States: journalStates(r.states)}
		if err := f(record); err != nil {
			return err
		}
		rest = next
	}
	return nil
}

// FlushRecord is one block of a flush slot.
type FlushRecord struct {
	Slot      uint32            `json:"slot"`
	Byte      int64             `json:"byte"`
	Replica   block.ReplicaID   `json:"replica"`
	Counter   uint64            `json:"counter"`
	Flush     block.FlushNumber `json:"flush"`
	Confirmed []block.Confirmed `json:"confirmed"`
	Error     string            `json:"error,omitempty"`
}

// Row implements Record.
func (r FlushRecord) Row() []string {
	return []string{
		strconv.Itoa(int(r.Slot)), strconv.FormatInt(r.Byte, 10), r.Replica.String(), strconv.FormatUint(r.Counter, 10),
		fmt.Sprintf("%d/%d", r.Flush.Epoch, r.Flush.N), strconv.Itoa(len(r.Confirmed)), r.Error,
	}
}

// flush shows the blocks of the slots that were ever written.
func (i *Inspector) flush(f func(Record) error) error {
	b := block.NewBuffer(block.BlockSize)
	defer b.Release()
	for slot := uint32(0); slot < flushSlots; slot++ {
		for half := range uint64(2) {
			r := FlushRecord{Slot: slot, Byte: flushOffset(slot, half)}
			err := vfs.Do(i.device, &vfs.IO{Kind: vfs.Read, Offset: r.Byte, Length: block.BlockSize, Data: b.Data})
			if err == nil {
				if isZero(b.Data) {
					continue
				}
				var record *flushRecord
				if record, err = decodeFlush(b.Data); err == nil {
					r.Replica, r.Counter, r.Flush, r.Confirmed = record.replica, record.counter, record.number, record.confirmed
				}
			}
			r.Error = said(err)
			if err := f(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// SealRecord is what a seal has of a file of the database, or of a flush record.
type SealRecord struct {
	File string `json:"file"`
	Byte int64  `json:"byte"`
	// Bytes is how many the seal is about, from Byte on.
	Bytes int64 `json:"bytes"`
	// Counter is that of a flush record.
	Counter uint64 `json:"counter,omitempty"`
	Error   string `json:"error,omitempty"`
}

// Row implements Record.
func (r SealRecord) Row() []string {
	counter := ""
	if r.Counter > 0 {
		counter = strconv.FormatUint(r.Counter, 10)
	}
	return []string{r.File, strconv.FormatInt(r.Byte, 10), strconv.FormatInt(r.Bytes, 10), counter, r.Error}
}

// seal shows what the store was when it was closed in order; nothing if it was not.
func (i *Inspector) seal(f func(Record) error) error {
	dir := pebblevfs.Default
	q, err := readSeal(dir, i.path)
	if errors.Is(err, block.ErrCorrupt) {
		return f(SealRecord{File: filepath.Join(i.path, sealName), Error: said(err)})
	}
	if err != nil || q == nil {
		return err
	}
	return q.check(dir, i.path, i.device, func(r SealRecord, fault *Fault) error {
		if fault != nil {
			r.Error = fmt.Sprintf("from byte %d on: %s", fault.Offset, fault.What)
		}
		return f(r)
	})
}
