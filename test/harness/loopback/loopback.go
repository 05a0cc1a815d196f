// Package loopback finds addresses for the listeners of tests.
package loopback

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// FreeAddress returns a host:port that stays free until somebody listens on it, and
// between two listeners. Ports of 127.0.0.1 do not: the kernel hands them to every
// connection that any process makes in the meantime. So the host is one of the other
// 16 million loopback addresses, chosen at random, that no connection is made from.
func FreeAddress(t testing.TB) string {
	t.Helper()
	ip := fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
	}()
	return listener.Addr().String()
}
