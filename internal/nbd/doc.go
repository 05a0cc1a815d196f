// Package nbd speaks the Network Block Device protocol, on both sides: the
// handshake and transmission server in front of a volume, a userspace client,
// and a client that survives its server's restart. Subpackage kernel configures
// the client inside the Linux kernel; subpackage nbdtest has backends for tests.
//
// The protocol is the public one of the NetworkBlockDevice project ("The NBD
// protocol"): fixed newstyle handshake, simple and structured replies, meta
// contexts. All integers are big-endian.
//
//	greeting, server       "NBDMAGIC" "IHAVEOPT" u16 flags
//	greeting, client       u32 flags
//	option, client         "IHAVEOPT" u32 option, u32 length, payload
//	option reply, server   u64 0x0003e889045565a9, u32 option, u32 type, u32 length, payload
//	request                u32 0x25609513, u16 flags, u16 type, u64 cookie, u64 offset, u32 length, payload of a write
//	simple reply           u32 0x67446698, u32 error, u64 cookie, payload of a read
//	structured reply       u32 0x668e33ef, u16 flags, u16 type, u64 cookie, u32 length, payload
//
// # Server
//
// A Server negotiates; the outcome is a Conn, which moves requests from a socket
// to a Backend and replies back. One goroutine parses as many requests as one read
// of the socket brought. A request is completed from any goroutine, also from inside
// Submit, and at the end of that goroutine's turn (package turn) all replies that are
// ready are sent with one writev. Only when the client takes no more a second
// goroutine waits for it. Serve starts and joins both. In steady state a request
// costs no allocation, no goroutine and no channel operation, and its reply wakes
// nobody but the client.
//
// Invariants of a Conn:
//
//   - At most MaxInFlight requests and MaxInFlightBytes bytes of their payload
//     are between socket and socket. Past that the socket is not read.
//   - A request is completed exactly once; a second completion is a broken
//     invariant.
//   - After Quiesce returned nil nothing of the connection runs: what was
//     submitted has completed, what was not submitted never will be, and the
//     socket with its unread bytes is closed. Only then may another socket be
//     given to the same client, which will repeat what it saw no answer for
//     (rule 29).
//   - With HoldErrors, a completion that says "not by me, not now" (an engine
//     that closes, a stale epoch) is not answered: the connection ends instead,
//     and the client repeats the request to whoever serves next. So a restart
//     never becomes an I/O error.
//
// # Client
//
// A Client has one connection and fails with it. A Resilient dials for ever: it
// keeps each call until it is answered and sends the unanswered ones again, in
// their order, on each new connection. It gives up only when it is closed, or
// when the server says that the export does not exist. Both own a reader and a
// writer goroutine, joined by Close.
package nbd
