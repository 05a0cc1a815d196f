package engine

import (
	"fmt"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
)

// backend shows an engine to a frontend.
type backend struct{ engine *Engine }

// requestKind translates what NBD asks; zero for what an engine does not serve. A
// trim is held to the same result as a write of zeros (rule 12).
func requestKind(k nbd.Kind) core.RequestKind {
	switch k {
	case nbd.KindRead:
		return core.ReadRequest
	case nbd.KindWrite:
		return core.WriteRequest
	case nbd.KindZero, nbd.KindTrim:
		return core.ZeroRequest
	case nbd.KindFlush:
		return core.FlushRequest
	default:
		return 0
	}
}

// Submit implements nbd.Backend.
func (b backend) Submit(r *nbd.Request) {
	request := core.Request{
		Kind:            requestKind(r.Kind),
		ForceUnitAccess: r.FUA,
		Offset:          r.Offset,
		Length:          r.Length,
	}
	if request.Kind == 0 {
		r.Complete(fmt.Errorf("%s request to an engine: %w", r.Kind, block.ErrInvalid), nil)
		return
	}
	if r.Kind == nbd.KindWrite {
		r.Buf.Sum()
		request.Buf = r.Buf.Retain()
	}
	b.engine.Submit(request, r, r.Turn())
}
