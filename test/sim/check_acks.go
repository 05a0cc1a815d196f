package sim

import (
	"fmt"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// acks verifies that at any instant at most one engine of a volume acknowledges:
// once an engine serves, no older one succeeds in a request that reached it
// afterwards. (One that reached it before may still be answered late.)
type acks struct {
	fail func(checker, text string)
	// served are the steps at which the engines of a volume began to serve.
	served map[*volume]map[block.Epoch]int
}

func newAcks(fail func(checker, text string)) *acks {
	return &acks{fail: fail, served: make(map[*volume]map[block.Epoch]int)}
}

func (a *acks) serves(h *host) {
	if a.served[h.volume] == nil {
		a.served[h.volume] = make(map[block.Epoch]int)
	}
	a.served[h.volume][h.epoch] = h.world.loop.steps
}

func (a *acks) answered(h *host, op *operation) {
	if op.outcome != succeeded {
		return
	}
	newest := block.Epoch(0)
	for epoch, step := range a.served[h.volume] {
		if epoch > op.epoch && step < op.invoked {
			newest = max(newest, epoch)
		}
	}
	if newest > 0 {
		a.fail("one-engine", fmt.Sprintf("%v succeeded although epoch %d has served since step %d", op, newest,
			a.served[h.volume][newest]))
	}
	if a.served[h.volume][op.epoch] == 0 {
		a.fail("one-engine", fmt.Sprintf("%v succeeded before its engine served", op))
	}
}

// enough verifies that an engine promised nothing while fewer replicas were in
// sync than the volume asks for (rule 9). Reads go on.
func (a *acks) enough(v *block.View, minSync int, op *operation) {
	if op.kind != core.ReadRequest && v.InSync() < minSync {
		a.fail("minimum", fmt.Sprintf("%v was acknowledged by %d replicas, the volume needs %d", op, v.InSync(), minSync))
	}
}
