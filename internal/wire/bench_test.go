package wire

import (
	"fmt"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/turn"
)

// depthReceiver gives a place back for each reply.
type depthReceiver struct{ places chan struct{} }

func (r *depthReceiver) Receive(rep block.Reply, _ *turn.Turn) {
	rep.Buf.Release()
	r.places <- struct{}{}
}

func (r *depthReceiver) Lost(err error) { panic(err) }

// BenchmarkWrite sends writes over loopback to a replica that answers at once:
// what is measured is the wire of both ends.
func BenchmarkWrite(b *testing.B) {
	for _, size := range []int{4 << 10, 1 << 20} {
		for _, depth := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("size=%d/depth=%d", size, depth), func(b *testing.B) {
				benchmark(b, size, depth, block.OpWrite)
			})
		}
	}
}

// BenchmarkRead is the same the other way round.
func BenchmarkRead(b *testing.B) {
	for _, depth := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("size=4096/depth=%d", depth), func(b *testing.B) { benchmark(b, 4096, depth, block.OpRead) })
	}
}

func benchmark(b *testing.B, size, depth int, op block.Op) {
	n := startNode(b, newAcceptor(echo), nil)
	recv := &depthReceiver{places: make(chan struct{}, depth)}
	link, err := Dial(b.Context(), n.config(), recv)
	if err != nil {
		b.Fatal(err)
	}
	for range depth {
		recv.places <- struct{}{}
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	seq := uint64(0)
	for b.Loop() {
		<-recv.places
		seq++
		req := block.Request{Op: op, Length: int64(size), Seq: seq}
		if op == block.OpWrite {
			req.Buf = block.NewBuffer(size)
		}
		link.Send(req, nil)
	}
	for range depth {
		<-recv.places
	}
	b.StopTimer()
	_ = link.Close()
	await(b, link.(*remoteLink).Done())
}
