package core

import (
	"crypto/sha256"
	"math/bits"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Scrub asks for a walk through the volume that reads everything on every member, in its
// snapshots and in its head: each block against its checksum, and each extent against
// the others by its hash. What does not verify is repaired from an intact copy; what
// differs though it verifies, or that nobody has intact, is reported.
type Scrub struct {
	// From is where the walk begins, in bytes, To where it ends; 0 is the end of the
	// volume. Both are rounded to whole chunks, to the outside.
	From, To int64
	// Rate is how many bytes of the volume are read in a second at most; 0 bounds it
	// by nothing but the work of clients.
	Rate int64
	// Covered are the replicas that were verified in everything before From. It says
	// nothing if From is 0.
	Covered []block.ReplicaID
}

// Scrubbed is how far a scrub is.
type Scrubbed struct {
	// Everything before Offset was verified on all replicas in Covered, beginning
	// with what the scrub was given. A replica that was not in sync all the while is
	// not among them.
	Offset  int64
	Covered []block.ReplicaID
	// Bytes of the volume were verified since the last report.
	Bytes int64
	// Done: the walk is at its end.
	Done bool
}

// ScrubStatus is the progress of a scrub, in bytes of the volume.
type ScrubStatus struct {
	Active      bool
	Offset, End int64
}

// scrubState is the walk under way: part by part, and in each through the layers.
type scrubState struct {
	active bool
	// walk tells it from earlier ones, whose last step may still be under way.
	walk uint64
	// What lies before at is verified, on covered; to is the end.
	at, to int64
	// end is where the part ends whose layers are verified now; there is none if it is
	// not above at. layer is the next one of them, zero for the head, and since the one
	// before it, zero if it is the first.
	end          int64
	layer, since block.SnapshotID
	rate         int64
	covered      set
	// compared bytes were not reported yet.
	compared int64
	// next is when the next step may begin.
	next block.Instant
	// zero is the hash of an extent that reads as zeros.
	zero [32]byte
}

// scrubStep is the part of a walk that one job does. First its extents are hashed while
// clients read and write them. An extent that then looks wrong may only have changed
// meanwhile: it is hashed again, and repaired, with its range held, one extent after
// the other, so that a write waits for the hash of one extent at most, and only for one
// that is damaged or being written.
type scrubStep struct {
	// walk is that of scrubState; 0 for a job that is no step.
	walk uint64
	// span is what the step verifies; that of the job is one of its extents once the
	// range is held.
	span block.Span
	// doubts has a bit for each extent that is still to be confirmed, mended one for
	// each block that was rewritten of the one that is being confirmed.
	doubts, mended uint16
	// compared are the replicas whose hashes of everything were known.
	compared set
	// next is the layer to be verified after that of the job: the oldest that holds
	// something of its own on a member.
	next block.SnapshotID
}

const (
	// scrubRetry is how long a scrub waits for a range that it must not queue for.
	scrubRetry = 10 * millisecond
	// sparse is how much cheaper than data an extent is in which nothing was ever
	// written.
	sparse = 16
)

// beginScrub begins a walk or, with nil, ends the one under way.
func (c *Core) beginScrub(asked *Scrub) {
	c.scrub = scrubState{walk: c.scrub.walk + 1}
	c.kick = true
	if asked == nil {
		return
	}
	s := &c.scrub
	s.active = true
	s.at = max(asked.From, 0) / block.ChunkSize * block.ChunkSize
	if asked.To > 0 {
		s.to = (min(asked.To, block.MaxVolumeSize) + block.ChunkSize - 1) / block.ChunkSize * block.ChunkSize
	}
	s.rate = asked.Rate
	s.zero = sha256.Sum256(make([]byte, block.ExtentSize))
	for i := range c.peers {
		if s.at == 0 && !c.peers[i].gone {
			s.covered |= bit(i)
		}
	}
	for _, id := range asked.Covered {
		if i := c.peerOf(id); s.at > 0 && i >= 0 {
			s.covered |= bit(i)
		}
	}
}

// scrubEnd is where the walk ends. A volume that grows meanwhile is walked to its new
// end.
func (c *Core) scrubEnd() int64 {
	if c.scrub.to == 0 {
		return c.view.Size
	}
	return min(c.scrub.to, c.view.Size)
}

func (c *Core) scrubStatus() ScrubStatus {
	if !c.scrub.active {
		return ScrubStatus{}
	}
	return ScrubStatus{Active: true, Offset: c.scrub.at, End: c.scrubEnd()}
}

// startScrub begins the next step. It is the last of all jobs: it waits until there is
// nothing else to do, and while I/O is frozen. What may be divergent, or has no
// checksums yet, is made equal first.
func (c *Core) startScrub() bool {
	s := &c.scrub
	if !s.active || c.now < s.next || c.jobCount() > 0 || c.healthy() != c.iss || c.frozenBy() != nil {
		return false
	}
	if s.at >= c.scrubEnd() {
		c.scrubDone()
		return false
	}
	chunk := s.at / block.ChunkSize
	if c.divide.has(chunk) || c.unsure.has(chunk) {
		return false
	}
	i := c.startJob(-1, chunk)
	if i < 0 {
		return false
	}
	j := &c.jobs[i]
	c.enterPart(chunk)
	j.layer, j.since = s.layer, s.since
	j.cover(block.Span{Offset: s.at, Length: c.partEnd(s.layer) - s.at})
	j.scrub = scrubStep{walk: s.walk, span: j.span, compared: ^set(0)}
	j.state = jobReady
	s.next = max(s.next, c.now)
	c.advanceJob(i)
	return true
}

// scrubHashed looks at the hashes of a step, which were taken while clients went on.
func (c *Core) scrubHashed(i int) {
	j := &c.jobs[i]
	j.scrub.compared &= j.asked
	cost := int64(0)
	for e := range int((j.span.Length + block.ExtentSize - 1) / block.ExtentSize) {
		if c.doubtful(j, e) {
			j.scrub.doubts |= 1 << uint(e)
		}
		if h := &j.hashes[c.repairSource()][e]; h.Bad|h.Suspect == 0 && (h.Sum == c.scrub.zero || h.Sum == [32]byte{}) {
			cost += j.extent(e).Length / sparse
		} else {
			cost += j.extent(e).Length
		}
	}
	if s := &c.scrub; s.rate > 0 && j.scrub.walk == s.walk {
		s.next += block.Instant(cost * second / s.rate)
	}
	c.confirmNext(i)
}

// doubtful reports whether an extent may be damaged on a member or differ between two.
func (c *Core) doubtful(j *job, e int) bool {
	source := &j.hashes[c.repairSource()][e]
	for k := range c.iss.all() {
		if h := &j.hashes[k][e]; h.Bad|h.Suspect != 0 || h.Sum != source.Sum {
			return true
		}
	}
	return false
}

// cover makes a job one of a part of its chunk.
func (j *job) cover(span block.Span) { j.span, j.end = span, span.End() }

// extent is one of the job's extents, as far as it lies in its span.
func (j *job) extent(e int) block.Span {
	first := j.span.Offset + int64(e)*block.ExtentSize
	return block.Span{Offset: first, Length: min(block.ExtentSize, j.span.End()-first)}
}

// confirmNext takes the range of the next doubtful extent, to repair it, or ends the
// step. A write that is frozen keeps its range, and must not keep all slots from the
// copies that would thaw it.
func (c *Core) confirmNext(i int) {
	j := &c.jobs[i]
	if j.scrub.doubts == 0 {
		c.scrubbed(i)
		return
	}
	j.cover(j.scrub.span)
	span := j.extent(bits.TrailingZeros16(j.scrub.doubts))
	if !c.locks.idle(span) && c.waitingJobs()+1 > len(c.jobs)/2 {
		c.putOffScrub(i)
		return
	}
	j.scrub.doubts &= j.scrub.doubts - 1
	j.cover(span)
	j.attempts, j.scrub.mended, j.since = 0, 0, block.SnapshotID{}
	c.restartJob(j)
	j.state = jobLocking
	var granted bool
	j.ticket, granted = c.locks.acquire(span, true, jobOwner(i))
	if granted {
		c.jobGranted(i)
	}
}

// scrubConfirmed: an extent whose range is held was repaired where that can be.
func (c *Core) scrubConfirmed(i int) {
	j := &c.jobs[i]
	j.scrub.compared &= j.asked
	if j.attempts >= attemptsMax {
		// It could not even be hashed, or not read again: nobody has verified it.
		j.scrub.compared = 0
	} else {
		c.reportLost(j)
	}
	c.reportRepaired(j)
	if j.ticket == 0 {
		j.scrub.doubts = 0
	} else {
		c.release(j.ticket)
		j.ticket = 0
	}
	c.confirmNext(i)
}

// reportLost tells of blocks of the extent that no member has intact. Those that were
// rewritten had a source, were it only bytes without a checksum (unsure).
func (c *Core) reportLost(j *job) {
	lost := ^j.scrub.mended
	for k := range c.iss.all() {
		lost &= j.hashes[k][0].Bad | j.hashes[k][0].Suspect
	}
	for lost != 0 {
		first := bits.TrailingZeros16(lost)
		n := bits.TrailingZeros16(^(lost >> uint(first)))
		lost &^= (1<<uint(n) - 1) << uint(first)
		at := j.span.Offset + int64(first)*block.BlockSize
		c.noteUnreadable(j.layer, block.Span{Offset: at, Length: min(int64(n)*block.BlockSize, j.span.End()-at)})
	}
}

// mend notes that a run of the extent was rewritten.
func (j *job) mend() {
	for at := j.run.span.Offset; j.scrub.walk != 0 && at < j.run.span.End(); at += block.BlockSize {
		j.scrub.mended |= 1 << uint((at-j.span.Offset)/block.BlockSize)
	}
}

// scrubbed ends a step; the next one begins after it.
func (c *Core) scrubbed(i int) {
	s, step, layer := &c.scrub, c.jobs[i].scrub, c.jobs[i].layer
	c.endJob(i)
	if step.walk != s.walk {
		return
	}
	s.covered &= step.compared
	if !layer.IsZero() {
		if c.partEnd(layer) < s.end {
			// In the rest of the part the next one may have anything.
			step.next = c.layerBehind(layer)
		}
		s.since, s.layer = layer, step.next
		return
	}
	s.at = step.span.End()
	s.compared += step.span.Length
	if s.at >= c.scrubEnd() {
		c.scrubDone()
		return
	}
	// Where the volume has grown meanwhile, its last extent has become longer.
	s.at -= s.at % block.ExtentSize
	s.end = s.at
	if s.at%block.ChunkSize == 0 {
		c.reportScrubbed(false)
	}
}

func (c *Core) scrubDone() {
	c.scrub.active = false
	c.scrub.next = 0
	c.reportScrubbed(true)
}

func (c *Core) reportScrubbed(done bool) {
	s := &c.scrub
	c.emit(Effect{Kind: EffectScrubbed, Scrubbed: Scrubbed{
		Offset: s.at, Covered: c.ids(s.covered), Bytes: s.compared, Done: done,
	}})
	s.compared = 0
}
