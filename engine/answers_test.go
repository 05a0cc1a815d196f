package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
)

// answers are what becomes of each error with which a request may end: the error
// that a client is told, or nil if it is told nothing and asks again.
func answers() map[error]error {
	return map[error]error{
		block.ErrInvalid:     nbd.EINVAL,
		block.ErrIO:          nbd.EIO,
		block.ErrDetached:    nbd.ESHUTDOWN,
		block.ErrStaleEpoch:  nil,
		block.ErrUnavailable: nil,
	}
}

// endingWith completes each request with the next of its errors, then with none.
type endingWith struct {
	mu   sync.Mutex
	errs []error
	seen int
}

func (b *endingWith) Submit(r *nbd.Request) {
	b.mu.Lock()
	var err error
	if b.seen++; len(b.errs) > 0 {
		err, b.errs = b.errs[0], b.errs[1:]
	}
	b.mu.Unlock()
	r.Complete(err, nil)
}

// TestAnswers: every error with which the core or the engine may end a request has
// its answer here, and a real server and client agree. No other one may reach a
// client.
func TestAnswers(t *testing.T) {
	table := answers()
	for _, err := range core.Completions() {
		if _, ok := table[err]; !ok {
			t.Errorf("%q has no answer", err)
		}
	}
	for err := range table {
		if !slices.Contains(core.Completions(), err) && err != block.ErrUnavailable {
			t.Errorf("%q is not an error of the core or the engine", err)
		}
	}
	for _, err := range block.Sentinels() {
		want, may := table[err]
		if !may {
			continue
		}
		t.Run(err.Error(), func(t *testing.T) {
			backend := &endingWith{errs: []error{fmt.Errorf("volume 7: %w", err)}}
			got := writeThrough(t, backend)
			switch {
			case want == nil && (got != nil || backend.seen != 2):
				t.Errorf("the client was told %v and asked %d times, want an answer by whoever is asked next", got, backend.seen)
			case want != nil && !errors.Is(got, want):
				t.Errorf("the client was told %v, want %v", got, want)
			}
		})
	}
}

// writeThrough writes a block by a client that asks again, as the kernel does, over
// a server as the frontends have it.
func writeThrough(t *testing.T, backend nbd.Backend) error {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var serving sync.WaitGroup
	defer serving.Wait()
	defer cancel()
	client, err := nbd.NewResilient(nbd.ResilientConfig{
		ClientConfig: nbd.ClientConfig{Export: "device", MaxInFlight: 4}, Size: volumeSize,
		Dial: func(context.Context) (net.Conn, error) {
			ours, theirs := net.Pipe()
			server, err := nbd.NewServer(nbd.ServerConfig{Exports: oneExport{backend}, HoldErrors: true})
			if err != nil {
				return nil, err
			}
			serving.Go(func() {
				conn, err := server.Negotiate(ctx, ours)
				if err == nil && conn != nil {
					_ = conn.Run(ctx)
				}
			})
			return theirs, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	serving.Go(func() { _ = client.Run(ctx) })
	_, err = client.WriteAt(make([]byte, block.BlockSize), 0)
	return err
}

// oneExport is the device of a backend.
type oneExport struct{ backend nbd.Backend }

func (e oneExport) List(context.Context) []string { return []string{"device"} }

func (e oneExport) Open(context.Context, string) (nbd.Export, error) {
	return deviceExport{Backend: e.backend, info: nbd.ExportInfo{Size: volumeSize, MinBlock: block.SectorSize}}, nil
}
