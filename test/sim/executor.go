package sim

import "github.com/holdfast-io/holdfast/internal/vfs"

// executor runs the disk operations and the blocking jobs of one life of a
// daemon as events of its process, in any order and with the delays of a drive.
type executor struct {
	loop    *loop
	process *process
	drive   *drive
}

// drive is what is wrong with a disk at the moment; it outlives the processes
// that use the disk.
type drive struct {
	// slow multiplies every duration.
	slow int64
	// syncFails, readsFail and writesFail are how many of the next ones fail.
	syncFails, readsFail, writesFail int
	// stalls is how many of the next operations hang.
	stalls int
}

// stallMax is the longest that an operation hangs.
const stallMax = 6 * second

// mend ends what is wrong. What hangs, hangs for as long as it was going to.
func (d *drive) mend() { *d = drive{} }

// fails reports whether an operation shall fail now.
func (d *drive) fails(kind vfs.IOKind) bool {
	left := &d.syncFails
	switch kind {
	case vfs.Read:
		left = &d.readsFail
	case vfs.Write:
		left = &d.writesFail
	case vfs.Sync:
	default:
		return false
	}
	if *left == 0 {
		return false
	}
	*left--
	return true
}

// Go implements vfs.Executor.
func (e *executor) Go(job func()) {
	l := e.loop
	low, high := 20*microsecond, 400*microsecond
	if l.chance(3) {
		low, high = millisecond, 20*millisecond
	}
	if e.drive.stalls > 0 && l.chance(30) {
		e.drive.stalls--
		l.after(e.process, l.between(millisecond, stallMax), job)
		return
	}
	l.after(e.process, max(e.drive.slow, 1)*l.between(low, high), job)
}
