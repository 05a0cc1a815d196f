package replica

import (
	_ "github.com/holdfast-io/holdfast/engine"   // want "only cmd wires"
	_ "github.com/holdfast-io/holdfast/test/sim" // want "does not import its tests"
)
