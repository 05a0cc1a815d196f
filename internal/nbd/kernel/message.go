package kernel

import (
	"fmt"

	"github.com/mdlayher/netlink"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
)

// The generic netlink family.
const (
	familyName    = "nbd"
	familyVersion = 1
)

// Commands of the family.
const (
	commandConnect     = 1
	commandDisconnect  = 2
	commandReconfigure = 3
	commandStatus      = 5
)

// Attributes of the family.
const (
	attrIndex             = 1
	attrSizeBytes         = 2
	attrBlockSizeBytes    = 3
	attrTimeout           = 4
	attrServerFlags       = 5
	attrSockets           = 7
	attrDeadConnTimeout   = 8
	attrDeviceList        = 9
	attrBackendIdentifier = 10

	attrSocketItem = 1
	attrSocketFD   = 1

	attrDeviceItem      = 1
	attrDeviceIndex     = 1
	attrDeviceConnected = 2
)

// deadConnTimeoutSeconds is practically for ever. The kernel multiplies it by
// its clock rate in a signed 64-bit number.
const deadConnTimeoutSeconds = 1 << 30

// maxIdentifierLength bounds a backend identifier, which sysfs shows in a page.
const maxIdentifierLength = 1024

// AnyIndex lets the kernel choose a free device.
const AnyIndex = -1

// Config describes a device to make.
type Config struct {
	// Index is the number of the device, or AnyIndex.
	Index int
	// Size is in bytes, BlockSize is the logical block size: 512 or 4096.
	Size      int64
	BlockSize int
	// Flags are the transmission flags of the server.
	Flags nbd.TransmissionFlags
	// Identifier names what is behind the device.
	Identifier string
}

// Validate reports what is wrong with the configuration.
func (c *Config) Validate() error {
	switch {
	case c.Index < AnyIndex:
		return fmt.Errorf("NBD device index %d: %w", c.Index, block.ErrInvalid)
	case c.BlockSize != block.SectorSize && c.BlockSize != block.BlockSize:
		return fmt.Errorf("NBD device with blocks of %d bytes: %w", c.BlockSize, block.ErrInvalid)
	case c.Size <= 0 || c.Size%int64(c.BlockSize) != 0:
		return fmt.Errorf("NBD device of %d bytes: %w", c.Size, block.ErrInvalid)
	case c.Identifier == "" || len(c.Identifier) > maxIdentifierLength:
		return fmt.Errorf("NBD device with an identifier of %d bytes: %w", len(c.Identifier), block.ErrInvalid)
	}
	return nil
}

// encodeConnect forms the attributes of CONNECT.
func encodeConnect(c *Config, socket int) ([]byte, error) {
	e := netlink.NewAttributeEncoder()
	if c.Index != AnyIndex {
		e.Uint32(attrIndex, uint32(c.Index))
	}
	e.Uint64(attrSizeBytes, uint64(c.Size))
	e.Uint64(attrBlockSizeBytes, uint64(c.BlockSize))
	e.Uint64(attrTimeout, 0)
	e.Uint64(attrDeadConnTimeout, deadConnTimeoutSeconds)
	e.Uint64(attrServerFlags, uint64(c.Flags))
	e.String(attrBackendIdentifier, c.Identifier)
	encodeSocket(e, socket)
	return e.Encode()
}

// encodeReconfigure forms the attributes of RECONFIGURE.
func encodeReconfigure(index int, identifier string, socket int) ([]byte, error) {
	e := netlink.NewAttributeEncoder()
	e.Uint32(attrIndex, uint32(index))
	e.Uint64(attrDeadConnTimeout, deadConnTimeoutSeconds)
	e.String(attrBackendIdentifier, identifier)
	encodeSocket(e, socket)
	return e.Encode()
}

// encodeResize forms the attributes of a RECONFIGURE that changes the size alone.
func encodeResize(index int, identifier string, size int64) ([]byte, error) {
	e := netlink.NewAttributeEncoder()
	e.Uint32(attrIndex, uint32(index))
	e.Uint64(attrSizeBytes, uint64(size))
	e.String(attrBackendIdentifier, identifier)
	return e.Encode()
}

func encodeSocket(e *netlink.AttributeEncoder, socket int) {
	e.Nested(attrSockets, func(list *netlink.AttributeEncoder) error {
		list.Nested(attrSocketItem, func(item *netlink.AttributeEncoder) error {
			item.Uint32(attrSocketFD, uint32(socket))
			return nil
		})
		return nil
	})
}

// encodeIndex forms the attributes of DISCONNECT and STATUS. Without an index
// STATUS speaks of all devices.
func encodeIndex(index int) ([]byte, error) {
	e := netlink.NewAttributeEncoder()
	if index != AnyIndex {
		e.Uint32(attrIndex, uint32(index))
	}
	return e.Encode()
}

// decodeIndex reads the answer to CONNECT.
func decodeIndex(b []byte) (int, error) {
	d, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return 0, fmt.Errorf("decode NBD index: %w: %w", block.ErrProtocol, err)
	}
	index := AnyIndex
	for d.Next() {
		if d.Type() == attrIndex {
			index = int(d.Uint32())
		}
	}
	if err := d.Err(); err != nil {
		return 0, fmt.Errorf("decode NBD index: %w: %w", block.ErrProtocol, err)
	}
	if index < 0 {
		return 0, fmt.Errorf("decode NBD index: there is none: %w", block.ErrProtocol)
	}
	return index, nil
}

// Status is what the kernel says of one device.
type Status struct {
	Index     int
	Connected bool
}

// decodeStatus reads the answer to STATUS.
func decodeStatus(b []byte) ([]Status, error) {
	d, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return nil, fmt.Errorf("decode NBD status: %w: %w", block.ErrProtocol, err)
	}
	var devices []Status
	for d.Next() {
		if d.Type() != attrDeviceList {
			continue
		}
		d.Nested(func(list *netlink.AttributeDecoder) error {
			for list.Next() {
				if list.Type() == attrDeviceItem {
					list.Nested(func(item *netlink.AttributeDecoder) error {
						devices = append(devices, decodeDevice(item))
						return nil
					})
				}
			}
			return nil
		})
	}
	if err := d.Err(); err != nil {
		return nil, fmt.Errorf("decode NBD status: %w: %w", block.ErrProtocol, err)
	}
	return devices, nil
}

func decodeDevice(item *netlink.AttributeDecoder) Status {
	var s Status
	for item.Next() {
		switch item.Type() {
		case attrDeviceIndex:
			s.Index = int(item.Uint32())
		case attrDeviceConnected:
			s.Connected = item.Uint8() != 0
		}
	}
	return s
}
