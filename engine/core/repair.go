package core

import (
	"math/bits"

	"github.com/holdfast-io/holdfast/internal/block"
)

// divergence is a set of chunks: those that may differ between members (rule 18),
// or those that a member has yet to take checksums of.
type divergence struct {
	// chunks has, for each region, a bit for each of its chunks in the set.
	chunks []uint16
	count  int
	// from is where the search for background repairs goes on.
	from int
	// source is the one member that repairs copy from, or -1.
	source int
}

// add puts whole regions of a volume of size bytes in.
func (d *divergence) add(size int64, regions block.Regions) {
	if d.chunks == nil {
		d.chunks = make([]uint16, block.RegionCount(size))
	}
	for r := range regions.All() {
		if int(r) < len(d.chunks) {
			d.count -= bits.OnesCount16(d.chunks[r])
			d.chunks[r] = chunksOf(r, size)
			d.count += bits.OnesCount16(d.chunks[r])
		}
	}
}

// chunksOf has a bit for each chunk of a region that lies in the volume.
func chunksOf(r block.Region, size int64) uint16 {
	left := size - r.Span().Offset
	n := (left + block.ChunkSize - 1) / block.ChunkSize
	if n >= block.ChunksPerRegion {
		return ^uint16(0)
	}
	return uint16(1)<<uint(n) - 1
}

// has reports whether a chunk, by its index in the volume, is divergent.
func (d *divergence) has(chunk int64) bool {
	return d.count > 0 && d.chunks[chunk/block.ChunksPerRegion]&(1<<uint(chunk%block.ChunksPerRegion)) != 0
}

func (d *divergence) remove(chunk int64) {
	if d.has(chunk) {
		d.chunks[chunk/block.ChunksPerRegion] &^= 1 << uint(chunk%block.ChunksPerRegion)
		d.count--
	}
}

// region reports whether any chunk of a region is divergent.
func (d *divergence) region(r block.Region) bool {
	return d.count > 0 && int(r) < len(d.chunks) && d.chunks[r] != 0
}

// touches reports whether a span reaches into a divergent chunk.
func (d *divergence) touches(span block.Span) bool {
	return d.firstIn(span) >= 0
}

// firstIn is the first divergent chunk that a span reaches into, or -1.
func (d *divergence) firstIn(span block.Span) int64 {
	if d.count == 0 {
		return -1
	}
	for k := span.Offset / block.ChunkSize; k <= (span.End()-1)/block.ChunkSize; k++ {
		if d.has(k) {
			return k
		}
	}
	return -1
}

// next is a divergent chunk for which skip is false, or -1. The search goes
// round the volume.
func (d *divergence) next(skip func(chunk int64) bool) int64 {
	if d.count == 0 {
		return -1
	}
	for n := range len(d.chunks) + 1 {
		r := (d.from + n) % len(d.chunks)
		for m := d.chunks[r]; m != 0; m &= m - 1 {
			k := int64(r)*block.ChunksPerRegion + int64(bits.TrailingZeros16(m))
			if !skip(k) {
				d.from = r
				return k
			}
		}
	}
	return -1
}

// suspectDivergence follows from the logs that the members of a new engine brought
// along.
//
// Rule 18 (divergence): what the intent logs of the members name after the end of an
// engine may differ between them. No request touches a chunk of it before the chunk
// is the same on all members (touches, in begin), brought there from one source
// (provider). A lone member differs from nobody.
func (c *Core) suspectDivergence(logs block.Regions) {
	if c.iss.count() > 1 {
		c.divide.add(c.view.Size, logs)
	} else {
		c.trust(c.iss.first())
	}
}

// maxSuspects bounds the chunks that wait for a read repair. What does not fit
// is found again by the next read.
const maxSuspects = 64

// suspect asks for the repair of chunks in which a member's copy failed to
// verify.
func (c *Core) suspect(span block.Span) {
	for k := span.Offset / block.ChunkSize; k <= (span.End()-1)/block.ChunkSize; k++ {
		if len(c.suspects) < maxSuspects && !c.isSuspect(k) {
			c.suspects = append(c.suspects, k)
		}
	}
	c.kick = true
}

func (c *Core) isSuspect(chunk int64) bool {
	for _, k := range c.suspects {
		if k == chunk {
			return true
		}
	}
	return false
}

// repairPending reports whether a repair waits or runs in a span.
func (c *Core) repairPending(span block.Span) bool {
	for k := span.Offset / block.ChunkSize; k <= (span.End()-1)/block.ChunkSize; k++ {
		if c.isSuspect(k) || c.repairing(k) {
			return true
		}
	}
	return false
}

// repairing reports whether a repair of the chunk runs.
func (c *Core) repairing(chunk int64) bool {
	for i := range c.jobs {
		if j := &c.jobs[i]; j.used && j.target < 0 && !j.verify && j.chunk == chunk {
			return true
		}
	}
	return false
}

// repairSource is the member that repairs copy from: always the same, as long as
// it is a member, because mixing sources is not allowed (rule 18). Every member
// of a serving core lost no memory.
func (c *Core) repairSource() int {
	if c.divide.source < 0 || !c.iss.has(c.divide.source) {
		c.divide.source = c.iss.first()
	}
	return c.divide.source
}

// run is a range of blocks within one extent that must be rewritten from one
// provider.
type run struct {
	span     block.Span
	provider int
	flags    block.Flags
	// wrong are the members that have something else; damaged, that some copy of
	// it does not verify.
	wrong   set
	damaged bool
}

// nextRun finds the next run of a repair from the job's cursor on, or reports
// that there is none.
func (c *Core) nextRun(j *job) (run, bool) {
	for ; j.block < block.ExtentsPerChunk*block.BlocksPerExtent; j.block++ {
		provider, flags, needed := c.provider(j, j.block)
		if !needed {
			continue
		}
		found := run{provider: provider, flags: flags}
		c.judge(j, j.block, &found)
		n := 1
		for (j.block+n)%block.BlocksPerExtent != 0 {
			p, f, more := c.provider(j, j.block+n)
			if !more || p != provider || f != flags {
				break
			}
			c.judge(j, j.block+n, &found)
			n++
		}
		first := j.span.Offset + int64(j.block)*block.BlockSize
		if first >= j.span.End() {
			break
		}
		length := min(int64(n)*block.BlockSize, j.span.End()-first)
		j.block += n
		found.span = block.Span{Offset: first, Length: length}
		return found, true
	}
	return run{}, false
}

// provider tells from whom a block is rewritten on all members, if it must be. A
// block that verifies somewhere wins over one that does not; bytes that nobody
// can verify are accepted only where they were not flushed before a crash.
func (c *Core) provider(j *job, b int) (from int, flags block.Flags, needed bool) {
	extent, mask := b/block.BlocksPerExtent, uint16(1)<<uint(b%block.BlocksPerExtent)
	source := c.repairSource()
	var intact, unsure set
	damaged, differ := false, false
	for i := range c.iss.all() {
		h := &j.hashes[i][extent]
		damaged = damaged || h.Bad|h.Suspect != 0
		differ = differ || h.Sum != j.hashes[source][extent].Sum
		if (h.Bad|h.Suspect)&mask == 0 {
			intact |= bit(i)
		}
		if h.Suspect&mask != 0 {
			unsure |= bit(i)
		}
	}
	if !j.divergent && !c.unsure.has(j.chunk) {
		// Every checksum here was taken since: what fails it is damage.
		unsure = 0
	}
	switch {
	case !damaged && !differ, !j.divergent && (!damaged || intact == c.iss):
		return 0, 0, false
	case intact.has(source):
		return source, 0, true
	case intact != 0:
		return intact.first(), 0, true
	case unsure.has(source):
		return source, block.FlagAcceptSuspect, true
	case unsure != 0:
		return unsure.first(), block.FlagAcceptSuspect, true
	default:
		// Lost everywhere: reads of it fail (rule 19), nothing is invented.
		return 0, 0, false
	}
}

// reportDifferences tells of extents outside the divergent set that differ
// between members though all verify: never repaired silently (rule 30).
func (c *Core) reportDifferences(j *job) {
	source := c.repairSource()
	for e := range block.ExtentsPerChunk {
		for i := range c.iss.all() {
			h, s := &j.hashes[i][e], &j.hashes[source][e]
			if h.Bad|h.Suspect|s.Bad|s.Suspect == 0 && h.Sum != s.Sum {
				c.emit(Effect{Kind: EffectNotice, Notice: Notice{
					Kind: NoticeDiffer, Replica: c.peers[i].id, Bytes: block.ExtentSize,
					Offset: j.span.Offset + int64(e)*block.ExtentSize,
				}})
			}
		}
	}
}

// judge adds to a run who has block b of the chunk wrong.
func (c *Core) judge(j *job, b int, r *run) {
	extent, mask := b/block.BlocksPerExtent, uint16(1)<<uint(b%block.BlocksPerExtent)
	for i := range (c.iss &^ bit(r.provider)).all() {
		h := &j.hashes[i][extent]
		damaged := (h.Bad|h.Suspect)&mask != 0
		r.damaged = r.damaged || damaged
		if damaged || j.divergent && h.Sum != j.hashes[r.provider][extent].Sum {
			r.wrong |= bit(i)
		}
	}
}

// wrongBytes is what a replica had wrong in a chunk: so many bytes, the first at an
// offset.
type wrongBytes struct {
	bytes, offset int64
	damaged       bool
}

// tally notes that a run was rewritten.
func (j *job) tally() {
	for len(j.wrong) < len(j.hashes) {
		j.wrong = append(j.wrong, wrongBytes{})
	}
	for i := range j.run.wrong.all() {
		w := &j.wrong[i]
		if w.bytes == 0 {
			w.offset = j.run.span.Offset
		}
		w.bytes += j.run.span.Length
		w.damaged = w.damaged || j.run.damaged
	}
}

// reportRepaired tells whose bytes a repair has rewritten.
func (c *Core) reportRepaired(j *job) {
	for i := range j.wrong {
		if w := &j.wrong[i]; w.bytes > 0 {
			c.noteRepaired(i, block.Span{Offset: w.offset, Length: w.bytes}, w.damaged)
		}
	}
}

// noteRepaired tells of bytes of a replica that were rewritten from a peer, because
// they were damaged or only because they may have differed (rule 18).
func (c *Core) noteRepaired(i int, span block.Span, damaged bool) {
	n := Notice{Kind: NoticeRepaired, Replica: c.peers[i].id, Offset: span.Offset, Bytes: span.Length}
	if m := c.view.Member(n.Replica); m != nil {
		n.Node, n.Disk = m.Node, m.Disk
	}
	if damaged {
		n.Err = block.ErrChecksum
	}
	c.emit(Effect{Kind: EffectNotice, Notice: n})
}
