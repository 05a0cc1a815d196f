package nbd_test

import (
	"encoding/binary"
	"io"
	"net"
	"testing"

	"github.com/holdfast-io/holdfast/internal/nbd"
	"github.com/holdfast-io/holdfast/internal/nbd/nbdtest"
)

// pipeline is a client that sends depth requests at once and reads as many
// replies, without a single allocation of its own.
type pipeline struct {
	socket   net.Conn
	requests []byte
	replies  []byte
}

func newPipeline(socket net.Conn, command uint16, depth, length int) *pipeline {
	p := &pipeline{socket: socket}
	for i := range depth {
		var payload []byte
		if command == write {
			payload = make([]byte, length)
		}
		p.requests = append(p.requests, rawRequest(command, 0, uint64(i), uint64(i*length), uint32(length), payload)...)
	}
	reply := 16
	if command == read {
		reply += length
	}
	p.replies = make([]byte, depth*reply)
	return p
}

func (p *pipeline) round(t testing.TB) {
	if _, err := p.socket.Write(p.requests); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(p.socket, p.replies); err != nil {
		t.Fatal(err)
	}
	if errno := binary.BigEndian.Uint32(p.replies[4:]); errno != 0 {
		t.Fatal(nbd.Errno(errno))
	}
}

func TestSteadyStateDoesNotAllocate(t *testing.T) {
	for name, command := range map[string]uint16{"read": read, "write": write} {
		t.Run(name, func(t *testing.T) {
			const depth, rounds = 16, 500
			c, _ := serveDisk(t, nil)
			p := newPipeline(c.client, command, depth, 4096)
			for range 50 {
				p.round(t)
			}
			perRound := testing.AllocsPerRun(rounds, func() { p.round(t) })
			// A garbage collection may empty the pool of buffers once; one
			// allocation per request would be 16 a round. The race detector makes
			// pools forget on purpose; the rounds still run under it.
			if perRound > 1 && !raceEnabled {
				t.Fatalf("%.1f allocations for %d requests", perRound, depth)
			}
		})
	}
}

func BenchmarkServer(b *testing.B) {
	for _, bench := range []struct {
		name          string
		command       uint16
		depth, length int
	}{
		{"read/4KiB/qd1", read, 1, 4096},
		{"read/4KiB/qd16", read, 16, 4096},
		{"read/4KiB/qd64", read, 64, 4096},
		{"write/4KiB/qd1", write, 1, 4096},
		{"write/4KiB/qd16", write, 16, 4096},
		{"write/4KiB/qd64", write, 64, 4096},
		{"read/1MiB/qd4", read, 4, 1 << 20},
		{"write/1MiB/qd4", write, 4, 1 << 20},
	} {
		b.Run(bench.name, func(b *testing.B) {
			c, _ := serveDisk(b, nil)
			_ = c.client.SetDeadline(noDeadline)
			p := newPipeline(c.client, bench.command, bench.depth, bench.length)
			b.SetBytes(int64(bench.length))
			b.ReportAllocs()
			b.ResetTimer()
			for n := 0; n < b.N; n += bench.depth {
				p.round(b)
			}
		})
	}
}

func BenchmarkClient(b *testing.B) {
	dial := startServer(b, nbd.ServerConfig{Exports: nbdtest.Exports{"v": nbdtest.NewMemory(nbdtest.Info("v", testSize, 4096))}})
	client := connect(b, dial, nbd.ClientConfig{Export: "v"})
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		page := make([]byte, 4096)
		for pb.Next() {
			if _, err := client.ReadAt(page, 0); err != nil {
				b.Error(err)
			}
		}
	})
}
