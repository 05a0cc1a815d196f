package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// What dm-log-writes puts on its log: a superblock in the first sector, then entries,
// each a sector that may be followed by data. Little-endian.
const (
	logMagic   = 0x6a736677736872
	logFlush   = 1
	logFUA     = 2
	logDiscard = 4
	logMark    = 8
	// logEnd is the mark that is put when the device is removed.
	logEnd = "dm-log-writes-end"
)

// entry is one operation of the log: sectors are the device's, of 512 bytes here.
type entry struct {
	sector, count uint64
	flags         uint64
	// mark is the text of a mark; data is where the data begins in the log, in bytes.
	mark string
	data int64
}

// readLog reads the entries of a log.
func readLog(log io.ReaderAt) ([]entry, error) {
	var super [512]byte
	if _, err := log.ReadAt(super[:], 0); err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	if binary.LittleEndian.Uint64(super[:]) != logMagic || binary.LittleEndian.Uint32(super[24:]) != 512 {
		return nil, errors.New("read the log: it has no superblock, or other sectors than of 512 bytes")
	}
	var entries []entry
	at := int64(512)
	for range binary.LittleEndian.Uint64(super[16:]) {
		var b [512]byte
		if _, err := log.ReadAt(b[:], at); err != nil {
			return nil, fmt.Errorf("read entry %d of the log: %w", len(entries), err)
		}
		at += 512
		e := entry{
			sector: binary.LittleEndian.Uint64(b[:]), count: binary.LittleEndian.Uint64(b[8:]),
			flags: binary.LittleEndian.Uint64(b[16:]), data: at,
		}
		if length := binary.LittleEndian.Uint64(b[24:]); e.flags&logMark != 0 && length <= 480 {
			e.mark = string(b[32 : 32+length])
		}
		if e.flags&logDiscard == 0 {
			at += int64(e.count) * 512
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// apply does to a device what an entry says.
func (e *entry) apply(log io.ReaderAt, device *os.File) error {
	if e.count == 0 || e.flags&logMark != 0 {
		return nil
	}
	b := make([]byte, e.count*512)
	if e.flags&logDiscard == 0 {
		if _, err := log.ReadAt(b, e.data); err != nil {
			return fmt.Errorf("read the data of the log: %w", err)
		}
	}
	if _, err := device.WriteAt(b, int64(e.sector)*512); err != nil {
		return fmt.Errorf("replay the log: %w", err)
	}
	return nil
}
