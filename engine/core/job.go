package core

import (
	"errors"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/invariant"
)

type jobState uint8

const (
	// jobLocking: a repair waits for its chunk.
	jobLocking jobState = iota
	// jobReady: it has the chunk and waits until everybody can be asked. A copy
	// waits for the writes that are under way at its target.
	jobReady
	jobHashing
	jobReading
	jobWriting
	// jobPausing: a copy waits before its next step, for the sake of clients.
	jobPausing
)

// job makes one chunk equal: a repair on all members (target is -1, rule 18 and
// 30), a copy on one target (rule 22).
type job struct {
	used  bool
	state jobState
	// stamp tells it from a later job in the slot and from its own earlier
	// attempts.
	stamp  uint64
	target int
	chunk  int64
	span   block.Span
	// layer is the cut that a copy is at, zero for the head; end is where the span ends
	// in it. tried are the members whose layer cannot be copied.
	layer block.SnapshotID
	end   int64
	tried set
	// since is the layer before that one, if the job has found or made it equal: what a
	// replica holds but once for both is not hashed again.
	since block.SnapshotID
	// verify: only reads what a reopened member has no checksums of.
	verify bool
	// divergent: a repair of rule 18, in which the source's bytes win.
	divergent bool
	ticket    uint64
	// view is the stamp of the in-sync set that the hashes belong to.
	view     uint64
	restart  bool
	attempts int

	source int
	// asked and hashed are the replicas whose hashes of the slice are wanted and known.
	// What lies before the slice is hashed; nothing of the chunk is when it is zero.
	asked, hashed set
	slice         block.Span
	hashes        [][block.ExtentsPerChunk]block.ExtentHash
	// changed are the extents of a copy that were written while the target was away;
	// zero if that is not known, so that they are compared.
	changed uint16
	// block is the cursor, in blocks of the chunk.
	block int
	run   run
	buf   *block.Buffer
	// resume is when a pausing copy goes on.
	resume block.Instant
	// wrong has, for each replica, what a repair has rewritten because it was wrong
	// there.
	wrong []wrongBytes
	// mending are the replicas that have yet to answer the repair of a layer.
	mending set
	// scrub is what a step of a scrub needs; zero for other jobs.
	scrub scrubStep
}

// attemptsMax bounds how often a repair starts over because a copy that was
// intact when it was hashed failed to verify when it was read.
const attemptsMax = 4

// chunkSpan is a chunk, as far as it lies in the volume.
func (c *Core) chunkSpan(chunk int64) block.Span {
	first := chunk * block.ChunkSize
	return block.Span{Offset: first, Length: min(block.ChunkSize, c.view.Size-first)}
}

// startJob takes a free slot for a job, or returns -1.
func (c *Core) startJob(target int, chunk int64) int {
	for i := range c.jobs {
		j := &c.jobs[i]
		if j.used {
			continue
		}
		*j = job{
			used: true, stamp: j.stamp + 1, target: target, chunk: chunk,
			span: c.chunkSpan(chunk), hashes: j.hashes, source: -1,
		}
		j.end = j.span.End()
		return i
	}
	return -1
}

// endJob frees the slot.
func (c *Core) endJob(i int) {
	j := &c.jobs[i]
	j.buf.Release()
	if j.ticket != 0 {
		c.release(j.ticket)
	}
	*j = job{stamp: j.stamp + 1, hashes: j.hashes}
	c.kick, c.wake = true, true
}

// driveJobs goes on with the jobs and starts others: repairs that somebody waits
// for, then repairs and copies in the background, fewer while clients are at
// work.
func (c *Core) driveJobs() {
	if !c.settled() {
		return
	}
	for i := range c.jobs {
		if c.jobs[i].used {
			c.advanceJob(i)
		}
	}
	c.startDemanded()
	if c.phase != serving {
		return
	}
	for c.mayStartJob() && (c.startRepair(c.divide.next(c.repairing), true) ||
		c.startVerify() || c.startCopy() || c.startScrub()) {
		c.throttle.begun(c.now)
	}
}

// mayStartJob reports whether another job may begin in the background: no more at a time
// and no faster than the throttle lets them while clients are at work.
func (c *Core) mayStartJob() bool {
	running := c.jobCount()
	if !c.clientsBusy() {
		c.throttle.wake = 0
		return running < len(c.jobs)
	}
	return running < c.throttle.jobs() && c.throttle.mayBegin(c.now)
}

// clientsBusy reports whether clients are at work. While their I/O is frozen nothing
// can slow them down, and what thaws it must not wait behind what they hold.
func (c *Core) clientsBusy() bool {
	return c.frozen == nil && c.throttle.busy(c.now, len(c.freeRequests) < len(c.requests))
}

// small reports whether jobs go in small steps: while clients are at work, so that no
// request waits for more than one.
func (c *Core) small() bool { return c.throttle.usual > 0 && c.clientsBusy() }

// smallCopy reports whether a copy does.
func (c *Core) smallCopy(j *job) bool {
	return c.small() && !c.peers[j.target].target.hurried.has(j.chunk)
}

// jobCount counts the jobs.
func (c *Core) jobCount() int {
	n := 0
	for i := range c.jobs {
		if c.jobs[i].used {
			n++
		}
	}
	return n
}

// jobsWork reports whether a job is at work: it asks a replica for something that takes
// its disk's time.
func (c *Core) jobsWork() bool {
	for i := range c.jobs {
		switch c.jobs[i].state {
		case jobHashing, jobReading, jobWriting:
			return true
		}
	}
	return false
}

// startDemanded starts the repairs that requests wait for.
func (c *Core) startDemanded() {
	for len(c.suspects) > 0 && c.waitingJobs() <= len(c.jobs)/2 {
		chunk := c.suspects[0]
		if !c.repairing(chunk) && !c.startRepair(chunk, c.divide.has(chunk)) {
			return
		}
		c.suspects = append(c.suspects[:0], c.suspects[1:]...)
	}
	if c.divide.count == 0 {
		return
	}
	for i := range c.requests {
		r := &c.requests[i]
		if !r.used || r.state != requestParked || r.kind == FlushRequest {
			continue
		}
		span := r.piece()
		for k := span.Offset / block.ChunkSize; k <= (span.End()-1)/block.ChunkSize; k++ {
			if c.divide.has(k) && !c.repairing(k) && !c.startRepair(k, true) {
				return
			}
		}
	}
}

// waitingJobs counts the repairs that wait for their chunk. A write that is
// frozen keeps its range, and must not keep all slots from the copies that would
// thaw it.
func (c *Core) waitingJobs() int {
	n := 0
	for i := range c.jobs {
		if c.jobs[i].used && c.jobs[i].state == jobLocking {
			n++
		}
	}
	return n
}

// startRepair begins to make a chunk equal on all members.
func (c *Core) startRepair(chunk int64, divergent bool) bool {
	if chunk < 0 {
		return false
	}
	i := c.startJob(-1, chunk)
	if i < 0 {
		return false
	}
	j := &c.jobs[i]
	j.divergent = divergent
	var granted bool
	j.ticket, granted = c.locks.acquire(j.span, true, jobOwner(i))
	if granted {
		c.jobGranted(i)
	}
	return true
}

func (c *Core) jobGranted(i int) {
	j := &c.jobs[i]
	invariant.Assert(j.used && j.state == jobLocking, "range granted to job %d in state %d", i, j.state)
	j.state = jobReady
	c.advanceJob(i)
}

// advanceJob carries a job as far as it can go now.
func (c *Core) advanceJob(i int) {
	j := &c.jobs[i]
	if j.state == jobHashing || j.state == jobReading || j.state == jobPausing || j.state == jobWriting && (j.target >= 0 || !j.layer.IsZero()) {
		if !j.restart && j.view == c.stamp {
			if j.state == jobPausing && c.now >= j.resume {
				c.copyStep(i)
			}
			return
		}
		if j.target >= 0 {
			c.abortCopy(i)
			return
		}
		c.restartJob(j)
	}
	if j.state != jobReady || !c.settled() {
		return
	}
	if j.target >= 0 {
		c.hashForCopy(i)
		return
	}
	if c.healthy() != c.iss {
		if j.scrub.walk != 0 {
			c.endJob(i)
		}
		return
	}
	j.view = c.stamp
	if j.verify {
		c.hashForVerify(i)
		return
	}
	c.hash(i, c.iss)
}

// restartJob begins a repair again from the hashes; replies to the earlier
// attempt are dropped.
func (c *Core) restartJob(j *job) {
	j.stamp++
	j.restart = false
	j.block = 0
	j.asked, j.hashed, j.slice = 0, 0, block.Span{}
	j.buf.Release()
	j.buf = nil
	j.state = jobReady
}

// hash asks replicas for the hashes of the chunk, read and verified now.
func (c *Core) hash(i int, who set) {
	j := &c.jobs[i]
	j.asked = who
	c.clearHashes(j)
	c.hashSlice(i)
}

// hashSlice asks for those of what is left of the chunk, or of the next step.
func (c *Core) hashSlice(i int) {
	j := &c.jobs[i]
	j.state, j.hashed = jobHashing, 0
	first := max(j.span.Offset, j.slice.End())
	j.slice = block.Span{Offset: first, Length: j.end - first}
	since := j.since
	if !since.IsZero() && c.layerSize(since) < j.end {
		since = block.SnapshotID{} // deleted, or nobody has compared its end
	}
	if j.target >= 0 && since.IsZero() && c.smallCopy(j) {
		j.slice.Length = min(j.slice.Length, int64(c.throttle.extents())*block.ExtentSize)
	}
	for k := range j.asked.all() {
		var flags block.Flags
		if c.peers[k].acceptSuspect {
			flags = block.FlagAcceptSuspect
		}
		c.call(k, forJob, i, j.stamp, block.Request{
			Op: block.OpHash, Flags: flags | block.FlagResync, Offset: j.slice.Offset, Length: j.slice.Length,
			Snapshot: j.layer, Since: since,
		})
	}
}

// clearHashes makes room for the hashes of every replica.
func (c *Core) clearHashes(j *job) {
	clear(j.hashes)
	for len(j.hashes) < len(c.peers) {
		j.hashes = append(j.hashes, [block.ExtentsPerChunk]block.ExtentHash{})
	}
}

// jobReplied is the answer of a replica to a job.
func (c *Core) jobReplied(k int, e *call, rep *block.Reply) {
	i := int(e.index)
	j := &c.jobs[i]
	if !j.used || j.stamp != e.stamp {
		rep.Buf.Release()
		return
	}
	switch {
	case rep.Err != nil && j.scrub.walk != 0 && errors.Is(rep.Err, block.ErrNotFound):
		rep.Buf.Release()
		c.putOffScrub(i)
	case rep.Err != nil && !e.req.Since.IsZero() && errors.Is(rep.Err, block.ErrNotFound):
		// One of the two layers is deleted, for all that is known.
		rep.Buf.Release()
		c.abortCopy(i)
	case rep.Err != nil && !j.layer.IsZero() && j.target >= 0:
		rep.Buf.Release()
		c.layerFailed(k, i, rep.Err)
	case j.state == jobHashing && e.req.Op == block.OpHash && rep.Err != nil:
		rep.Buf.Release()
		c.jobUnreadable(i, rep.Err)
	case j.state == jobHashing && e.req.Op == block.OpHash:
		rep.Buf.Release()
		c.noteNext(k, j, rep.Next)
		c.hashReplied(k, i, rep.Hashes)
	case j.state == jobReading && e.req.Op == block.OpRead:
		c.jobRead(k, i, rep)
	case j.state == jobWriting && j.target == k:
		rep.Buf.Release()
		c.pace(i)
	case j.state == jobWriting && j.mending.has(k):
		rep.Buf.Release()
		c.layerMended(k, i, rep.Err)
	default:
		rep.Buf.Release()
	}
}

func (c *Core) hashReplied(k, i int, hashes []block.ExtentHash) {
	j := &c.jobs[i]
	extents := int((j.slice.Length + block.ExtentSize - 1) / block.ExtentSize)
	if len(hashes) != extents {
		j.restart = true
		c.fail(k, block.ErrProtocol)
		return
	}
	copy(j.hashes[k][(j.slice.Offset-j.span.Offset)/block.ExtentSize:], hashes)
	j.hashed |= bit(k)
	if j.asked&^j.hashed != 0 {
		return
	}
	if j.view != c.stamp {
		c.kick = true
		return
	}
	if j.target >= 0 {
		c.pace(i)
		return
	}
	if j.verify {
		c.verifyNext(i)
		return
	}
	if j.scrub.walk != 0 && j.ticket == 0 {
		c.scrubHashed(i)
		return
	}
	if !j.divergent {
		c.reportDifferences(j)
	}
	c.repairNext(i)
}

// repairNext rewrites the next run of blocks, or ends the repair.
func (c *Core) repairNext(i int) {
	j := &c.jobs[i]
	run, more := c.nextRun(j)
	if !more {
		c.repaired(i)
		return
	}
	j.run = run
	j.state = jobReading
	c.call(run.provider, forJob, i, j.stamp, block.Request{
		Op: block.OpRead, Flags: run.flags | block.FlagResync, Offset: run.span.Offset, Length: run.span.Length,
		Snapshot: j.layer,
	})
}

// jobRead is what a job read from its source.
func (c *Core) jobRead(k, i int, rep *block.Reply) {
	j := &c.jobs[i]
	if rep.Err != nil {
		rep.Buf.Release()
		c.jobUnreadable(i, rep.Err)
		return
	}
	if rep.Buf == nil || int64(len(rep.Buf.Data)) != j.run.span.Length {
		rep.Buf.Release()
		j.restart = true
		c.fail(k, block.ErrProtocol)
		return
	}
	if j.verify {
		rep.Buf.Release()
		c.verifyNext(i)
		return
	}
	j.state = jobWriting
	if j.target >= 0 {
		c.copyWrite(i, rep.Buf)
		return
	}
	if !j.layer.IsZero() {
		c.mendLayer(i, rep.Buf)
		return
	}
	op := block.OpWrite
	if allZero(rep.Buf.Data) {
		op = block.OpZero
		rep.Buf.Release()
		rep.Buf = nil
	}
	c.mirror(write{
		op: op, flags: block.FlagResync, span: j.run.span, buf: rep.Buf, request: -1, job: int32(i),
	})
}

// jobUnreadable: what verified when it was hashed does not any more, or the disk
// of the last member does not give it.
func (c *Core) jobUnreadable(i int, err error) {
	j := &c.jobs[i]
	if j.target >= 0 {
		c.copyBlocked(i)
		return
	}
	if j.verify && !errors.Is(err, block.ErrChecksum) {
		c.verifyLater(i)
		return
	}
	if j.verify {
		c.verifyNext(i)
		return
	}
	j.attempts++
	if j.attempts < attemptsMax {
		j.restart = true
		c.kick = true
		return
	}
	c.repaired(i)
}

// jobWritten: all members have the run.
func (c *Core) jobWritten(i int) {
	j := &c.jobs[i]
	c.tally(j)
	if j.restart || j.view != c.stamp {
		c.restartJob(j)
		c.kick = true
		return
	}
	c.repairNext(i)
}

// repaired ends a repair: the chunk is the same everywhere, as far as anybody
// can read it.
func (c *Core) repaired(i int) {
	j := &c.jobs[i]
	if j.scrub.walk != 0 {
		c.scrubConfirmed(i)
		return
	}
	c.divide.remove(j.chunk)
	c.sure(j.chunk)
	c.reportRepaired(j)
	c.endJob(i)
}

// allZero reports whether every byte is zero; such ranges are zeroed instead of
// written, so that a copy takes no more space than its source.
func allZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}
