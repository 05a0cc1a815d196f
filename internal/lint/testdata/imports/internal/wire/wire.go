package wire

import (
	_ "github.com/container-storage-interface/spec/lib/go/csi" // want "only driver and operator know"

	_ "github.com/holdfast-io/holdfast/replica" // want "only cmd wires"
)
