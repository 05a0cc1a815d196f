package state

import (
	_ "sync/atomic" // want "a pure package"

	_ "github.com/holdfast-io/holdfast/internal/invariant"
)
