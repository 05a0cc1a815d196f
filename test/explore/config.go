package explore

import (
	"fmt"
	"strings"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Bounds are how often each thing may still happen. What is not bounded here
// (deliveries, timers, outcomes) may happen whenever there is reason for it.
type Bounds struct {
	// Engines are further starts; older engines go on.
	Engines uint8
	// Writes, Reads and Flushes are those of clients.
	Writes, Reads, Flushes uint8
	// Links are connections that end for no other reason.
	Links uint8
	// Kills are deaths of a replica's process, Losses losses of power.
	Kills, Losses uint8
	// Unknowns are proposals whose proposer never hears the outcome.
	Unknowns uint8
	// Clears are the times that idle regions are looked for.
	Clears uint8
	// Units are the units of time that pass; a lease has two. Pauses are times
	// after which every lease, and its margin, is over.
	Units, Pauses uint8
	// Hints are views that Raft shows an engine that did not ask.
	Hints uint8
	// Detaches are clean ends of engines.
	Detaches uint8
	// PutBacks are disks that become what they were at the beginning, after others
	// have learned of a flush that is lost by it.
	PutBacks uint8
	// Snapshots are those that clients ask for; there is one at most.
	Snapshots uint8
}

// String names the bounds that are not zero, as Config.Set takes them.
func (b Bounds) String() string {
	var list []string
	for _, n := range b.named() {
		if *n.count > 0 {
			list = append(list, fmt.Sprintf("%s=%d", n.name, *n.count))
		}
	}
	return strings.Join(list, ",")
}

type namedBound struct {
	name  string
	count *uint8
}

func (b *Bounds) named() []namedBound {
	return []namedBound{
		{"engines", &b.Engines}, {"writes", &b.Writes}, {"reads", &b.Reads}, {"flushes", &b.Flushes},
		{"links", &b.Links}, {"kills", &b.Kills}, {"losses", &b.Losses}, {"unknowns", &b.Unknowns},
		{"clears", &b.Clears}, {"units", &b.Units}, {"pauses", &b.Pauses}, {"hints", &b.Hints},
		{"detaches", &b.Detaches}, {"putbacks", &b.PutBacks}, {"snapshots", &b.Snapshots},
	}
}

// Config is one exploration: how it begins, and its bounds.
type Config struct {
	Name string
	// About says what the exploration is after.
	About string
	// Quick are other bounds, as Set takes them, with which it takes a moment.
	Quick string
	// Replicas there are, of which the first Members are in sync at first. The
	// others lack the last write, as the dirty sets of the members say.
	Replicas, Members int
	MinInSync         int
	// Blocks is the size of the volume.
	Blocks int
	// Window is the number of writes that may be queued for a sync target.
	Window int
	Bounds
	// Serving: it begins with an engine that serves, else with its start.
	Serving bool
	// Apart: each block lies in a region of its own, else all in one extent.
	Apart bool
	// Suspect: checksums of overwritten blocks may be lost with a process.
	Suspect bool
	// Missed: the members hold a snapshot that the others have missed.
	Missed bool
}

// Validate reports a configuration that the explorer is not made for.
func (c *Config) Validate() error {
	switch {
	case c.Replicas < 1 || c.Replicas > maxReplicas || c.Members < 1 || c.Members > c.Replicas:
		return fmt.Errorf("%d of %d replicas in sync: %w", c.Members, c.Replicas, block.ErrInvalid)
	case c.Blocks < 1 || c.Blocks > maxBlocks || c.MinInSync < 1 || c.Window < 1:
		return fmt.Errorf("%d blocks, at least %d members, a window of %d: %w", c.Blocks, c.MinInSync, c.Window, block.ErrInvalid)
	case c.Missed && c.Members == c.Replicas || c.Snapshots > 1 || int(c.Reads)+int(c.Snapshots)*c.Blocks > maxReads:
		return fmt.Errorf("a missed snapshot, %d more and %d reads: %w", c.Snapshots, c.Reads, block.ErrInvalid)
	case (c.Missed || c.Snapshots > 0) && (c.Losses > 0 || c.PutBacks > 0 || c.Suspect):
		return fmt.Errorf("snapshots beside losses of power: %w", block.ErrInvalid)
	case c.Engines >= maxEngines || c.Writes > maxWrites || c.Reads > maxReads || c.Flushes > maxFlushes:
		return fmt.Errorf("bounds %+v: at most %d engines, %d writes, %d reads and %d flushes: %w", c.Bounds,
			maxEngines, maxWrites, maxReads, maxFlushes, block.ErrInvalid)
	}
	return nil
}

func (c *Config) spacing() spacing { return spacing(c.Apart) }

// requests are the most that clients may have in flight.
func (c *Config) requests() int { return max(1, int(c.Writes)+int(c.Reads)+int(c.Flushes)) }
