// Package socket shows a volume as an NBD export on a unix socket, to tools that
// speak NBD themselves: qemu-img, qemu-nbd, nbdcopy, fio's nbd engine, a virtual
// machine. There is no block device, so nothing can be mounted. It is never
// chosen by itself; a daemon is told to use it.
//
// # Files of a device
//
// A device is two files in the run directory, which belongs to root alone:
//
//	<attachment ID>.id   the device's Identity, one line of text
//	<attachment ID>.nbd  the socket, mode 0600
//
// The first says that the device exists. It is written by Attach, found by Adopt
// and removed by Detach and Remove. The second is there while a daemon serves.
// Path is the socket's NBD URI, nbd+unix:///?socket=<path>: the export is the
// default one (the empty name), which also answers to the attachment's ID.
//
// # Clients
//
// A device has up to 32 clients, which may be the connections of one program: they are
// told that a flush on one covers what was answered on any (NBD_FLAG_CAN_MULTI_CONN,
// rule 10), which holds because all lead to one engine, whose flushes know of no
// connection. One more waits a moment for another to leave and is then refused; Detach
// waits as long for all of them and then says block.ErrInUse. A client is let in only
// after everything of those has ended that have hung up by then: so one that reconnects
// may send what was not answered again (rule 29).
//
// When the daemon or the engine stops, the connection ends, after the answers that
// are ready; no request is failed for that reason. The next daemon listens on the
// same path. NBD has no word for growth: a volume that grew has its new size for the
// next client.
//
// # Goroutines
//
// A Device has one that accepts connections, and one for each connection, of which
// there are at most a few. Close and Detach join them.
package socket
