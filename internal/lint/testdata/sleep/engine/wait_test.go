package engine

import "time"

func slow() { time.Sleep(time.Second) }
