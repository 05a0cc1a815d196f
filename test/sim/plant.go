package sim

import (
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// plant is a bug put between the parts of a world. Each hook may be nil.
type plant struct {
	// effect changes what a core wants done; false swallows it.
	effect func(h *host, ef *core.Effect) bool
	// event changes what a core is told; false swallows it.
	event func(h *host, ev *core.Event) bool
	// request changes what reaches a replica; false swallows it.
	request func(c *conn, req *block.Request) bool
	// reply changes what a replica answers; false swallows it.
	reply func(c *conn, rep *block.Reply) bool
}
