package socket

import (
	"net"

	"github.com/holdfast-io/holdfast/internal/nbd"
	"github.com/holdfast-io/holdfast/internal/socket"
)

// visit is a connection from its beginning until nothing of it is left.
type visit struct {
	// end asks it whether the client has hung up: the socket in the handshake, the
	// connection after it.
	end interface{ HungUp() bool }
	// gone is closed at its end.
	gone chan struct{}
}

// arrive notes a connection, and leave its end.
func (d *Device) arrive(conn net.Conn) *visit {
	v := &visit{end: handshake{conn}, gone: make(chan struct{})}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.visits[v] = struct{}{}
	return v
}

// negotiated: the handshake is over, and its socket is in other hands.
func (d *Device) negotiated(v *visit, conn *nbd.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v.end = conn
}

func (d *Device) leave(v *visit) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.visits, v)
	close(v.gone)
}

// left are the visits whose client has hung up.
func (d *Device) left() []*visit {
	d.mu.Lock()
	defer d.mu.Unlock()
	var left []*visit
	for v := range d.visits {
		if v.end.HungUp() {
			left = append(left, v)
		}
	}
	return left
}

// handshake is a connection in its handshake.
type handshake struct{ net.Conn }

// HungUp is that of socket.Socket.
func (h handshake) HungUp() bool { return socket.HungUp(h.Conn) }
