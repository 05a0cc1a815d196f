package sim

import (
	"fmt"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/replica/server"
)

// node is one machine: its disk, and its daemon while that runs.
type node struct {
	world   *World
	index   int
	id      block.NodeID
	process *process
	server  *server.Host
	// clock is that of the machine's present boot.
	clock clock
	// storage is nil on a node without a disk.
	storage *storage
	// devices are the block devices of the volumes, by their attachments. They
	// outlive the daemon, but not the machine.
	devices map[*volume]block.AttachmentID
	// agent keeps the disk in line with the cluster's state; nil without a disk.
	agent *agent
	// stocking: the daemon does not know yet which devices it has.
	stocking bool
	// applied is the node's own copy of that state, which outlives the daemon.
	applied *state.State
	// twinned is the life of the daemon that has seen a second disk with the ID of the
	// node's own.
	twinned *process
}

func (n *node) String() string { return fmt.Sprintf("node %d", n.index) }

// incarnation is that of the caches under the node's disk.
func (n *node) incarnation() block.Incarnation { return n.storage.incarnation }

// format gives the node an empty disk.
func (n *node) format() (err error) {
	n.storage, err = newStorage(n)
	return err
}

// serverLimits are just enough for what an engine may have in flight.
func serverLimits() server.Limits { return server.Limits{Running: 16, InFlight: queueMax} }

// boot starts the daemon.
func (n *node) boot() error {
	host, err := server.NewHost(n.world.cluster, serverLimits())
	if err != nil {
		return err
	}
	n.process = &process{}
	n.server = host
	if !n.world.options.Scripted {
		n.takeStock()
	}
	if n.storage == nil {
		return nil
	}
	disk, err := n.storage.open(n.process)
	if err != nil {
		return fmt.Errorf("open disk of node %d: %w", n.index, err)
	}
	if !n.world.options.Scripted || n.world.options.Replaced {
		n.agent = newAgent(n)
		n.agent.run()
	}
	return host.AddDisk(disk)
}

// kill ends the daemon; with powerLoss the machine under it as well, silently,
// and what was not synced is lost in part.
func (n *node) kill(powerLoss bool, mode lossMode) {
	w := n.world
	w.loop.log("kill %v powerLoss %v mode %d", n, powerLoss, mode)
	p := n.process
	p.dead = true
	p.gone.Store(true)
	n.process, n.server, n.agent = nil, nil, nil
	w.network.breakNode(p, powerLoss)
	for _, v := range w.volumes {
		for _, h := range append([]*host(nil), v.hosts...) {
			if h.process == p {
				h.die()
				w.drop(h)
			}
		}
	}
	if !powerLoss && n.storage != nil && len(n.storage.device.Unsynced()) > 0 {
		w.paths.count("killed with bytes that are not synced")
	}
	if powerLoss {
		n.clock = newClock(w.loop)
		clear(n.devices)
	}
	if n.storage != nil {
		n.storage.end(powerLoss, mode)
	}
}

// restart starts the daemon of a node that was killed.
func (n *node) restart() {
	n.world.loop.log("restart %v", n)
	if err := n.boot(); err != nil {
		n.world.fail("restart", fmt.Sprintf("%v: %v", n, err))
	}
}

// drop takes a host off its volume's list.
func (w *World) drop(h *host) {
	w.paths.guards(h.core.Status().Guards)
	v := h.volume
	for i, other := range v.hosts {
		if other == h {
			v.hosts = append(v.hosts[:i:i], v.hosts[i+1:]...)
			return
		}
	}
}
