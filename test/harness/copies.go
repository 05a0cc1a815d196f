package harness

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/mtls"
	"github.com/holdfast-io/holdfast/internal/nbd"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// Copy is one replica of a volume as its own node shows it: a read-only export
// that reads the disk of that node and no other.
type Copy struct {
	Node *Node
	// Export is its name at the data address of the node.
	Export string
}

// Copies are the replicas of a volume on those nodes that run.
func (c *Cluster) Copies(ctx context.Context, volume string) ([]Copy, error) {
	var all []Copy
	for _, n := range c.Nodes {
		if !n.Running() {
			continue
		}
		list, err := n.Agent().ListReplicas(ctx, &holdfastv1.ListReplicasRequest{VolumeId: volume})
		if err != nil {
			return nil, fmt.Errorf("list replicas on %s: %w", n.Name, err)
		}
		for _, r := range list.GetReplicas() {
			all = append(all, Copy{Node: n, Export: r.GetExportName()})
		}
	}
	return all, nil
}

// URI is the copy's name for the tools of others.
func (c Copy) URI() string { return "nbd://" + c.Node.DataAddress + "/" + c.Export }

// Export connects to a read-only export of the node.
func (n *Node) Export(ctx context.Context, name string, contexts ...string) (*nbd.Client, error) {
	socket, err := n.cluster.options.Dial(ctx, "tcp", n.DataAddress)
	if err != nil {
		return nil, err
	}
	config := nbd.ClientConfig{Export: name, Contexts: contexts}
	if n.TLS.Given() {
		identity, err := mtls.Open(n.TLS, slog.New(slog.DiscardHandler), mtls.Node)
		if err != nil {
			return nil, errors.Join(err, socket.Close())
		}
		config.TLS = identity.Client()
	}
	return nbd.Connect(ctx, socket, config)
}

// Sums are the SHA-256 of a copy and of each of its 64 KiB extents.
type Sums struct {
	Whole   [sha256.Size]byte
	Extents [][sha256.Size]byte
}

// Sums reads the whole copy.
func (c Copy) Sums(ctx context.Context) (Sums, error) {
	sums, err := c.sums(ctx)
	if err != nil {
		return Sums{}, fmt.Errorf("read replica on %s: %w", c.Node.Name, err)
	}
	return sums, nil
}

func (c Copy) sums(ctx context.Context) (Sums, error) {
	client, err := c.Node.Export(ctx, c.Export)
	if err != nil {
		return Sums{}, err
	}
	sums, err := SumsOf(ctx, io.NewSectionReader(client, 0, client.Info().Size))
	return sums, errors.Join(err, client.Close())
}

// SumsOf reads what there is to its end.
func SumsOf(ctx context.Context, from io.Reader) (Sums, error) {
	var sums Sums
	whole := sha256.New()
	piece := make([]byte, block.MaxTransfer)
	for {
		if err := ctx.Err(); err != nil {
			return Sums{}, err
		}
		n, err := io.ReadFull(from, piece)
		for at := 0; at < n; at += block.ExtentSize {
			sums.Extents = append(sums.Extents, sha256.Sum256(piece[at:min(at+block.ExtentSize, n)]))
		}
		whole.Write(piece[:n])
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			whole.Sum(sums.Whole[:0])
			return sums, nil
		}
		if err != nil {
			return Sums{}, err
		}
	}
}

// Differing are the extents in which two readings differ.
func (s Sums) Differing(other Sums) []int {
	var differ []int
	for i := range max(len(s.Extents), len(other.Extents)) {
		if i >= len(s.Extents) || i >= len(other.Extents) || s.Extents[i] != other.Extents[i] {
			differ = append(differ, i)
		}
	}
	return differ
}
