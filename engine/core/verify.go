package core

import "github.com/holdfast-io/holdfast/internal/block"

// trust notes that a reopened member, which lacks nothing, may have lost the
// checksums of what it took since its last flush: a lone member, or one that was
// opened again at the same epoch and is sent everything unanswered again. Its
// regions stay in the logs until every suspect block of them was compared with the
// other members' or, without another, read once and its checksum taken as found;
// else the old ones would call them corrupt.
func (c *Core) trust(i int) {
	p := &c.peers[i]
	if p.log.Empty() {
		return
	}
	c.unsure.addRegions(c.view.Size, p.log)
	c.judgeSuspects()
}

// judgeSuspects decides who may be asked for suspect bytes as they are: a lone
// member, because nobody knows better. Else an intact copy wins. What it refused while
// there were others, it is asked for again.
func (c *Core) judgeSuspects() {
	for i := range c.peers {
		accept := c.unsure.count > 0 && c.iss == bit(i)
		for k := range c.requests {
			if accept && !c.peers[i].acceptSuspect {
				c.requests[k].tried &^= bit(i)
			}
		}
		c.peers[i].acceptSuspect = accept
	}
}

// sure notes that every block of a chunk has its checksum again, where that can be.
func (c *Core) sure(chunk int64) {
	c.unsure.remove(chunk)
	c.judgeSuspects()
}

// startVerify begins to verify one more chunk. With a lone member that takes no
// range: a read of its own changes nothing that anybody sees. Several members are
// compared, as after a read that failed; a frozen write keeps its range, and must
// not keep all slots from the copies that would thaw it.
func (c *Core) startVerify() bool {
	if c.now < c.unsureUntil {
		return false
	}
	chunk := c.unsure.next(c.verifying)
	if chunk < 0 {
		return false
	}
	if c.iss.count() > 1 {
		if !c.locks.idle(c.chunkSpan(chunk)) && c.waitingJobs()+1 > len(c.jobs)/2 {
			return false
		}
		return c.startRepair(chunk, c.divide.has(chunk))
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
		if j := &c.jobs[i]; j.used && j.target < 0 && j.chunk == chunk {
			return true
		}
	}
	return false
}

// hashForVerify asks the lone member which blocks are suspect. When there is
// another by now, the chunk is compared instead.
func (c *Core) hashForVerify(i int) {
	if c.iss.count() > 1 {
		c.endJob(i)
		return
	}
	c.hash(i, c.iss)
}

// verifyNext reads the next extent with suspect blocks.
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
	c.sure(c.jobs[i].chunk)
	c.endJob(i)
}
