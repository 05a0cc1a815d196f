package cluster

import (
	_ "github.com/hashicorp/raft"
	_ "github.com/hashicorp/raft-wal"
	_ "k8s.io/klog/v2" // want "only driver and operator know"
)
