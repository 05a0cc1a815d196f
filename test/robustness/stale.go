package robustness

import (
	"context"
	"net"
	"sync"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
	"github.com/holdfast-io/holdfast/test/harness/stamp"
)

// readStale reads at the volume's old place until stop is called.
func (r *round) readStale(ctx context.Context, dial func(context.Context) (net.Conn, error)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var reader sync.WaitGroup
	reader.Go(func() {
		for ctx.Err() == nil {
			r.readStaleOnce(ctx, dial)
			pause(ctx, reconnectPause)
		}
	})
	return func() {
		cancel()
		reader.Wait()
	}
}

func (r *round) readStaleOnce(ctx context.Context, dial func(context.Context) (net.Conn, error)) {
	bounded, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	socket, err := dial(bounded)
	if err != nil {
		return
	}
	client, err := nbd.Connect(bounded, socket, nbd.ClientConfig{})
	if err != nil {
		return
	}
	defer context.AfterFunc(ctx, func() { _ = client.Close() })()
	defer func() { _ = client.Close() }() // nobody asks how it ends
	buf := make([]byte, block.BlockSize)
	for i := 0; ctx.Err() == nil; i++ {
		at := int64(i%clusters) * clusterStep
		o := r.load.history.begin(op{client: staleReader, kind: nbd.KindRead, span: block.Span{Offset: at, Length: int64(len(buf))}})
		if _, err := client.ReadAt(buf, at); err != nil {
			return
		}
		values, err := stamp.Read(buf, at)
		if err != nil {
			r.load.broken(err)
			return
		}
		r.load.history.answer(o, values, nil)
		r.stale.Add(1)
	}
}
