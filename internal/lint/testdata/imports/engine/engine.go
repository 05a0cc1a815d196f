package engine

import (
	_ "github.com/hashicorp/raft" // want "only cluster knows Raft"

	_ "github.com/holdfast-io/holdfast/cluster" // want "only cmd wires"
	_ "github.com/holdfast-io/holdfast/engine/core"
	_ "github.com/holdfast-io/holdfast/internal/wire"
	_ "github.com/holdfast-io/holdfast/replica/store" // want "only cmd wires"
)
