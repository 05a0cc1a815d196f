package socket_test

import (
	"testing"

	"github.com/holdfast-io/holdfast/internal/nbd/nbdtest"
	"github.com/holdfast-io/holdfast/internal/socket"
)

// TestHungUp: that the peer has left is known while what it sent is unread, also while the
// socket is loose.
func TestHungUp(t *testing.T) {
	client, server, err := nbdtest.SocketPair()
	if err != nil {
		t.Fatal(err)
	}
	s := socket.New(server)
	if s.HungUp() || socket.HungUp(server) {
		t.Error("hung up from the start")
	}
	if _, err := client.Write([]byte("unread")); err != nil {
		t.Fatal(err)
	}
	err = s.Loosen(func(int) {
		if s.HungUp() {
			t.Error("hung up with bytes to read")
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		if !s.HungUp() {
			t.Error("that it has hung up is not seen while the socket is loose")
		}
	})
	if err != nil || !s.HungUp() {
		t.Errorf("that it has hung up is not seen (%v)", err)
	}
	if err := s.Close(); err != nil || !s.HungUp() {
		t.Errorf("closed: %v", err)
	}
}
