package engine

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/vfs"
)

// logLines collects what is logged, a JSON object for each line.
type logLines struct {
	mu    sync.Mutex
	lines []map[string]any
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var line map[string]any
	if err := json.Unmarshal(p, &line); err != nil {
		return 0, err
	}
	l.lines = append(l.lines, line)
	return len(p), nil
}

// find is the first line with this message and level.
func (l *logLines) find(level, message string) map[string]any {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if line["msg"] == message && line["level"] == level {
			return line
		}
	}
	return nil
}

// rot flips a bit of a block on the node's disk, found by its bytes.
func (n *node) rot(data []byte) {
	n.world.t.Helper()
	buf := block.NewBuffer(block.BlockSize)
	defer buf.Release()
	for at := int64(0); at < n.device.Size(); at += block.BlockSize {
		err := vfs.Do(n.device, &vfs.IO{Kind: vfs.Read, Offset: at, Length: block.BlockSize, Data: buf.Data})
		if err == nil && bytes.Equal(buf.Data, data) {
			n.device.Flip(at+100, 3)
			return
		}
	}
	n.world.t.Fatal("the block is not on the disk")
}

// TestRotIsRepairedAndReported: a client reads a block that has rotted on the disk
// of its own node. It gets the bytes from another one; the block is repaired, and
// the damage is counted and logged with the disk and the place. When nobody has it,
// that is logged for each disk.
func TestRotIsRepairedAndReported(t *testing.T) {
	w := newWorld(t, 3)
	id := w.volume(volumeSize)
	lines := &logLines{}
	registry := prometheus.NewRegistry()
	metrics, err := NewMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	e := w.startEngine(id, func(c *Config) {
		c.Logger = slog.New(slog.NewJSONHandler(lines, &slog.HandlerOptions{Level: slog.LevelWarn}))
		c.Metrics = metrics
	})
	await(t, "the engine to serve", e.Serving())
	const offset = 1<<20 + 3*block.BlockSize
	data := noise(t, block.BlockSize)
	write(t, e, offset, data)
	do(t, e, core.Request{Kind: core.FlushRequest}, nil)

	mine := w.nodes[0]
	mine.rot(data)
	read := core.Request{Kind: core.ReadRequest, Offset: offset, Length: block.BlockSize}
	if got := do(t, e, read, nil); !bytes.Equal(got, data) {
		t.Error("the client read something else")
	}
	var line map[string]any
	eventually(t, "a line about the repair", func() bool {
		line = lines.find("WARN", "damage on a disk repaired from a peer")
		return line != nil
	})
	view := w.view(id)
	for _, m := range view.Replicas {
		if m.Node == mine.id && line["replica"] != m.ID.String() {
			t.Errorf("replica %v was reported", line["replica"])
		}
	}
	if line["node"] != mine.id.String() || line["disk"] != mine.disk.String() ||
		line["offset"] != float64(offset) || line["bytes"] != float64(block.BlockSize) {
		t.Errorf("reported as %v", line)
	}
	if got := counted(t, registry, "repaired_bytes_total"); got != block.BlockSize {
		t.Errorf("%v bytes were counted as repaired", got)
	}
	if got := mine.content(id)[offset : offset+block.BlockSize]; !bytes.Equal(got, data) {
		t.Error("the block is not repaired")
	}

	for _, n := range w.nodes {
		n.rot(data)
	}
	if _, err := submit(t, e, read, nil).wait(); err == nil {
		t.Error("bytes that nobody has were read")
	}
	if line := lines.find("ERROR", "no in-sync replica has these bytes intact"); line == nil || line["offset"] != float64(offset) {
		t.Errorf("reported as %v", line)
	}
	if repaired, lost := damagedBlocks(t, registry, mine.disk, "repaired"), damagedBlocks(t, registry, mine.disk, "lost"); repaired != 1 || lost != 1 {
		t.Errorf("%v blocks of the disk were counted as repaired, %v as lost", repaired, lost)
	}
	if view := w.view(id); view.InSync() != 3 {
		t.Error("a member was removed")
	}
}
