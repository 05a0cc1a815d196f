package main

import (
	_ "k8s.io/klog/v2"
	_ "k8s.io/mount-utils" // want "only driver and operator know"

	_ "github.com/holdfast-io/holdfast/driver"
)

func main() {}
