package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/block"
)

// repeatPause is the pause between two attempts at what the kernel finishes in
// its own time.
const repeatPause = 10 * time.Millisecond

// Client speaks to the kernel. It is safe for concurrent use.
type Client struct {
	conn   *genetlink.Conn
	family genetlink.Family
}

// Dial opens the netlink socket. netns is the path of the host's network
// namespace, "" when the process is in it. The error wraps block.ErrUnavailable
// when the kernel has no NBD or it is not loaded.
func Dial(netns string) (*Client, error) {
	config := &netlink.Config{}
	if netns != "" {
		file, err := os.Open(netns)
		if err != nil {
			return nil, fmt.Errorf("open network namespace: %w", err)
		}
		// The descriptor is needed during Dial only.
		defer file.Close()
		config.NetNS = int(file.Fd())
	}
	conn, err := genetlink.Dial(config)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	family, err := conn.GetFamily(familyName)
	if err == nil {
		return &Client{conn: conn, family: family}, nil
	}
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("the kernel has no NBD, or not in this network namespace (load it with \"modprobe nbd\"): %w", block.ErrUnavailable)
	}
	return nil, errors.Join(fmt.Errorf("find netlink family: %w", err), conn.Close())
}

// Close closes the netlink socket; devices stay.
func (c *Client) Close() error { return c.conn.Close() }

// call sends one command. Attempts of it are not bounded by ctx: the kernel
// answers at once.
func (c *Client) call(command uint8, attributes []byte, flags netlink.HeaderFlags) ([]genetlink.Message, error) {
	return c.conn.Execute(genetlink.Message{
		Header: genetlink.Header{Command: command, Version: familyVersion},
		Data:   attributes,
	}, c.family.ID, netlink.Request|flags)
}

// Connect makes a device on the socket and returns its index. The socket's
// descriptor may be closed afterwards.
func (c *Client) Connect(config Config, socket int) (int, error) {
	if err := config.Validate(); err != nil {
		return 0, err
	}
	attributes, err := encodeConnect(&config, socket)
	if err != nil {
		return 0, fmt.Errorf("encode NBD connect: %w", err)
	}
	// CONNECT has an answer of its own; an acknowledgement besides would be left
	// for the next command to trip over.
	replies, err := c.call(commandConnect, attributes, 0)
	if err != nil {
		return 0, fmt.Errorf("connect NBD device for %s: %w", config.Identifier, err)
	}
	for _, reply := range replies {
		if reply.Header.Command == commandConnect && len(reply.Data) > 0 {
			return decodeIndex(reply.Data)
		}
	}
	return 0, fmt.Errorf("connect NBD device for %s: no index in the answer: %w", config.Identifier, block.ErrProtocol)
}

// Reconfigure replaces the dead socket of a device. It repeats until the kernel
// has noticed that the old one is dead, or ctx ends. block.ErrNotFound: the
// device was disconnected.
func (c *Client) Reconfigure(ctx context.Context, index int, identifier string, socket int) error {
	attributes, err := encodeReconfigure(index, identifier, socket)
	if err != nil {
		return fmt.Errorf("encode NBD reconfigure: %w", err)
	}
	for {
		_, err := c.call(commandReconfigure, attributes, netlink.Acknowledge)
		if err == nil {
			return nil
		}
		if errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("reconfigure NBD device %d, which was disconnected: %w: %w", index, block.ErrNotFound, err)
		}
		if !errors.Is(err, unix.ENOSPC) {
			return fmt.Errorf("reconfigure NBD device %d: %w", index, err)
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("reconfigure NBD device %d, whose old socket is alive: %w", index, err)
		}
	}
}

// Resize gives a device another size. It may wait for the requests in the queue: the
// device must be served. block.ErrNotFound: the device was disconnected.
func (c *Client) Resize(index int, identifier string, size int64) error {
	attributes, err := encodeResize(index, identifier, size)
	if err != nil {
		return fmt.Errorf("encode NBD reconfigure: %w", err)
	}
	_, err = c.call(commandReconfigure, attributes, netlink.Acknowledge)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("resize NBD device %d, which was disconnected: %w: %w", index, block.ErrNotFound, err)
	default:
		return fmt.Errorf("resize NBD device %d: %w", index, err)
	}
}

// Disconnect ends a device: what waits in it and what comes later fails, also
// for somebody who still has it open; the kernel forgets it when he closes it. A
// device that is not connected is not an error.
func (c *Client) Disconnect(index int) error {
	attributes, err := encodeIndex(index)
	if err != nil {
		return fmt.Errorf("encode NBD disconnect: %w", err)
	}
	_, err = c.call(commandDisconnect, attributes, netlink.Acknowledge)
	if err == nil || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return fmt.Errorf("disconnect NBD device %d: %w", index, err)
}

// Status describes one device, or all with AnyIndex.
func (c *Client) Status(index int) ([]Status, error) {
	attributes, err := encodeIndex(index)
	if err != nil {
		return nil, fmt.Errorf("encode NBD status: %w", err)
	}
	replies, err := c.call(commandStatus, attributes, 0)
	if err != nil {
		return nil, fmt.Errorf("ask for the status of NBD device %d: %w", index, err)
	}
	var devices []Status
	for _, reply := range replies {
		d, err := decodeStatus(reply.Data)
		if err != nil {
			return nil, err
		}
		devices = append(devices, d...)
	}
	return devices, nil
}

func pause(ctx context.Context) error {
	timer := time.NewTimer(repeatPause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
