package explore

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/holdfast-io/holdfast/internal/block"
)

// Configs are the explorations that `make explore` makes, one after the other.
// Each is complete within its bounds; together they take minutes. `make test` makes
// them with the bounds that they name for it.
func Configs() []Config {
	base := Config{Replicas: 2, Members: 2, MinInSync: 1, Blocks: 1, Window: 2, Serving: true}
	with := func(name, about, quick string, b Bounds, change ...func(*Config)) Config {
		c := base
		c.Name, c.About, c.Quick, c.Bounds = name, about, quick, b
		for _, f := range change {
			f(&c)
		}
		return c
	}
	behind := func(c *Config) { c.Members = 1 }
	return []Config{
		with("write", "writes, reads and a lost connection under one engine", "writes=1,reads=1",
			Bounds{Writes: 2, Reads: 2, Links: 1}),
		with("resync", "a replica that lacks something returns while clients write", "reads=0,links=0",
			Bounds{Writes: 1, Reads: 1, Links: 1}, behind),
		with("return", "it returns to the first engine or to the second", "pauses=0,writes=0",
			Bounds{Engines: 1, Writes: 1, Pauses: 1}, behind),
		with("handover", "another engine starts while the first goes on, and may do without a replica", "pauses=0",
			Bounds{Engines: 1, Writes: 1, Reads: 1, Pauses: 1}),
		with("crash-attach", "three engines, each of which may die at any step of its attach", "engines=1",
			Bounds{Engines: 2, Writes: 1, Clears: 1}),
		with("lease", "time passes by half leases while two engines read", "",
			Bounds{Engines: 1, Writes: 1, Reads: 1, Units: 3, Hints: 1}),
		with("loss", "power is lost before, during and after another engine's attach", "engines=0",
			Bounds{Engines: 1, Writes: 1, Reads: 1, Losses: 1}),
		with("unknown", "the outcome of an admission or a removal is not known", "engines=0",
			Bounds{Engines: 1, Writes: 1, Unknowns: 1}, behind),
		with("clear", "intent logs are cleared while a connection is lost", "flushes=0",
			Bounds{Writes: 1, Flushes: 1, Links: 1, Clears: 1}),
		with("kill", "processes die and checksums with them", "kills=1",
			Bounds{Writes: 1, Kills: 2}, func(c *Config) { c.Suspect = true }),
		with("detach", "an engine is detached while another starts", "engines=0",
			Bounds{Engines: 1, Writes: 1, Flushes: 1, Detaches: 1}),
		with("blocks", "two blocks in one extent", "",
			Bounds{Engines: 1, Writes: 2, Reads: 1}, func(c *Config) { c.Blocks = 2 }),
		with("three", "three replicas, of which a connection is lost", "writes=1,reads=0",
			Bounds{Writes: 2, Reads: 1, Links: 1}, func(c *Config) { c.Replicas, c.Members = 3, 3 }),
		with("three-crash", "three replicas, of whom another engine may do without some, with outcomes that are not known", "reads=0,unknowns=0",
			Bounds{Engines: 1, Writes: 1, Reads: 1, Unknowns: 1}, func(c *Config) { c.Replicas, c.Members = 3, 3 }),
		with("takeover", "two replicas return at once", "",
			Bounds{Writes: 1}, func(c *Config) { c.Replicas = 3 }, behind),
		with("regions", "two regions are written, cleared and resynced apart from each other", "links=0",
			Bounds{Writes: 2, Links: 1, Clears: 1}, func(c *Config) { c.Blocks, c.Apart = 2, true }),
		with("putback", "a disk becomes what it was before flushes that others know of", "writes=1,clears=0",
			Bounds{Writes: 1, Flushes: 2, PutBacks: 1, Clears: 1}),
		with("third", "a third replica returns to either of two engines, with outcomes that are not known", "engines=0",
			Bounds{Engines: 1, Unknowns: 1}, func(c *Config) { c.Replicas, c.Members = 3, 2 }),
		with("minimum", "two members must have everything, one is lost", "flushes=0,reads=0",
			Bounds{Writes: 1, Reads: 1, Flushes: 1, Links: 1}, func(c *Config) { c.MinInSync = 2 }),
		with("snapshot", "a snapshot is taken while clients write and a connection is lost", "links=0",
			Bounds{Writes: 1, Links: 1, Snapshots: 1}),
		with("snapshot-kill", "processes die while one is taken", "writes=0",
			Bounds{Writes: 1, Kills: 1, Snapshots: 1}),
		with("snapshot-handover", "another engine starts while one is taken", "writes=0",
			Bounds{Engines: 1, Writes: 1, Snapshots: 1}),
		with("snapshot-missed", "a replica that has missed a snapshot returns while another is taken", "snapshots=0",
			Bounds{Writes: 1, Snapshots: 1}, behind, func(c *Config) { c.Missed = true }),
	}
}

// ConfigNamed finds a configuration.
func ConfigNamed(name string) (Config, error) {
	for _, c := range Configs() {
		if c.Name == name {
			return c, nil
		}
	}
	return Config{}, fmt.Errorf("configuration %q: %w", name, block.ErrNotFound)
}

// Set changes a configuration as "writes=2,links=1" says.
func (c *Config) Set(list string) error {
	for _, setting := range strings.Split(list, ",") {
		name, text, _ := strings.Cut(setting, "=")
		n, err := strconv.ParseUint(text, 10, 8)
		if err != nil {
			return fmt.Errorf("setting %q: %w", setting, block.ErrInvalid)
		}
		bounds := make(map[string]*uint8)
		for _, b := range c.named() {
			bounds[b.name] = b.count
		}
		numbers := map[string]*int{
			"replicas": &c.Replicas, "members": &c.Members, "minimum": &c.MinInSync, "blocks": &c.Blocks, "window": &c.Window,
		}
		switches := map[string]*bool{"serving": &c.Serving, "suspect": &c.Suspect, "apart": &c.Apart, "missed": &c.Missed}
		switch {
		case bounds[name] != nil:
			*bounds[name] = uint8(n)
		case numbers[name] != nil:
			*numbers[name] = int(n)
		case switches[name] != nil:
			*switches[name] = n != 0
		default:
			return fmt.Errorf("setting %q: %w", setting, block.ErrInvalid)
		}
	}
	return nil
}
