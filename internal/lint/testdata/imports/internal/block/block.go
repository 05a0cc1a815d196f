package block

import (
	_ "sync"

	_ "golang.org/x/sys/unix" // want "standard library only"
)
