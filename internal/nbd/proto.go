package nbd

import "github.com/holdfast-io/holdfast/internal/block"

// Magic numbers that open the messages of the protocol.
const (
	magicGreeting        uint64 = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption          uint64 = 0x49484156454f5054 // "IHAVEOPT"
	magicOptionReply     uint64 = 0x0003e889045565a9
	magicRequest         uint32 = 0x25609513
	magicSimpleReply     uint32 = 0x67446698
	magicStructuredReply uint32 = 0x668e33ef
)

// Flags of the greeting: the server's handshake flags, which the client repeats.
const (
	flagFixedNewstyle uint16 = 1 << 0
	flagNoZeroes      uint16 = 1 << 1
)

// TransmissionFlags are what a server says of an export, and what the kernel's
// client is told when a device is made.
type TransmissionFlags uint16

// The transmission flags that Holdfast knows.
const (
	FlagHasFlags        TransmissionFlags = 1 << 0
	FlagReadOnly        TransmissionFlags = 1 << 1
	FlagSendFlush       TransmissionFlags = 1 << 2
	FlagSendFUA         TransmissionFlags = 1 << 3
	FlagRotational      TransmissionFlags = 1 << 4
	FlagSendTrim        TransmissionFlags = 1 << 5
	FlagSendWriteZeroes TransmissionFlags = 1 << 6
	FlagSendDF          TransmissionFlags = 1 << 7
	FlagCanMultiConn    TransmissionFlags = 1 << 8
)

// Option is a handshake option.
type Option uint32

// The options of the standard that this package knows.
const (
	OptExportName      Option = 1
	OptAbort           Option = 2
	OptList            Option = 3
	OptStartTLS        Option = 5
	OptInfo            Option = 6
	OptGo              Option = 7
	OptStructuredReply Option = 8
	OptListMetaContext Option = 9
	OptSetMetaContext  Option = 10
)

// ReplyType is the type of an option reply.
type ReplyType uint32

// The option reply types. Those with the top bit set are errors, whose payload
// is a text for people.
const (
	RepAck         ReplyType = 1
	RepServer      ReplyType = 2
	RepInfo        ReplyType = 3
	RepMetaContext ReplyType = 4

	repError ReplyType = 1 << 31

	RepErrUnsup         = repError | 1
	RepErrPolicy        = repError | 2
	RepErrInvalid       = repError | 3
	RepErrPlatform      = repError | 4
	RepErrTLSRequired   = repError | 5
	RepErrUnknown       = repError | 6
	RepErrShutdown      = repError | 7
	RepErrBlockSizeReqd = repError | 8
	RepErrTooBig        = repError | 9
)

// Information types of OptInfo and OptGo.
const (
	infoExport      uint16 = 0
	infoName        uint16 = 1
	infoDescription uint16 = 2
	infoBlockSize   uint16 = 3
)

// Commands of the transmission phase.
const (
	cmdRead        uint16 = 0
	cmdWrite       uint16 = 1
	cmdDisconnect  uint16 = 2
	cmdFlush       uint16 = 3
	cmdTrim        uint16 = 4
	cmdWriteZeroes uint16 = 6
	cmdBlockStatus uint16 = 7
)

// Command flags.
const (
	cmdFlagFUA    uint16 = 1 << 0
	cmdFlagNoHole uint16 = 1 << 1
	cmdFlagDF     uint16 = 1 << 2
	cmdFlagReqOne uint16 = 1 << 3
)

// Types and flags of structured reply chunks.
const (
	chunkFlagDone uint16 = 1 << 0

	chunkNone        uint16 = 0
	chunkOffsetData  uint16 = 1
	chunkOffsetHole  uint16 = 2
	chunkBlockStatus uint16 = 5
	chunkErrorBit    uint16 = 1 << 15
	chunkError       uint16 = chunkErrorBit | 1
	chunkErrorOffset uint16 = chunkErrorBit | 2
)

// ContextAllocation is the standard's own meta context. The flags of its
// extents are StateHole and StateZero.
const ContextAllocation = "base:allocation"

// Extent flags of ContextAllocation.
const (
	StateHole uint32 = 1 << 0
	StateZero uint32 = 1 << 1
)

// Bounds of what this package takes from a peer, in bytes unless named
// otherwise.
const (
	// maxNameLength is the longest string the standard allows.
	maxNameLength = 4096
	// maxOptionLength bounds the payload of one option or option reply that is
	// looked at; a longer one is skipped, and above maxOptionSkip ends the
	// connection.
	maxOptionLength = 64 << 10
	maxOptionSkip   = 1 << 20
	// maxOptions bounds the options of one handshake.
	maxOptions = 256
	// maxQueries bounds the queries of one meta context option.
	maxQueries = 256
	// maxSkipPayload is the longest payload of a refused write that is read and
	// thrown away; a longer one ends the connection. The standard lets a client
	// that negotiated nothing send 32 MiB.
	maxSkipPayload = 32 << 20
	// maxStatusExtents bounds the extents of one block status reply.
	maxStatusExtents = 32 << 10
	// maxErrorText bounds the text of an error that a client keeps.
	maxErrorText = 4096
)

// DefaultMaxBlock is the longest read or write that an export takes when it
// does not say otherwise, in bytes.
const DefaultMaxBlock = block.MaxTransfer
