package core

import (
	_ "errors"
	_ "math/rand/v2" // want "a pure package"
	_ "net/netip"    // want "a pure package"
	_ "time"         // want "a pure package"

	_ "github.com/holdfast-io/holdfast/internal/block"
	_ "github.com/holdfast-io/holdfast/internal/clock" // want "a pure package"
)
