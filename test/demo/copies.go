package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
)

// replicaCopy is one copy of the volume as its own node shows it: a read-only
// export that reads the disk of that node and no other.
type replicaCopy struct {
	node    string
	address string
	export  string
}

// uri is the copy's name for the tools of others.
func (c replicaCopy) uri() string { return "nbd://" + c.address + "/" + c.export }

// extents reads the whole copy and returns the SHA-256 of it and of each of its
// 64 KiB extents.
func (c replicaCopy) extents(ctx context.Context) (whole [32]byte, each [][32]byte, err error) {
	var dialer net.Dialer
	socket, err := dialer.DialContext(ctx, "tcp", c.address)
	if err != nil {
		return whole, nil, fmt.Errorf("read replica on %s: %w", c.node, err)
	}
	client, err := nbd.Connect(ctx, socket, nbd.ClientConfig{Export: c.export})
	if err != nil {
		return whole, nil, fmt.Errorf("read replica on %s: %w", c.node, err)
	}
	defer client.Close()
	sum := sha256.New()
	reader := io.NewSectionReader(client, 0, client.Info().Size)
	piece := make([]byte, block.MaxTransfer)
	for {
		if ctx.Err() != nil {
			return whole, nil, ctx.Err()
		}
		n, err := io.ReadFull(reader, piece)
		for at := 0; at < n; at += block.ExtentSize {
			extent := piece[at:min(at+block.ExtentSize, n)]
			each = append(each, sha256.Sum256(extent))
		}
		sum.Write(piece[:n])
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		}
		if err != nil {
			return whole, nil, fmt.Errorf("read replica on %s: %w", c.node, err)
		}
	}
	sum.Sum(whole[:0])
	return whole, each, nil
}

// differing counts the extents in which two readings differ.
func differing(a, b [][32]byte) int {
	n := 0
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			n++
		}
	}
	return n
}

// compare lets qemu-img compare two copies.
func compare(ctx context.Context, a, b replicaCopy) error {
	out, err := exec.CommandContext(ctx, "qemu-img", "compare", "-f", "raw", "-F", "raw", a.uri(), b.uri()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("qemu-img compare of the replicas on %s and %s: %w: %s", a.node, b.node, err, strings.TrimSpace(string(out)))
	}
	return nil
}
