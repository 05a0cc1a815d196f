package core

import (
	"github.com/holdfast-io/holdfast/internal/block"
)

// divergence is a set of chunks: those that may differ between members (rule 18),
// or those that a member has yet to take checksums of.
type divergence struct {
	chunkSet
	// from is where the search for background repairs goes on.
	from block.Region
	// source is the one member that repairs copy from, or -1.
	source int
}

// region reports whether any chunk of a region is divergent.
func (d *divergence) region(r block.Region) bool { return d.in(r) != 0 }

// next is a divergent chunk for which skip is false, or -1. The search goes
// round the volume.
func (d *divergence) next(skip func(chunk int64) bool) int64 {
	k := d.chunkSet.next(d.from, skip)
	if k >= 0 {
		d.from, _ = chunkPlace(k)
	}
	return k
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
		c.divide.addRegions(c.view.Size, logs)
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

// repairing reports whether a repair of the chunk runs; that of an extent by a scrub
// is none.
func (c *Core) repairing(chunk int64) bool {
	for i := range c.jobs {
		if j := &c.jobs[i]; j.used && j.target < 0 && !j.verify && j.scrub.walk == 0 && j.chunk == chunk {
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
	// wrong are the members that have something else; damaged are those of them whose
	// copy does not verify. Both hold for every block of the run.
	wrong, damaged set
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
		found.wrong, found.damaged = c.judge(j, j.block, provider)
		n := 1
		for (j.block+n)%block.BlocksPerExtent != 0 {
			p, f, more := c.provider(j, j.block+n)
			if !more || p != provider || f != flags {
				break
			}
			if wrong, damaged := c.judge(j, j.block+n, p); wrong != found.wrong || damaged != found.damaged {
				break
			}
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
// between members though all verify: never repaired silently (rule 30). Told is who
// differs from most, or from the source of repairs if there is no such thing.
func (c *Core) reportDifferences(j *job) {
	for e := range block.ExtentsPerChunk {
		most := c.mostAlike(j, e)
		for i := range c.iss.all() {
			h, s := &j.hashes[i][e], &j.hashes[most][e]
			if h.Bad|h.Suspect|s.Bad|s.Suspect == 0 && h.Sum != s.Sum {
				c.noteBytes(NoticeDiffer, i, j.layer, j.extent(e), nil)
			}
		}
	}
}

// mostAlike is a member whose intact copy of an extent more members have than any other.
func (c *Core) mostAlike(j *job, e int) int {
	best, votes := c.repairSource(), 0
	for _, who := range []set{bit(best), c.iss &^ bit(best)} {
		for i := range who.all() {
			h, n := &j.hashes[i][e], 0
			for k := range c.iss.all() {
				if o := &j.hashes[k][e]; h.Bad|h.Suspect|o.Bad|o.Suspect == 0 && h.Sum == o.Sum {
					n++
				}
			}
			if n > votes {
				best, votes = i, n
			}
		}
	}
	return best
}

// judge tells who has block b of the chunk wrong, and who damaged, seen from whom it
// is rewritten from.
func (c *Core) judge(j *job, b, provider int) (wrong, damaged set) {
	extent, mask := b/block.BlocksPerExtent, uint16(1)<<uint(b%block.BlocksPerExtent)
	for i := range (c.iss &^ bit(provider)).all() {
		h := &j.hashes[i][extent]
		switch {
		case (h.Bad|h.Suspect)&mask != 0:
			wrong |= bit(i)
			damaged |= bit(i)
		case j.divergent && h.Sum != j.hashes[provider][extent].Sum:
			wrong |= bit(i)
		}
	}
	return wrong, damaged
}

// wrongBytes is what a replica had wrong in a chunk: so many bytes that may have
// differed only, the first at an offset, and the damage found last.
type wrongBytes struct {
	bytes, offset int64
	damage        block.Span
}

// tally notes that a run was rewritten. Damage is told place by place: it says where
// a disk is going bad.
func (c *Core) tally(j *job) {
	for len(j.wrong) < len(j.hashes) {
		j.wrong = append(j.wrong, wrongBytes{})
	}
	j.mend()
	span := j.run.span
	for i := range j.run.wrong.all() {
		w := &j.wrong[i]
		switch {
		case !j.run.damaged.has(i):
			if w.bytes == 0 {
				w.offset = span.Offset
			}
			w.bytes += span.Length
		case w.damage.Length > 0 && w.damage.End() == span.Offset:
			w.damage.Length += span.Length
		default:
			c.noteDamage(i, j, w)
			w.damage = span
		}
	}
}

// noteDamage tells of the damage that was repaired last.
func (c *Core) noteDamage(i int, j *job, w *wrongBytes) {
	if w.damage.Length > 0 {
		c.noteRepaired(i, j.layer, w.damage, true)
		w.damage = block.Span{}
	}
}

// reportRepaired tells whose bytes a repair has rewritten.
func (c *Core) reportRepaired(j *job) {
	for i := range j.wrong {
		w := &j.wrong[i]
		c.noteDamage(i, j, w)
		if w.bytes > 0 {
			c.noteRepaired(i, j.layer, block.Span{Offset: w.offset, Length: w.bytes}, false)
		}
		*w = wrongBytes{}
	}
}

// noteRepaired tells of bytes of a replica that were rewritten from a peer, because
// they were damaged or only because they may have differed (rule 18).
func (c *Core) noteRepaired(i int, layer block.SnapshotID, span block.Span, damaged bool) {
	var err error
	if damaged {
		err = block.ErrChecksum
	}
	c.noteBytes(NoticeRepaired, i, layer, span, err)
}

// noteBytes tells of bytes of a replica, in a snapshot or the head, and which disk it
// is on.
func (c *Core) noteBytes(kind NoticeKind, i int, layer block.SnapshotID, span block.Span, err error) {
	n := Notice{Kind: kind, Replica: c.peers[i].id, Snapshot: layer, Offset: span.Offset, Bytes: span.Length, Err: err}
	if m := c.view.Member(n.Replica); m != nil {
		n.Node, n.Disk = m.Node, m.Disk
	}
	c.emit(Effect{Kind: EffectNotice, Notice: n})
}
