package links

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// TestCuts: what is sent into a cut is lost without a word, in that
// direction only, and arrives once the cut is healed.
func TestCuts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root, which make test has")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	n, err := New(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	identities, err := n.Identities()
	if err != nil || len(identities) != 3 {
		t.Fatalf("namespaces %v, %v", identities, err)
	}
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if left, err := Left(identities); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}()
	if left, err := Left(identities); err != nil || len(left) != 3 {
		t.Errorf("of three namespaces %v are found, %v", left, err)
	}
	// One that got the inode of one that is gone is another.
	gone := identities[0]
	if gone.Cookie--; identities[0].Cookie != 0 {
		if left, err := Left([]Identity{gone}); err != nil || len(left) != 0 {
			t.Errorf("a namespace that is gone is found: %v, %v", left, err)
		}
	}

	listener := listenIn(t, n.hosts[1], n.Address(1)+":7")
	far := make(chan net.Conn, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			far <- conn
		}
	}()
	var a net.Conn
	err = On(n.hosts[0], func() error {
		var dialer net.Dialer
		a, err = dialer.DialContext(ctx, "tcp", n.Address(1)+":7")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b := <-far
	defer b.Close()

	arrives := func(from, to net.Conn, within time.Duration) bool {
		t.Helper()
		if _, err := from.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		if err := to.SetReadDeadline(time.Now().Add(within)); err != nil {
			t.Fatal(err)
		}
		_, err := io.ReadFull(to, make([]byte, 1))
		return err == nil
	}
	const soon, late = 200 * time.Millisecond, 20 * time.Second
	if !arrives(a, b, late) || !arrives(b, a, late) {
		t.Fatal("the network does not connect")
	}
	if err := errors.Join(n.AllowCuts(ctx), n.Cut(ctx, 0, 1)); err != nil {
		t.Fatal(err)
	}
	if arrives(a, b, soon) {
		t.Error("the cut lets through")
	}
	if !arrives(b, a, late) {
		t.Error("the cut goes both ways")
	}
	if err := n.Heal(ctx); err != nil {
		t.Fatal(err)
	}
	if !arrives(a, b, late) {
		t.Error("the healed link does not connect")
	}
	conn, err := n.Dial(ctx, "tcp", n.Address(1)+":7")
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func listenIn(t *testing.T, namespace *os.File, address string) net.Listener {
	t.Helper()
	var listener net.Listener
	err := On(namespace, func() (err error) {
		var config net.ListenConfig
		listener, err = config.Listen(t.Context(), "tcp", address)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener
}
