package sim

import (
	_ "time"

	_ "github.com/holdfast-io/holdfast/engine/core"
	_ "github.com/holdfast-io/holdfast/replica/store"
)
