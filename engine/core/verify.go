package core

import "github.com/holdfast-io/holdfast/internal/block"

// trust accepts what a reopened member holds in its unflushed set, because it
// lacks nothing and nobody else knows better: a lone member, or one that was
// opened again at the same epoch and is sent everything unanswered again. Its
// regions stay in the logs until every suspect block of them has been read once
// and its checksum taken as found; else the old ones would call them corrupt.
func (c *Core) trust(i int) {
	p := &c.peers[i]
	if p.log.Empty() {
		return
	}
	p.acceptSuspect = true
	c.unsure.add(c.view.Size, p.log)
}

// startVerify begins to verify one more chunk. It takes no range: a read of its
// own changes nothing that anybody sees.
func (c *Core) startVerify() bool {
	if c.now < c.unsureUntil {
		return false
	}
	chunk := c.unsure.next(c.verifying)
	if chunk < 0 {
		return false
	}
	i := c.startJob(-1, chunk)
	if i < 0 {
		return false
	}
	c.jobs[i].verify = true
	c.jobs[i].state = jobReady
	c.advanceJob(i)
	return true
}

func (c *Core) verifying(chunk int64) bool {
	for i := range c.jobs {
		if j := &c.jobs[i]; j.used && j.verify && j.chunk == chunk {
			return true
		}
	}
	return false
}

// hashForVerify asks the members that are trusted which blocks are suspect.
func (c *Core) hashForVerify(i int) {
	var trusted set
	for k := range c.iss.all() {
		if c.peers[k].acceptSuspect {
			trusted |= bit(k)
		}
	}
	if trusted == 0 {
		c.verified(i)
		return
	}
	c.hash(i, trusted)
}

// verifyNext reads the next extent with suspect blocks. The cursor goes through
// the extents of one member after the other.
func (c *Core) verifyNext(i int) {
	j := &c.jobs[i]
	for ; j.block < len(c.peers)*block.ExtentsPerChunk; j.block++ {
		k, e := j.block/block.ExtentsPerChunk, j.block%block.ExtentsPerChunk
		if !j.hashed.has(k) || j.hashes[k][e].Suspect == 0 {
			continue
		}
		j.block++
		first := j.span.Offset + int64(e)*block.ExtentSize
		j.run = run{provider: k, flags: block.FlagAcceptSuspect, span: block.Span{
			Offset: first, Length: min(block.ExtentSize, j.span.End()-first),
		}}
		j.state = jobReading
		c.call(k, forJob, i, j.stamp, block.Request{
			Op: block.OpRead, Flags: j.run.flags | block.FlagResync,
			Offset: j.run.span.Offset, Length: j.run.span.Length,
		})
		return
	}
	c.verified(i)
}

// verifyLater leaves a chunk that cannot be read now among the unsure ones, and so
// its region in the logs.
func (c *Core) verifyLater(i int) {
	c.unsureUntil = c.now + block.Instant(c.cfg.Timing.ConnectRetry)
	c.endJob(i)
}

func (c *Core) verified(i int) {
	c.unsure.remove(c.jobs[i].chunk)
	if c.unsure.count == 0 {
		for k := range c.peers {
			c.peers[k].acceptSuspect = false
		}
	}
	c.endJob(i)
}
