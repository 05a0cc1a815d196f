package nbd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/invariant"
	"github.com/holdfast-io/holdfast/internal/nbd"
	"github.com/holdfast-io/holdfast/internal/nbd/nbdtest"
)

const testSize = 8 << 20

// Commands by number, so that the test does not share the server's table.
const (
	read = iota
	write
	disconnect
	flush
	trim
	cache
	writeZeroes
	blockStatus
)

func serveDisk(t testing.TB, change func(*nbd.ConnConfig)) (*rawConn, *nbdtest.Disk) {
	t.Helper()
	info := nbdtest.Info("v", testSize, 4096)
	disk := nbdtest.NewMemory(info)
	config := nbd.ConnConfig{Info: info, Backend: disk}
	if change != nil {
		change(&config)
	}
	return serveRaw(t, config), disk
}

// TestGrow: what is beyond the end is refused until the connection knows of it.
func TestGrow(t *testing.T) {
	c, _ := serveDisk(t, func(config *nbd.ConnConfig) {
		config.Backend = nbdtest.NewMemory(nbdtest.Info("v", 2*testSize, 4096))
	})
	want := func(cookie, offset uint64, fails bool) {
		t.Helper()
		c.request(write, 0, cookie, offset, 4096, make([]byte, 4096))
		if _, errno, _ := c.reply(0); (errno != 0) != fails {
			t.Fatalf("write at %d: %v", offset, errno)
		}
	}
	want(1, testSize, true)
	c.Grow(2 * testSize)
	c.Grow(testSize)
	want(2, testSize, false)
	want(3, 2*testSize, true)
}

func TestWriteReadFlushTrim(t *testing.T) {
	c, disk := serveDisk(t, nil)
	data := bytes.Repeat([]byte("holdfast"), 1024)
	c.request(write, 1, 1, 4096, uint32(len(data)), data)
	if _, errno, _ := c.reply(0); errno != 0 {
		t.Fatal(errno)
	}
	c.request(flush, 0, 2, 0, 0, nil)
	if cookie, errno, _ := c.reply(0); errno != 0 || cookie != 2 {
		t.Fatal(cookie, errno)
	}
	if disk.Durable.Load() != 1 || disk.Flushes.Load() != 1 {
		t.Fatalf("%d durable writes, %d flushes", disk.Durable.Load(), disk.Flushes.Load())
	}
	c.request(read, 0, 3, 4096, uint32(len(data)), nil)
	if _, errno, got := c.reply(len(data)); errno != 0 || !bytes.Equal(got, data) {
		t.Fatalf("errno %v, %d bytes", errno, len(got))
	}
	c.request(trim, 0, 4, 4096, 4096, nil)
	c.reply(0)
	c.request(writeZeroes, 2, 5, 8192, 4096, nil)
	c.reply(0)
	c.request(read, 0, 6, 4096, uint32(len(data)), nil)
	if _, _, got := c.reply(len(data)); !bytes.Equal(got, make([]byte, len(data))) {
		t.Fatal("trimmed range does not read as zeros")
	}
	c.request(disconnect, 0, 7, 0, 0, nil)
	c.wantEnd()
	if err := c.wantServed(); err != nil {
		t.Fatal(err)
	}
}

func TestRefusals(t *testing.T) {
	page := make([]byte, 4096)
	for _, test := range []struct {
		name           string
		command, flags uint16
		offset         uint64
		length         uint32
		payload        []byte
		readOnly       bool
		want           nbd.Errno
	}{
		{name: "read past the end", command: read, offset: testSize, length: 4096, want: nbd.EINVAL},
		{name: "read across the end", command: read, offset: testSize - 4096, length: 8192, want: nbd.EINVAL},
		{name: "read whose end overflows", command: read, offset: 1<<64 - 4096, length: 8192, want: nbd.EINVAL},
		{name: "write past the end", command: write, offset: testSize, length: 4096, payload: page, want: nbd.ENOSPC},
		{name: "zero past the end", command: writeZeroes, offset: testSize, length: 4096, want: nbd.ENOSPC},
		{name: "trim past the end", command: trim, offset: testSize, length: 4096, want: nbd.EINVAL},
		{name: "unaligned offset", command: read, offset: 512, length: 4096, want: nbd.EINVAL},
		{name: "unaligned length", command: write, length: 512, payload: page[:512], want: nbd.EINVAL},
		{name: "empty read", command: read, want: nbd.EINVAL},
		{name: "read too long", command: read, length: 2 << 20, want: nbd.EINVAL},
		{name: "write too long", command: write, length: 2 << 20, payload: make([]byte, 2<<20), want: nbd.EINVAL},
		{name: "unknown command", command: 99, length: 4096, want: nbd.EINVAL},
		{name: "cache", command: cache, length: 4096, want: nbd.EINVAL},
		{name: "unknown flag", command: read, flags: 1 << 9, length: 4096, want: nbd.EINVAL},
		{name: "fast zero that was not offered", command: writeZeroes, flags: 1 << 4, length: 4096, want: nbd.EINVAL},
		{name: "flush of a range", command: flush, length: 4096, want: nbd.EINVAL},
		{name: "status without a context", command: blockStatus, length: 4096, want: nbd.EINVAL},
		{name: "write to a read-only export", command: write, length: 4096, payload: page, readOnly: true, want: nbd.EPERM},
		{name: "trim of a read-only export", command: trim, length: 4096, readOnly: true, want: nbd.EPERM},
		{name: "zero of a read-only export", command: writeZeroes, length: 4096, readOnly: true, want: nbd.EPERM},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, disk := serveDisk(t, func(config *nbd.ConnConfig) { config.Info.ReadOnly = test.readOnly })
			c.request(test.command, test.flags, 42, test.offset, test.length, test.payload)
			if cookie, errno, _ := c.reply(0); errno != test.want || cookie != 42 {
				t.Errorf("cookie %d, error %v, want %v", cookie, errno, test.want)
			}
			if n := disk.Submitted.Load(); n != 0 {
				t.Errorf("%d requests reached the backend", n)
			}
			// The stream is still in step.
			c.request(read, 0, 43, 0, 4096, nil)
			if cookie, errno, _ := c.reply(4096); errno != 0 || cookie != 43 {
				t.Errorf("next request: cookie %d, error %v", cookie, errno)
			}
		})
	}
}

func TestDamagedStreamEndsConnection(t *testing.T) {
	c, _ := serveDisk(t, nil)
	if _, err := c.client.Write(make([]byte, 28)); err != nil {
		t.Fatal(err)
	}
	if err := c.wantServed(); !errors.Is(err, block.ErrProtocol) {
		t.Fatalf("Serve returned %v", err)
	}
	c.wantEnd()
}

func TestEndlessRefusedWriteEndsConnection(t *testing.T) {
	c, _ := serveDisk(t, nil)
	c.request(write, 0, 1, 0, 1<<31, nil)
	if err := c.wantServed(); !errors.Is(err, block.ErrProtocol) {
		t.Fatalf("Serve returned %v", err)
	}
}

// gated serves a disk behind a closed gate.
func gated(t testing.TB, change func(*nbd.ConnConfig)) (*rawConn, *nbdtest.Gate, *nbdtest.Disk) {
	t.Helper()
	info := nbdtest.Info("v", testSize, 4096)
	disk := nbdtest.NewMemory(info)
	gate := nbdtest.NewGate(disk)
	config := nbd.ConnConfig{Info: info, Backend: gate}
	if change != nil {
		change(&config)
	}
	return serveRaw(t, config), gate, disk
}

func TestRepliesInAnyOrder(t *testing.T) {
	c, gate, disk := gated(t, nil)
	for cookie := range uint64(3) {
		c.request(read, 0, cookie, cookie*4096, 4096, nil)
	}
	held := gate.Held(3)
	for _, i := range []int{2, 0, 1} {
		disk.Submit(held[i])
		if cookie, _, _ := c.reply(4096); cookie != uint64(i) {
			t.Fatalf("reply to %d, want %d", cookie, i)
		}
	}
}

func TestDisconnectWaitsForRequestsInFlight(t *testing.T) {
	c, gate, disk := gated(t, nil)
	c.request(read, 0, 1, 0, 4096, nil)
	c.request(disconnect, 0, 2, 0, 0, nil)
	held := gate.Held(1)
	disk.Submit(held[0])
	if cookie, errno, _ := c.reply(4096); cookie != 1 || errno != 0 {
		t.Fatal(cookie, errno)
	}
	c.wantEnd()
	if err := c.wantServed(); err != nil {
		t.Fatal(err)
	}
}

func TestLimitsHoldTheReader(t *testing.T) {
	for name, change := range map[string]func(*nbd.ConnConfig){
		"count": func(config *nbd.ConnConfig) { config.MaxInFlight = 4 },
		"bytes": func(config *nbd.ConnConfig) { config.MaxInFlightBytes = 4 * 4096 },
	} {
		t.Run(name, func(t *testing.T) {
			c, gate, disk := gated(t, change)
			page := make([]byte, 4096)
			for cookie := range uint64(10) {
				c.request(write, 0, cookie, cookie*4096, 4096, page)
			}
			for round := 0; round < 10; {
				held := gate.Held(1)
				if n := len(held) + gate.Waiting(); n > 4 {
					t.Fatalf("%d requests in flight, the limit is 4", n)
				}
				for _, r := range held {
					disk.Submit(r)
					if _, errno, _ := c.reply(0); errno != 0 {
						t.Fatal(errno)
					}
					round++
				}
			}
		})
	}
}

func TestQuiesceFinishesWhatWasSubmittedAndDropsTheRest(t *testing.T) {
	c, gate, disk := gated(t, func(config *nbd.ConnConfig) { config.MaxInFlight = 1 })
	page := bytes.Repeat([]byte{7}, 4096)
	c.request(write, 0, 1, 0, 4096, page)
	// Not submitted: the limit is reached, they lie in the buffers.
	for i := range uint64(5) {
		c.request(write, 0, 2+i, 4096*(1+i), 4096, page)
	}
	held := gate.Held(1)

	short, cancel := context.WithTimeout(testContext(t), 20*time.Millisecond)
	defer cancel()
	if err := c.Quiesce(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Quiesce with a request in flight returned %v", err)
	}
	var quiesced sync.WaitGroup
	var quiesceErr error
	quiesced.Go(func() { quiesceErr = c.Quiesce(testContext(t)) })
	disk.Submit(held[0])
	if cookie, errno, _ := c.reply(0); cookie != 1 || errno != 0 {
		t.Fatal(cookie, errno)
	}
	quiesced.Wait()
	if quiesceErr != nil {
		t.Fatal(quiesceErr)
	}
	if err := c.wantServed(); err != nil {
		t.Fatal(err)
	}
	c.wantEnd()
	if n := disk.Submitted.Load(); n != 1 || gate.Waiting() != 0 {
		t.Fatalf("%d requests applied, %d waiting", n, gate.Waiting())
	}
}

func TestQuiesceDropsHalfAWrite(t *testing.T) {
	c, disk := serveDisk(t, nil)
	c.request(read, 0, 1, 0, 4096, nil)
	c.reply(4096)
	c.request(write, 0, 1, 0, 64<<10, make([]byte, 1000))
	if err := c.Quiesce(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := c.wantServed(); err != nil {
		t.Fatal(err)
	}
	if n := disk.Submitted.Load(); n != 1 {
		t.Fatalf("%d requests submitted, want the read only", n)
	}
}

func TestQuiesceBeforeServe(t *testing.T) {
	info := nbdtest.Info("v", testSize, 4096)
	_, server := socketPair(t)
	conn, err := nbd.NewConn(server, nbd.ConnConfig{Info: info, Backend: nbdtest.NewMemory(info)})
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Quiesce(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := conn.Serve(testContext(t)); !errors.Is(err, block.ErrClosed) {
		t.Fatalf("Serve after Quiesce returned %v", err)
	}
}

func TestCloseLeavesLateCompletionsUnanswered(t *testing.T) {
	c, gate, disk := gated(t, nil)
	c.request(read, 0, 1, 0, 4096, nil)
	held := gate.Held(1)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.wantServed(); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(testContext(t), 10*time.Millisecond)
	defer cancel()
	if err := c.Quiesce(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Quiesce returned %v while the backend has a request", err)
	}
	disk.Submit(held[0])
	if err := c.Quiesce(testContext(t)); err != nil {
		t.Fatal(err)
	}
	c.wantEnd()
}

func TestErrorsAreAnsweredOrHeld(t *testing.T) {
	for _, hold := range []bool{false, true} {
		for _, sentinel := range block.Sentinels() {
			t.Run(fmt.Sprintf("hold %v %v", hold, sentinel), func(t *testing.T) {
				c, gate, _ := gated(t, func(config *nbd.ConnConfig) { config.HoldErrors = hold })
				c.request(read, 0, 1, 0, 4096, nil)
				gate.Held(1)[0].Complete(fmt.Errorf("read: %w", sentinel), nil)
				held := hold && (errors.Is(sentinel, block.ErrClosed) || errors.Is(sentinel, block.ErrStaleEpoch) ||
					errors.Is(sentinel, block.ErrStaleSession) || errors.Is(sentinel, block.ErrConflict) ||
					errors.Is(sentinel, block.ErrUnknown) || errors.Is(sentinel, block.ErrUnavailable) ||
					errors.Is(sentinel, block.ErrNotLeader))
				if !held {
					if _, errno, _ := c.reply(4096); errno == 0 {
						t.Fatal("no error")
					}
					return
				}
				c.wantEnd()
				if err := c.wantServed(); !errors.Is(err, sentinel) {
					t.Fatalf("Serve returned %v", err)
				}
			})
		}
	}
}

func TestSecondCompletionIsABrokenInvariant(t *testing.T) {
	var calls int
	r := nbd.NewRequest(nbd.KindFlush, block.Span{}, nil, false, func(error, *block.Buffer) { calls++ })
	r.Complete(nil, nil)
	defer func() {
		if _, ok := recover().(invariant.Violation); !ok || calls != 1 {
			t.Fatalf("no violation, %d calls", calls)
		}
	}()
	r.Complete(nil, nil)
}

// TestManyRequests mixes kinds and sizes from a seed and compares with a model.
func TestManyRequests(t *testing.T) {
	const seed = 1
	random := rand.New(rand.NewPCG(seed, seed))
	dial := startServer(t, nbd.ServerConfig{Exports: nbdtest.Exports{"v": nbdtest.NewMemory(nbdtest.Info("v", testSize, 512))}})
	for _, structured := range []bool{false, true} {
		client := connect(t, dial, nbd.ClientConfig{Export: "v", Structured: structured})
		model := make([]byte, testSize)
		if err := client.WriteZeroes(block.Span{Length: testSize}); err != nil {
			t.Fatal(err)
		}
		for range 2000 {
			length := 512 * (1 + random.IntN(300))
			offset := 512 * random.IntN((testSize-length)/512)
			span := block.Span{Offset: int64(offset), Length: int64(length)}
			var err error
			switch random.IntN(4) {
			case 0:
				got := make([]byte, length)
				_, err = client.ReadAt(got, span.Offset)
				if !bytes.Equal(got, model[offset:offset+length]) {
					t.Fatalf("seed %d: read at %d of %d differs", seed, offset, length)
				}
			case 1:
				data := bytes.Repeat([]byte{byte(random.Uint32())}, length)
				copy(model[offset:], data)
				_, err = client.WriteAt(data, span.Offset)
			case 2:
				clear(model[offset : offset+length])
				err = client.Trim(span)
			case 3:
				err = client.Flush()
			}
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
	}
}
