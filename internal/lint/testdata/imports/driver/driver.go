package driver

import (
	_ "github.com/container-storage-interface/spec/lib/go/csi"
	_ "k8s.io/mount-utils"

	_ "github.com/holdfast-io/holdfast/cmd/holdfast"  // want "nothing imports a command"
	_ "github.com/holdfast-io/holdfast/internal/wire" // want "reached through proto"
	_ "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)
