package cluster

import (
	"crypto/tls"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/mtls"
	"github.com/holdfast-io/holdfast/test/harness/certs"
)

// TestFarewellEndsAnIdleConnection: on TLS the peer's farewell is bytes, not the end.
func TestFarewellEndsAnIdleConnection(t *testing.T) {
	authority, err := certs.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	files, err := authority.Issue(t.TempDir(), certs.Request{Name: mtls.Node})
	if err != nil {
		t.Fatal(err)
	}
	identity, err := mtls.Open(files, slog.New(slog.DiscardHandler), mtls.Node)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	accepted := make(chan *tls.Conn, 1)
	go func() {
		raw, err := listener.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		conn := tls.Server(raw, identity.Server(mtls.Node))
		if err := conn.HandshakeContext(t.Context()); err != nil {
			t.Error(err)
		}
		accepted <- conn
	}()
	conn, err := (&tls.Dialer{Config: identity.Client()}).DialContext(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	peer := <-accepted
	if hungUp(conn) {
		t.Error("an idle connection counts as closed")
	}
	// The raw connection stays open: only the farewell tells.
	if err := peer.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); !hungUp(conn); {
		if time.Now().After(deadline) {
			t.Fatal("the farewell is not noticed")
		}
	}
	if err := peer.NetConn().Close(); err != nil {
		t.Error(err)
	}
}
