package engine

import (
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/nbd"
)

// backend shows an engine to a frontend.
type backend struct{ engine *Engine }

// requestKinds translates what NBD asks. A trim is held to the same result as a
// write of zeros (rule 12).
var requestKinds = [...]core.RequestKind{
	nbd.KindRead:  core.ReadRequest,
	nbd.KindWrite: core.WriteRequest,
	nbd.KindZero:  core.ZeroRequest,
	nbd.KindTrim:  core.ZeroRequest,
	nbd.KindFlush: core.FlushRequest,
}

// Submit implements nbd.Backend.
func (b backend) Submit(r *nbd.Request) {
	request := core.Request{
		Kind:            requestKinds[r.Kind],
		ForceUnitAccess: r.FUA,
		Offset:          r.Offset,
		Length:          r.Length,
	}
	if r.Kind == nbd.KindWrite {
		request.Buf = r.Buf.Retain()
	}
	b.engine.Submit(request, r)
}
