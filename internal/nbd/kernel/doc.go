// Package kernel configures the NBD client inside the Linux kernel through its
// generic netlink family "nbd". A device is made with one socket, whose other
// half our server reads; it carries a backend identifier, by which a later
// process finds it again and replaces its dead socket.
//
// Facts about the kernel that this package relies on:
//
//   - The family exists in the initial network namespace only; a process in
//     another one names that of the host in Config.NetNS.
//   - Socket file descriptors are looked up in the process that sends the
//     message, while it is sent; afterwards they may be closed.
//   - RECONFIGURE replaces only a socket that the kernel knows to be dead, and
//     fails with ENOSPC else. The kernel learns of a death a moment after the
//     other half was closed, so the call is repeated until its context ends. If
//     the device has a backend identifier, the message must carry the same one.
//   - With timeout 0 a request never fails because of its age. After a socket was
//     replaced, requests in flight are sent again when the queue's timer fires:
//     30 s by default; queue/io_timeout is set to 500 ms.
//   - RECONFIGURE with a size and no socket resizes a device that is in use, since
//     Linux 5.3; an older kernel ignores the size. Since 6.9 the kernel first waits
//     until the requests in the queue are done, and lets nobody replace a socket
//     meanwhile: a server that dies within these milliseconds, with requests under
//     way, leaves a device that hangs until the machine is rebooted.
//   - A change of the queue's settings waits until the requests in the queue are
//     done. On a device without a server that is for ever.
//   - A dead connection fails its requests after dead_conn_timeout; that is set to
//     decades, and DISCONNECT is the way to give up. A
//     disconnected device stays visible until its last user closes it.
//
// Message layout (attributes in the host's byte order):
//
//	1 INDEX u32, 2 SIZE_BYTES u64, 3 BLOCK_SIZE_BYTES u64, 4 TIMEOUT u64 (s),
//	5 SERVER_FLAGS u64, 6 CLIENT_FLAGS u64, 7 SOCKETS { 1 ITEM { 1 FD u32 } },
//	8 DEAD_CONN_TIMEOUT u64 (s), 9 DEVICE_LIST { 1 ITEM { 1 INDEX u32, 2 CONNECTED u8 } },
//	10 BACKEND_IDENTIFIER string
//
// No goroutine is started here.
package kernel
