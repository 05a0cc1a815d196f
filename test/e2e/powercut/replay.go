package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"

	"github.com/holdfast-io/holdfast/test/crash/sectors"
)

// turns is the number of flushes of a workload.
const turns = 10

// segment is the time between two marks: what was flushed at its beginning, and what
// may be there until its end.
type segment struct{ flushed, until *sectors.Model }

// between is what may be found between two moments: all that was written until the
// second; of cuts only those of the first are sure.
func between(first, second *sectors.Model) *sectors.Model {
	m := second.Clone()
	for _, q := range m.Cuts {
		i := slices.IndexFunc(first.Cuts, func(c *sectors.Cut) bool { return c.Name == q.Name })
		q.Acked = i >= 0 && first.Cuts[i].Acked
		q.Flushed = i >= 0 && first.Cuts[i].Flushed
	}
	return m
}

func replay(ctx context.Context, kind, disk, log, copied, scratch string) error {
	segments, err := record(ctx, kind, disk, log)
	if err != nil {
		return fmt.Errorf("workload on %s: %w", kind, err)
	}
	size, err := sectorsOf(ctx, copied)
	if err != nil {
		return err
	}
	file, err := os.Open(log)
	if err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	defer file.Close()
	entries, err := readLog(file)
	if err != nil {
		return err
	}
	target, err := os.OpenFile(copied, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	p := &player{
		kind: kind, log: file, target: target, entries: entries, segments: segments, random: rand.New(rand.NewPCG(3, 3)),
		table: fmt.Sprintf("0 %s snapshot %s %s N 8", size, copied, scratch),
	}
	if err := errors.Join(p.play(ctx), target.Close()); err != nil {
		return fmt.Errorf("replay on %s: %w", kind, err)
	}
	fmt.Printf("%s: %d entries, %d marks, %d crash states\n", kind, len(entries), len(segments), p.states)
	return nil
}

// record runs the workload above dm-log-writes.
func record(ctx context.Context, kind, disk, log string) (segments []segment, err error) {
	size, err := sectorsOf(ctx, disk)
	if err != nil {
		return nil, err
	}
	device, err := mapped(ctx, "logged", fmt.Sprintf("0 %s log-writes %s %s", size, disk, log))
	if err != nil {
		return nil, err
	}
	if err := makeFileSystem(ctx, kind, device); err != nil {
		return nil, err
	}
	path, err := mount(ctx, kind, device)
	if err != nil {
		return nil, err
	}
	l, err := newLoad(path, 1)
	if err != nil {
		return nil, err
	}
	mark := func() error {
		segments = append(segments, segment{flushed: l.model.Clone()})
		_, err := command(ctx, "dmsetup", "message", "logged", "0", "mark", strconv.Itoa(len(segments)-1))
		return err
	}
	err = mark()
	for turn := 0; turn < turns && err == nil; turn++ {
		last := &segments[len(segments)-1]
		if err = l.turn(); err == nil {
			err = l.flush(func() { last.until = between(last.flushed, l.model) })
		}
		if err == nil {
			err = mark()
		}
	}
	segments[len(segments)-1].until = l.model.Clone()
	return segments, errors.Join(err, l.close(), all(ctx, "umount "+path, "dmsetup remove logged"))
}

// player replays a log onto a device.
type player struct {
	kind     string
	log      *os.File
	target   *os.File
	table    string
	entries  []entry
	segments []segment
	random   *rand.Rand
	// at is the segment that the device is in, -1 before the first; states counts.
	at, states int
}

// boundary reports whether everything before is durable when e is.
func (e *entry) boundary() bool { return e.flags&(logFlush|logFUA|logMark) != 0 }

// oneIn is how many boundaries pass for one after which crashes are made.
const oneIn = 2

// play looks at the device at each mark, and after some boundaries with parts of what
// is not durable then.
func (p *player) play(ctx context.Context) error {
	p.at = -1
	for i := range p.entries {
		e := &p.entries[i]
		if err := e.apply(p.log, p.target); err != nil {
			return err
		}
		if e.mark == logEnd {
			break
		}
		if e.mark != "" {
			number, err := strconv.Atoi(e.mark)
			if err != nil || number != p.at+1 || number >= len(p.segments) {
				return fmt.Errorf("mark %q after number %d", e.mark, p.at)
			}
			p.at = number
			if err := p.look(ctx, nil, p.segments[number].flushed); err != nil {
				return fmt.Errorf("at mark %d: %w", number, err)
			}
			if err := p.plant(ctx); err != nil {
				return err
			}
		}
		if p.at < 0 || !e.boundary() || p.random.IntN(oneIn) > 0 {
			continue
		}
		next := slices.IndexFunc(p.entries[i+1:], func(e entry) bool { return e.boundary() })
		if next < 1 {
			continue
		}
		lossy := p.entries[i+1 : i+1+next]
		part := slices.DeleteFunc(slices.Clone(lossy), func(entry) bool { return p.random.IntN(2) == 0 })
		for _, kept := range [][]entry{part, lossy[:1+p.random.IntN(len(lossy))]} {
			if err := p.look(ctx, kept, p.segments[p.at].until); err != nil {
				return fmt.Errorf("after entry %d of %d, with %d of the next %d, behind mark %d: %w", i, len(p.entries), len(kept), len(lossy), p.at, err)
			}
		}
	}
	if p.at != len(p.segments)-1 {
		return fmt.Errorf("the log has marks up to %d, %d were made", p.at, len(p.segments))
	}
	return nil
}

// plant shows, once, that what was not flushed is missed.
func (p *player) plant(ctx context.Context) error {
	if p.at != len(p.segments)/2 {
		return nil
	}
	if err := p.look(ctx, nil, p.segments[p.at+1].flushed); err == nil {
		return fmt.Errorf("at mark %d there is all that was flushed at the next", p.at)
	}
	return nil
}

// look mounts a copy of the device with some more entries, and opens the store there.
func (p *player) look(ctx context.Context, kept []entry, model *sectors.Model) error {
	p.states++
	if err := p.target.Sync(); err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	device, err := mapped(ctx, "shot", p.table)
	if err != nil {
		return err
	}
	err = p.lookAt(ctx, device, kept, model)
	_, removeErr := command(ctx, "dmsetup", "remove", "--retry", "shot")
	return errors.Join(err, removeErr)
}

func (p *player) lookAt(ctx context.Context, device string, kept []entry, model *sectors.Model) error {
	file, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	for i := range kept {
		err = errors.Join(err, kept[i].apply(p.log, file))
	}
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	path, err := mount(ctx, p.kind, device)
	if err != nil {
		return err
	}
	return errors.Join(look(path, model), all(ctx, "umount "+path), os.Remove(path))
}
