package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
)

// memoryWord makes this program the server of bench frontend, in a process of its own.
const memoryWord = "serve-memory"

// memoryDisk is the one export of a server: memory, which costs as little as can be.
type memoryDisk struct {
	info nbd.ExportInfo

	// mu orders what comes over several connections.
	mu    sync.Mutex
	bytes []byte
}

// newMemoryDisk takes its bytes from the kernel: in Go's heap they would make garbage
// collections rarer than they are in a daemon.
func newMemoryDisk(size int64) (*memoryDisk, error) {
	bytes, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes of memory: %w", size, err)
	}
	return &memoryDisk{info: nbd.ExportInfo{Size: size, MinBlock: block.BlockSize, Flush: true, FUA: true}, bytes: bytes}, nil
}

// List implements nbd.Exports.
func (m *memoryDisk) List(context.Context) []string { return []string{""} }

// Open implements nbd.Exports.
func (m *memoryDisk) Open(_ context.Context, name string) (nbd.Export, error) {
	if name != "" {
		return nil, fmt.Errorf("export %q: %w", name, block.ErrNotFound)
	}
	return m, nil
}

// Info implements nbd.Export.
func (m *memoryDisk) Info() nbd.ExportInfo { return m.info }

// Close implements nbd.Export: the bytes stay for the next client.
func (m *memoryDisk) Close() error { return nil }

// Submit implements nbd.Backend. Like an engine it completes requests in the turn in which
// they came, so that their replies go together.
func (m *memoryDisk) Submit(r *nbd.Request) {
	switch r.Kind {
	case nbd.KindRead:
		buf := block.NewBuffer(int(r.Length))
		m.mu.Lock()
		copy(buf.Data, m.bytes[r.Offset:])
		m.mu.Unlock()
		r.CompleteIn(r.Turn(), nil, buf)
	case nbd.KindWrite:
		m.mu.Lock()
		copy(m.bytes[r.Offset:], r.Buf.Data)
		m.mu.Unlock()
		r.CompleteIn(r.Turn(), nil, nil)
	case nbd.KindFlush:
		r.CompleteIn(r.Turn(), nil, nil)
	default:
		r.CompleteIn(r.Turn(), fmt.Errorf("%s request to memory: %w", r.Kind, block.ErrInvalid), nil)
	}
}

// serveMemory serves memory of so many bytes at a socket, both given by args. It answers
// each line of questions by how often the heap was asked for memory so far, and ends where
// they end.
func serveMemory(ctx context.Context, args []string, questions io.Reader, answers io.Writer) error {
	if len(args) != 2 {
		return fmt.Errorf("%s %q: want a socket and a size in bytes; `bench frontend` calls it", memoryWord, args)
	}
	size, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return fmt.Errorf("size of the memory: %w", err)
	}
	disk, err := newMemoryDisk(size)
	if err != nil {
		return err
	}
	// As the frontends of a daemon have it.
	server, err := nbd.NewServer(nbd.ServerConfig{Exports: disk, HoldErrors: true})
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "unix", args[0])
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var serving sync.WaitGroup
	var serveErr error
	serving.Go(func() { serveErr = server.Serve(ctx, listener) })
	err = answerAllocations(questions, answers)
	cancel()
	serving.Wait()
	return errors.Join(err, serveErr)
}

func answerAllocations(questions io.Reader, answers io.Writer) error {
	var memory runtime.MemStats
	lines := bufio.NewScanner(questions)
	for lines.Scan() {
		runtime.ReadMemStats(&memory)
		if _, err := fmt.Fprintln(answers, memory.Mallocs); err != nil {
			return err
		}
	}
	return lines.Err()
}

// askAllocations is the other side of answerAllocations.
func askAllocations(questions io.Writer, answers *bufio.Reader) (float64, error) {
	if _, err := io.WriteString(questions, "\n"); err != nil {
		return 0, fmt.Errorf("ask the server for its allocations: %w", err)
	}
	var n float64
	if _, err := fmt.Fscanln(answers, &n); err != nil {
		return 0, fmt.Errorf("read the server's allocations: %w", err)
	}
	return n, nil
}
