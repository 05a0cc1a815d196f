module example.org/planted

go 1.26.0

require github.com/hashicorp/raft-boltdb/v2 v2.3.1 // want "raft-boltdb"

require (
	github.com/cockroachdb/pebble v1.1.0 // want "old version"
	github.com/cockroachdb/pebble/v2 v2.1.7
	github.com/hashicorp/raft v1.7.3 // want "raft is not v1.8.0"
	github.com/hashicorp/raft-wal v0.4.0
)

replace example.org/a => ../a // want "a replacement"
