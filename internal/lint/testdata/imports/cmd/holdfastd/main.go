package main

import (
	_ "github.com/holdfast-io/holdfast/cluster"
	_ "github.com/holdfast-io/holdfast/engine"
	_ "github.com/holdfast-io/holdfast/replica"
)

func main() {}
