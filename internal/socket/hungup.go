package socket

import (
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// HungUp reports whether the peer will send no more, or the socket is closed. It asks the
// kernel, which knows at once: a reader learns it only when it has read whatever was sent
// before. A connection that cannot be asked (TLS) counts as hung up.
func (s *Socket) HungUp() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return true
	case s.loose != nil:
		return hungUp(s.loose.fd)
	default:
		return HungUp(s.conn)
	}
}

// HungUp is Socket.HungUp for a connection that is none yet.
func HungUp(conn net.Conn) bool {
	plain, ok := conn.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := plain.SyscallConn()
	if err != nil {
		return true
	}
	over := true
	if err := raw.Control(func(fd uintptr) { over = hungUp(int(fd)) }); err != nil {
		return true
	}
	return over
}

func hungUp(fd int) bool {
	asked := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	for {
		n, err := unix.Poll(asked, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return err != nil || n > 0
	}
}
