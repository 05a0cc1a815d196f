// Package wire carries requests and replies between engines and replicas.
//
// # Connections
//
// A node has one listener. A connection to it begins with the handshake of NBD
// (fixed newstyle, STARTTLS where configured). A client that then asks for the
// private option below gets Holdfast's frames; any other gets the node's
// read-only exports by the standard protocol, so that nothing can write past an
// engine. A connection of frames belongs to one replica and one session: its
// first request is OpOpen.
//
// # Invariants
//
//   - Nothing of a frame that is damaged, cut short, out of bounds or of another
//     replica is handed over; the connection ends with block.ErrProtocol.
//   - Requests are handed to a replica's Session in the order in which they were
//     sent. Replies have no order.
//   - Send never waits. What an engine's end holds unsent is bounded by Limits;
//     past them the link is lost. A replica's end that holds Limits unanswered
//     does not read on.
//   - Receive is not called after Lost. Lost is called at most once, and not
//     after Close.
//   - A request or reply costs no allocation, goroutine or channel operation in
//     steady state, and its data are copied at most from the read buffer.
//
// # Goroutines
//
// Who calls Send, or answers, sends: at the end of its turn (package turn) all that
// is queued goes with one writev that does not wait.
//
// An engine's end has two goroutines, started by Dial: the reader, which calls
// Receive and, at the end, Lost; and the writer, which goes on where a peer took no
// more, and waits for it. They end after Close or the loss of the connection, and are
// joined through Done. A replica's end runs on a goroutine of Server.Serve as reader,
// which calls Session.Handle, and a second one as writer; both are joined before
// Serve returns. Local has none.
//
// # The private option
//
// Its number is 0x48464c44. All integers are big-endian. The client sends
//
//	offset  size  field
//	     0     2  lowest wire version that the client speaks
//	     2     2  highest wire version
//	     4     8  feature bits (none are defined yet)
//	    12    16  cluster ID
//	    28    16  node ID of the client
//	    44    16  replica ID
//
// and is answered with a reply of type 0x48464c44, then an acknowledgement. The
// reply is
//
//	 0     2  status: 0, or the number of the error that refuses the client
//	 2     2  wire version chosen, the highest that both speak
//	 4     8  feature bits that both have
//	12    16  cluster ID of the server
//	28    16  node ID of the server
//	44        text for people, when refused
//
// Later versions append to both; what is longer than expected is accepted, to
// 4096 bytes. A foreign cluster is refused here with block.ErrForeign, versions
// without overlap with block.ErrVersion; the text names both sides.
//
// # Frames
//
// A frame is a header, metadata and data.
//
//	offset  size  field
//	     0     4  0x48464c44
//	     4     1  wire version
//	     5     1  1 request, 2 reply
//	     6     1  operation (block.Op)
//	     7     1  flags (block.Flags) of a request; 0 in a reply
//	     8     2  0 in a request; status of a reply
//	    10     2  0
//	    12     4  length of the metadata
//	    16    16  replica ID
//	    32     8  epoch
//	    40     8  session
//	    48     8  sequence number
//	    56     8  offset in the volume; in a reply the free space of the disk
//	    64     8  length in the volume; 0 in a reply
//	    72     4  length of the data
//	    76     4  CRC32C of metadata and data
//	    80     4  CRC32C of bytes 0 to 79
//
// Which metadata and data belong to a frame:
//
//	request  open    Open, exactly 88 bytes
//	         read, zero, changed
//	                 snapshot ID (16), or no metadata for the head
//	         hash    the same, or snapshot ID (16; zeros for the head) and the ID
//	                 (16) of the cut to compare with
//	         write   as read; data of the range's length, at most 1 MiB
//	         flush   flush number, list of confirmed
//	         update  Update, at most 24 MiB
//	reply    open    Opened, at most 24 MiB
//	         read    no metadata; the data, at most 1 MiB
//	         changed no metadata; a bit for each extent, at most 2048 bytes
//	         hash    count (4), and for each extent SHA-256 (32), bad (2), suspect
//	                 (2); then the next snapshot ID (16), or nothing
//	         error   text for people, at most 1024 bytes
//
// and none to all others. The parts of metadata, with their sizes:
//
//	Open          cluster (16), volume (16), replica (16), fence (32), size (8)
//	fence         cluster incarnation (8), generation (8), epoch (8), session (8)
//	Opened        incarnation, View, regions of the log, list of dirty sets, flush
//	              number, list of confirmed, cuts, size (8), free (8)
//	incarnation   boot ID (16), disk sequence (8), superblock (8)
//	flush number  epoch (8), number (8)
//	confirmed     replica (16), flush number
//	regions       count of pages (2), at most 8192, and for each in rising order
//	              number (4), 8 words (8 each) that are not all 0
//	dirty set     replica (16), removal (8), regions
//	View          volume (16), generation (8), cluster incarnation (8), attachment
//	              (16), owner (16), start (16), epoch (8), revision (8), size (8),
//	              flags (1; bit 0: not waited out), list of members, snapshots
//	member        replica (16), node (16), disk (16), flags (1; bit 0: in sync),
//	              removed (8), incarnation
//	snapshots     count (2), at most 4096, and for each ID (16), size (8), created (8)
//	cuts          count (2), at most 4160, and for each snapshot (16), epoch (8),
//	              size (8), flags (1; bit 0: valid, bit 1: kept)
//	Update        flags (1; bit 0: a View follows, bit 1: keep the head), View, lists
//	              of dirty sets to set, to add and to clear, list of replicas (16
//	              each) whose sets to drop, regions to clear in the log, cuts to
//	              take, IDs (16 each) of cuts to make valid and of cuts to drop, size
//	              to grow to (8)
//	cuts to take  count (2), at most 4160, and for each snapshot (16), epoch (8),
//	              flags (1; bit 0: target); lists of IDs of cuts are as long at most
//	list          count (2), at most 64, then its elements
package wire
