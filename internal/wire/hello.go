package wire

import (
	"encoding/binary"
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
)

// Version is the version of the frames that this build speaks, versionMin the
// oldest one.
const (
	Version    = 2
	versionMin = 2
)

// option is the number of the private handshake option, "HFLD", answerType the
// type of the reply to it that comes before the acknowledgement.
const (
	option     nbd.Option    = 0x48464c44
	answerType nbd.ReplyType = 0x48464c44
)

// Sizes of the two messages of the private option, in bytes. Later versions may
// append to them, so a longer one is accepted.
const (
	helloSize       = 60
	helloAnswerSize = 44
	helloMax        = 4096
)

// features are the optional parts of the protocol that this build speaks: none
// yet.
const features uint64 = 0

// hello is what a node says of itself when it asks for frames.
type hello struct {
	versionMin uint16
	versionMax uint16
	features   uint64
	cluster    block.ClusterID
	node       block.NodeID
	replica    block.ReplicaID
}

func (h *hello) encode() []byte {
	b := make([]byte, 0, helloSize)
	b = binary.BigEndian.AppendUint16(b, h.versionMin)
	b = binary.BigEndian.AppendUint16(b, h.versionMax)
	b = binary.BigEndian.AppendUint64(b, h.features)
	b = append(b, h.cluster.ID[:]...)
	b = append(b, h.node.ID[:]...)
	return append(b, h.replica.ID[:]...)
}

func (h *hello) decode(b []byte) error {
	if len(b) < helloSize || len(b) > helloMax {
		return fmt.Errorf("hello of %d bytes: %w", len(b), block.ErrProtocol)
	}
	h.versionMin = binary.BigEndian.Uint16(b)
	h.versionMax = binary.BigEndian.Uint16(b[2:])
	h.features = binary.BigEndian.Uint64(b[4:])
	copy(h.cluster.ID[:], b[12:])
	copy(h.node.ID[:], b[28:])
	copy(h.replica.ID[:], b[44:])
	return nil
}

// helloAnswer is what the other side says to it. With a status other than
// statusOK the connection is refused, for the reason in text.
type helloAnswer struct {
	status   uint16
	version  uint16
	features uint64
	cluster  block.ClusterID
	node     block.NodeID
	text     string
}

func (a *helloAnswer) encode() []byte {
	b := make([]byte, 0, helloAnswerSize+maxErrorText)
	b = binary.BigEndian.AppendUint16(b, a.status)
	b = binary.BigEndian.AppendUint16(b, a.version)
	b = binary.BigEndian.AppendUint64(b, a.features)
	b = append(b, a.cluster.ID[:]...)
	b = append(b, a.node.ID[:]...)
	return append(b, a.text[:min(len(a.text), maxErrorText)]...)
}

func (a *helloAnswer) decode(b []byte) error {
	if len(b) < helloAnswerSize || len(b) > helloMax {
		return fmt.Errorf("answer to hello of %d bytes: %w", len(b), block.ErrProtocol)
	}
	a.status = binary.BigEndian.Uint16(b)
	a.version = binary.BigEndian.Uint16(b[2:])
	a.features = binary.BigEndian.Uint64(b[4:])
	copy(a.cluster.ID[:], b[12:])
	copy(a.node.ID[:], b[28:])
	a.text = string(b[helloAnswerSize:])
	return nil
}

// negotiate answers a hello: it refuses foreign clusters and versions without
// overlap, and else chooses the highest common version.
func negotiate(h *hello, cluster block.ClusterID, node block.NodeID) helloAnswer {
	a := helloAnswer{cluster: cluster, node: node, features: h.features & features}
	var err error
	switch {
	case h.cluster != cluster:
		err = fmt.Errorf("node %s of cluster %s at node %s of cluster %s: %w", h.node, h.cluster, node, cluster, block.ErrForeign)
	case h.versionMin > Version:
		err = fmt.Errorf("node %s speaks wire versions %d to %d, node %s %d to %d: upgrade node %s first: %w",
			h.node, h.versionMin, h.versionMax, node, versionMin, Version, node, block.ErrVersion)
	case h.versionMax < versionMin:
		err = fmt.Errorf("node %s speaks wire versions %d to %d, node %s %d to %d: upgrade node %s first: %w",
			h.node, h.versionMin, h.versionMax, node, versionMin, Version, h.node, block.ErrVersion)
	}
	if err != nil {
		a.status = statusOf(err)
		a.text = err.Error()
		return a
	}
	a.version = min(h.versionMax, Version)
	return a
}
