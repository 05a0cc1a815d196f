package nbdtest

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// SocketPair returns two connected unix sockets.
func SocketPair() (a, b net.Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	var conns [2]net.Conn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "nbd test socket")
		conn, connErr := net.FileConn(file)
		conns[i] = conn
		err = errors.Join(err, connErr, file.Close())
	}
	return conns[0], conns[1], err
}
