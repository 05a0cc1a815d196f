package wire

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// A peer that vanished without a word is noticed by the engine's own deadline
// first; these bound how long its connection stays in the kernel.
const (
	keepAliveIdle     = 5 * time.Second
	keepAliveInterval = 5 * time.Second
	keepAliveCount    = 3
	userTimeout       = 20 * time.Second
)

// tune sets the options of a TCP connection: no delay, keepalive, and a bound on
// how long sent data may stay unacknowledged. Other connections are left alone.
func tune(conn net.Conn) error {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	control, err := tcp.SyscallConn()
	if err != nil {
		return fmt.Errorf("tune connection: %w", err)
	}
	var timeoutErr error
	err = control.Control(func(fd uintptr) {
		timeoutErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
	})
	err = errors.Join(err, timeoutErr, tcp.SetNoDelay(true), tcp.SetKeepAliveConfig(net.KeepAliveConfig{
		Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval, Count: keepAliveCount,
	}))
	if err != nil {
		return fmt.Errorf("tune connection: %w", err)
	}
	return nil
}

// underlying is the connection below TLS, or conn itself.
func underlying(conn net.Conn) net.Conn {
	if secure, ok := conn.(*tls.Conn); ok {
		return secure.NetConn()
	}
	return conn
}
