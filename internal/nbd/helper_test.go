package nbd_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/nbd"
	"github.com/holdfast-io/holdfast/internal/nbd/nbdtest"
)

const testTimeout = 20 * time.Second

var noDeadline time.Time

// testContext ends with the test, or before a hang becomes the test binary's.
func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

func socketPair(t testing.TB) (client, server net.Conn) {
	t.Helper()
	client, server, err := nbdtest.SocketPair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Close()
		_ = server.Close()
	})
	return client, server
}

// rawConn is a Conn under test and the client's end of its socket.
type rawConn struct {
	*nbd.Conn
	t      testing.TB
	client net.Conn
	served chan error
}

// serveRaw serves a backend on one half of a socket pair, without a handshake,
// as for the kernel.
func serveRaw(t testing.TB, config nbd.ConnConfig) *rawConn {
	t.Helper()
	client, server := socketPair(t)
	conn, err := nbd.NewConn(server, config)
	if err != nil {
		t.Fatal(err)
	}
	c := &rawConn{Conn: conn, t: t, client: client, served: make(chan error, 1)}
	var loop sync.WaitGroup
	loop.Go(func() { c.served <- conn.Serve(testContext(t)) })
	t.Cleanup(func() {
		_ = conn.Close()
		loop.Wait()
	})
	_ = client.SetDeadline(time.Now().Add(testTimeout))
	return c
}

// request sends one raw request.
func (c *rawConn) request(command, flags uint16, cookie, offset uint64, length uint32, payload []byte) {
	c.t.Helper()
	if _, err := c.client.Write(rawRequest(command, flags, cookie, offset, length, payload)); err != nil {
		c.t.Fatal(err)
	}
}

func rawRequest(command, flags uint16, cookie, offset uint64, length uint32, payload []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, 0x25609513)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint16(b, command)
	b = binary.BigEndian.AppendUint64(b, cookie)
	b = binary.BigEndian.AppendUint64(b, offset)
	b = binary.BigEndian.AppendUint32(b, length)
	return append(b, payload...)
}

// reply reads one simple reply with n bytes of data if it is a success.
func (c *rawConn) reply(n int) (cookie uint64, errno nbd.Errno, data []byte) {
	c.t.Helper()
	var raw [16]byte
	if _, err := io.ReadFull(c.client, raw[:]); err != nil {
		c.t.Fatal("read reply:", err)
	}
	if magic := binary.BigEndian.Uint32(raw[:]); magic != 0x67446698 {
		c.t.Fatalf("reply magic %#x", magic)
	}
	errno = nbd.Errno(binary.BigEndian.Uint32(raw[4:]))
	if errno == 0 {
		data = make([]byte, n)
		if _, err := io.ReadFull(c.client, data); err != nil {
			c.t.Fatal("read data:", err)
		}
	}
	return binary.BigEndian.Uint64(raw[8:]), errno, data
}

// wantEnd fails unless the server closes the connection without another byte.
func (c *rawConn) wantEnd() {
	c.t.Helper()
	if n, err := io.Copy(io.Discard, c.client); n != 0 {
		c.t.Fatalf("%d bytes before the end (%v)", n, err)
	}
}

func (c *rawConn) wantServed() error {
	c.t.Helper()
	select {
	case err := <-c.served:
		return err
	case <-time.After(testTimeout):
		c.t.Fatal("Serve did not return")
		return nil
	}
}

// testServer is a Server on a unix socket.
func startServer(t testing.TB, config nbd.ServerConfig) (dial func(context.Context) (net.Conn, error)) {
	t.Helper()
	server, err := nbd.NewServer(config)
	if err != nil {
		t.Fatal(err)
	}
	path := t.TempDir() + "/s"
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var loop sync.WaitGroup
	loop.Go(func() {
		if err := server.Serve(ctx, listener); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		loop.Wait()
	})
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
}

// connect negotiates a client.
func connect(t testing.TB, dial func(context.Context) (net.Conn, error), config nbd.ClientConfig) *nbd.Client {
	t.Helper()
	ctx := testContext(t)
	socket, err := dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	client, err := nbd.Connect(ctx, socket, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}
