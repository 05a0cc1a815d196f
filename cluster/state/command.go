package state

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/holdfast-io/holdfast/internal/block"
)

// version is that of commands, results and snapshots.
const version = 1

// Command is one of the types below.
type Command interface {
	// Kind is the name of the command in its encoded form.
	Kind() string
}

// Bootstrap begins a cluster. Repeated, it changes nothing; a second cluster is
// refused with block.ErrForeign.
type Bootstrap struct {
	Cluster     block.ClusterID
	Incarnation block.ClusterIncarnation
}

// SetNode adds a node, or changes name, addresses and tags of the one that is
// there.
type SetNode struct {
	Node Node
}

// AddDisk adds a disk. One that its node already has is taken back as it is, with
// its path and capacity brought up to date. One known on another node is refused
// with block.ErrExists, unless From names that node: then the disk and the
// replicas on it move, which is for a machine that came back under a new node ID.
type AddDisk struct {
	Disk Disk
	From block.NodeID `json:",omitzero"`
}

// Placement is where one replica goes.
type Placement struct {
	Replica block.ReplicaID
	Node    block.NodeID
	Disk    block.DiskID
}

// CreateVolume makes a volume whose replicas are then made by their nodes. If the
// name is held by a volume of the same size and parameters, the result is that
// volume; with others it is block.ErrExists.
type CreateVolume struct {
	Volume     block.VolumeID
	Name       string
	Size       int64
	Parameters Parameters
	Replicas   []Placement
	// DecidedAt is the index of the state that the IDs and the placement were
	// decided on. If a volume record was dropped since, the answer is
	// block.ErrConflict: decide again.
	DecidedAt uint64
}

// ReplicaReady reports that a replica was made. With the last one the volume is
// ready and all its replicas are in sync.
type ReplicaReady struct {
	Replica     block.ReplicaID
	Incarnation block.Incarnation
}

// DeleteVolume makes a volume a tombstone. Refused with block.ErrInUse while it
// is published or attached.
type DeleteVolume struct {
	Volume block.VolumeID
}

// ReplicaGone reports that a replica of a tombstone was deleted. The last one
// takes the record along.
type ReplicaGone struct {
	Replica block.ReplicaID
}

// Publish allows a node to stage the volume. Refused with block.ErrInUse while
// another node has it.
type Publish struct {
	Volume block.VolumeID
	Node   block.NodeID
}

// Unpublish takes Publish back; a volume not published to the node is left as it
// is. A live attachment is ended in the same commit if EndAttachment is set, else
// the answer is block.ErrInUse.
type Unpublish struct {
	Volume        block.VolumeID
	Node          block.NodeID
	EndAttachment bool `json:",omitempty"`
}

// StartEngine gives an engine start its epoch (rule 2). Repeated with the same
// Start it answers with the view it made.
//
// A volume not published to Node, or an Attachment that is not the current one,
// is refused with block.ErrDetached; a fresh attachment while one is alive, or
// while another node has the volume, with block.ErrInUse; another epoch than
// Epoch with block.ErrConflict and the current view.
type StartEngine struct {
	Volume block.VolumeID
	Node   block.NodeID
	Start  block.StartID
	// Epoch is that of the view the caller saw; the new one is one higher.
	Epoch block.Epoch
	// Attachment continues that attachment. If it is zero, NewAttachment begins.
	Attachment    block.AttachmentID `json:",omitzero"`
	NewAttachment block.AttachmentID `json:",omitzero"`
}

// Propose changes a view by compare-and-set on (epoch, revision). The result has
// a verdict and the view. Conflict is also the answer once the attachment of that
// epoch has ended (nobody may propose then), and for a proposal that names
// replicas wrongly or would leave no member, with block.ErrInvalid.
type Propose struct {
	Proposal block.Proposal
}

// EndAttachment ends an attachment; the engine that served it may serve no
// longer. Ending one that is not the current one changes nothing.
type EndAttachment struct {
	Volume     block.VolumeID
	Attachment block.AttachmentID
}

// Kind implements Command.
func (Bootstrap) Kind() string { return "bootstrap" }

// Kind implements Command.
func (SetNode) Kind() string { return "set-node" }

// Kind implements Command.
func (AddDisk) Kind() string { return "add-disk" }

// Kind implements Command.
func (CreateVolume) Kind() string { return "create-volume" }

// Kind implements Command.
func (ReplicaReady) Kind() string { return "replica-ready" }

// Kind implements Command.
func (DeleteVolume) Kind() string { return "delete-volume" }

// Kind implements Command.
func (ReplicaGone) Kind() string { return "replica-gone" }

// Kind implements Command.
func (Publish) Kind() string { return "publish" }

// Kind implements Command.
func (Unpublish) Kind() string { return "unpublish" }

// Kind implements Command.
func (StartEngine) Kind() string { return "start-engine" }

// Kind implements Command.
func (Propose) Kind() string { return "propose" }

// Kind implements Command.
func (EndAttachment) Kind() string { return "end-attachment" }

type envelope struct {
	Version int             `json:"version"`
	Kind    string          `json:"kind"`
	Command json.RawMessage `json:"command"`
}

// Encode is the form in which a command goes into the log.
func Encode(c Command) ([]byte, error) {
	body, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode command %s: %w", c.Kind(), err)
	}
	data, err := json.Marshal(envelope{Version: version, Kind: c.Kind(), Command: body})
	if err != nil {
		return nil, fmt.Errorf("encode command %s: %w", c.Kind(), err)
	}
	return data, nil
}

// Decode reads what Encode wrote. A version or kind that this build does not know
// is block.ErrVersion, anything else that is wrong block.ErrInvalid.
func Decode(data []byte) (Command, error) {
	var e envelope
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, fmt.Errorf("decode command: %w: %w", err, block.ErrInvalid)
	}
	if e.Version != version {
		return nil, fmt.Errorf("decode command: version %d, this build knows %d: %w", e.Version, version, block.ErrVersion)
	}
	switch e.Kind {
	case Bootstrap{}.Kind():
		return decodeBody[Bootstrap](e)
	case SetNode{}.Kind():
		return decodeBody[SetNode](e)
	case AddDisk{}.Kind():
		return decodeBody[AddDisk](e)
	case CreateVolume{}.Kind():
		return decodeBody[CreateVolume](e)
	case ReplicaReady{}.Kind():
		return decodeBody[ReplicaReady](e)
	case DeleteVolume{}.Kind():
		return decodeBody[DeleteVolume](e)
	case ReplicaGone{}.Kind():
		return decodeBody[ReplicaGone](e)
	case Publish{}.Kind():
		return decodeBody[Publish](e)
	case Unpublish{}.Kind():
		return decodeBody[Unpublish](e)
	case StartEngine{}.Kind():
		return decodeBody[StartEngine](e)
	case Propose{}.Kind():
		return decodeBody[Propose](e)
	case EndAttachment{}.Kind():
		return decodeBody[EndAttachment](e)
	default:
		return nil, fmt.Errorf("decode command: kind %q is unknown to this build: %w", e.Kind, block.ErrVersion)
	}
}

func decodeBody[C Command](e envelope) (Command, error) {
	var c C
	if err := strict(e.Command, &c); err != nil {
		return nil, fmt.Errorf("decode command %s: %w: %w", e.Kind, err, block.ErrInvalid)
	}
	return c, nil
}

// strict decodes one JSON value and refuses unknown fields and trailing bytes.
func strict(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("bytes after the end at offset %d", d.InputOffset())
	}
	return nil
}
