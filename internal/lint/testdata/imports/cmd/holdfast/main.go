package main

import (
	_ "github.com/holdfast-io/holdfast/cluster" // want "reached through proto"
)

func main() {}
