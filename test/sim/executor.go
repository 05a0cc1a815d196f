package sim

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
	// syncFails is how many of the next syncs fail.
	syncFails int
}

// Go implements vfs.Executor.
func (e *executor) Go(job func()) {
	l := e.loop
	low, high := 20*microsecond, 400*microsecond
	if l.chance(3) {
		low, high = millisecond, 20*millisecond
	}
	l.after(e.process, max(e.drive.slow, 1)*l.between(low, high), job)
}
