// Package vfs is the seam between a store and its disk. A store has a data
// file, reached through Device, and a metadata directory, reached through
// pebble's vfs.FS (of which Dir is the alias used here). Each has a real
// implementation and one in memory that forgets what was not synced, for tests
// and for the simulator.
//
// Device is completion-based: Submit never blocks on the disk, and the operation's
// Done is called when it has ended. On a real disk it is io_uring, threads that
// block, or both in turns (docs/adr/0008-io-uring.md).
package vfs

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/turn"
)

// Dir is the file system that holds a store's metadata directory.
type Dir = vfs.FS

// IOKind is what an IO asks of a device.
type IOKind uint8

const (
	// Read fills Data from Offset. Bytes never written read as zeros.
	Read IOKind = iota + 1
	// Write puts Data at Offset.
	Write
	// Sync makes every write that completed before its submission durable
	// (fdatasync).
	Sync
	// Discard gives the space of [Offset, Offset+Length) back to the file
	// system; it reads as zeros afterwards.
	Discard
)

// verb names the kind, for errors.
func (k IOKind) verb() string {
	switch k {
	case Read:
		return "read"
	case Write:
		return "write"
	case Sync:
		return "sync"
	case Discard:
		return "discard"
	default:
		return fmt.Sprintf("operation %d", k)
	}
}

// IO is one operation on a Device. Data, Offset and Length are multiples of
// block.BlockSize, and Data is aligned in memory to it. The submitter owns the
// IO and Data again when Done is called.
type IO struct {
	Kind   IOKind
	Offset int64
	Length int64
	Data   []byte
	// Err is the result, set before Done is called. A full disk is
	// block.ErrNoSpace, everything else that the disk refused block.ErrDiskFailed.
	Err error
	// Submitting is a turn of who submits, or nil; Submit may take it out.
	Submitting *turn.Turn
	// Ending is a turn of who calls Done, until that returns, or nil.
	Ending *turn.Turn
	// Done is called once, from any goroutine, never from within Submit and
	// never with a lock of the device held. It must not wait for anything that
	// takes long: what was submitted meanwhile may wait for its return.
	Done func(*IO)

	// next links the queue of a device, rest what is carried out with this one.
	next, rest *IO
	// began and submitter, the submitter's Done, belong to a Watch.
	began     uint32
	submitter func(*IO)
}

// Device is a store's data file.
type Device interface {
	// Submit starts the operation. Operations in flight are not ordered among
	// each other.
	Submit(io *IO)
	// Size is the length of the file in bytes.
	Size() int64
	// Grow preallocates the file up to size bytes; it blocks.
	Grow(size int64) error
	// Free is the space left on the file system in bytes.
	Free() (int64, error)
	// Close waits for operations in flight and gives the exclusive lock back.
	Close() error
}

// Doer is implemented by devices that can carry an operation out on the
// caller's goroutine, whatever schedules their other operations.
type Doer interface {
	// Do carries io out and returns its error; io.Done is not called.
	Do(io *IO) error
}

// Do carries io out and waits for it. It is for opening and closing a store,
// never for the path of a request.
func Do(dev Device, io *IO) error {
	if d, ok := dev.(Doer); ok {
		return d.Do(io)
	}
	done := make(chan struct{})
	io.Done = func(*IO) { close(done) }
	dev.Submit(io)
	<-done
	return io.Err
}

// Helper is implemented by devices whose completions come from a thread of their own,
// which may help their owner between them. What a job submits to the device is then on
// its way with no other thread woken for it.
type Helper interface {
	// Help has job run on that thread, soon, never from within Help. The job should be
	// done in microseconds: completions wait for it. Help reports false, and job is not
	// run, if there is no such thread, or not any more.
	Help(job func()) bool
}

// Help asks a device that may be a Helper.
func Help(d Device, job func()) bool {
	h, ok := d.(Helper)
	return ok && h.Help(job)
}

// Executor runs the blocking jobs of a store (journal writes, metadata
// commits). A job never waits for another job. The simulator's runs them as
// events on its one goroutine.
type Executor interface {
	// Go runs job later, from any goroutine, never from within Go.
	Go(job func())
}

// IncarnationOf is how a store learns the identity of the caches under it
// (rule 17).
type IncarnationOf func(path string) (block.Incarnation, error)
