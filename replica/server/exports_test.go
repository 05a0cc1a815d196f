package server

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
	"github.com/holdfast-io/holdfast/internal/wire"
	"github.com/holdfast-io/holdfast/replica/store"
)

// promptReplica does its operations on a goroutine of its own, as a store does.
type promptReplica struct {
	*steppedReplica
	ops  chan *store.Op
	work sync.WaitGroup
	// check sees each operation after it was applied, while it still runs.
	check func(*store.Op)
}

func newPrompt(t *testing.T, r *steppedReplica) *promptReplica {
	p := &promptReplica{steppedReplica: r, ops: make(chan *store.Op, 4096)}
	for range 4 {
		p.work.Go(func() {
			for op := range p.ops {
				r.mu.Lock()
				if op.Err = r.fail; op.Err == nil {
					r.apply(op)
				}
				r.mu.Unlock()
				if p.check != nil {
					p.check(op)
				}
				op.Done(op)
			}
		})
	}
	t.Cleanup(func() {
		close(p.ops)
		p.work.Wait()
	})
	return p
}

func (p *promptReplica) Submit(op *store.Op) { p.ops <- op }

// ExtentsOf implements Mapper: the second half of the test replica is a hole.
func (p *promptReplica) ExtentsOf(_ block.SnapshotID, span block.Span) ([]store.Extent, error) {
	half := block.Span{Offset: span.Offset, Length: testSize/2 - span.Offset}
	return []store.Extent{{Span: half, Data: true}, {Span: block.Span{Offset: half.End(), Length: span.End() - half.End()}}}, nil
}

// Changed implements Mapper.
func (p *promptReplica) Changed(block.SnapshotID, block.SnapshotID, block.Span) ([]store.Extent, error) {
	return nil, nil
}

// listen serves a host on loopback.
func listen(t *testing.T, host *Host) string {
	t.Helper()
	s, err := wire.NewServer(wire.ServerConfig{Cluster: host.cluster, Acceptor: host, Exports: host.Exports()})
	if err != nil {
		t.Fatal(err)
	}
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := s.Serve(ctx, listener); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		serving.Wait()
	})
	return listener.Addr().String()
}

// newPromptBench is a bench whose replica works by itself.
func newPromptBench(t *testing.T, limits Limits) (*bench, *promptReplica) {
	t.Helper()
	b := newBench(t, limits)
	p := newPrompt(t, b.replica)
	b.host.RemoveDisk(b.disk.id)
	b.disk.replicas = []Replica{p}
	if err := b.host.AddDisk(b.disk); err != nil {
		t.Fatal(err)
	}
	return b, p
}

func connectNBD(t *testing.T, addr, export string, contexts ...string) (*nbd.Client, error) {
	t.Helper()
	var dialer net.Dialer
	socket, err := dialer.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return nbd.Connect(context.Background(), socket, nbd.ClientConfig{Export: export, Contexts: append(contexts, nbd.ContextAllocation)})
}

// TestExport reads a raw replica with an ordinary client.
func TestExport(t *testing.T) {
	b, p := newPromptBench(t, DefaultLimits())
	copy(p.data[4096:], pattern(4096, 0x5a))
	addr := listen(t, b.host)
	name := replicaPrefix + p.id.String()
	if got := b.host.Exports().List(context.Background()); len(got) != 1 || got[0] != name {
		t.Fatalf("exports %v", got)
	}
	client, err := connectNBD(t, addr, name)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	info := client.Info()
	if info.Size != testSize || !info.ReadOnly || !strings.Contains(info.Description, "FORENSIC") {
		t.Fatalf("export %+v", info)
	}
	got := make([]byte, testSize)
	if _, err := client.ReadAt(got, 0); err != nil || !bytes.Equal(got, p.data) {
		t.Fatalf("read: %v", err)
	}
	status, err := client.BlockStatus(block.Span{Length: testSize})
	if err != nil || len(status[nbd.ContextAllocation]) == 0 {
		t.Fatalf("status: %v, %v", status, err)
	}
	if first := status[nbd.ContextAllocation][0]; first != (nbd.Extent{Length: testSize / 2}) {
		t.Fatalf("status %+v", status)
	}
	if _, err := client.WriteAt(pattern(512, 1), 0); err == nil {
		t.Fatal("a raw replica was written")
	}
	if !bytes.Equal(got, p.data) {
		t.Fatal("a refused write changed the replica")
	}
	p.mu.Lock()
	p.fail = block.ErrChecksum
	p.mu.Unlock()
	if _, err := client.ReadAt(got[:512], 0); !errors.Is(err, block.ErrIO) {
		t.Fatalf("read of a bad block: %v", err)
	}
}

func TestExportNames(t *testing.T) {
	b := newBench(t, DefaultLimits())
	exports := b.host.Exports()
	for _, name := range []string{
		"", "replica/", "replica/xyz", b.replica.id.String(), "replica/" + block.ReplicaID{}.String(),
		"replica/" + strings.ToUpper(b.replica.id.String()) + "0",
	} {
		if _, err := exports.Open(context.Background(), name); !errors.Is(err, block.ErrNotFound) {
			t.Errorf("export %q: %v", name, err)
		}
	}
}

// TestExportAndDoor: a read of an export holds up a deletion and no session.
func TestExportAndDoor(t *testing.T) {
	b := newBench(t, DefaultLimits())
	export, err := b.host.Exports().Open(context.Background(), replicaPrefix+b.replica.id.String())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 2)
	read := func() {
		export.Submit(nbd.NewRequest(nbd.KindRead, block.Span{Length: 512}, nil, false, func(err error, buf *block.Buffer) {
			buf.Release()
			done <- err
		}))
	}
	read()
	c := b.connect(fence(1, 1))
	open := c.open()
	b.replica.step(1)
	wantErr(t, c.answer(open), nil)
	if err := b.host.DeleteReplica(b.disk.id, b.replica.id); !errors.Is(err, block.ErrUnavailable) {
		t.Fatalf("delete under an export's read: %v", err)
	}
	b.replica.drain()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	read()
	if err := <-done; !errors.Is(err, block.ErrNotFound) {
		t.Fatalf("read of a deleted replica: %v", err)
	}
	if err := b.host.DeleteReplica(b.disk.id, b.replica.id); err != nil {
		t.Fatal(err)
	}
}
