package engine

import (
	clock "time"
)

func wait() {
	clock.Sleep(clock.Second) // want "time.Sleep outside"
	_ = clock.NewTimer(clock.Second)
}
