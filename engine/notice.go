package engine

import (
	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// report logs and counts what the core reports.
func (e *Engine) report(n core.Notice) {
	e.config.Metrics.notice(n)
	log := e.log.With("replica", n.Replica.String())
	switch n.Kind {
	case core.NoticeMemberLost:
		log.Warn("replica left the in-sync set", "err", n.Err)
	case core.NoticeResyncStarted:
		log.Info("resync started", "bytes", n.Bytes)
	case core.NoticeResyncProgress:
		log.Debug("resync goes on", "remaining", n.Bytes, "copied", n.Copied)
	case core.NoticeAdmitted:
		log.Info("replica is in sync again", "copied", n.Copied)
	case core.NoticeRepaired:
		log = log.With("node", n.Node.String(), "disk", n.Disk.String(), "offset", n.Offset, "bytes", n.Bytes)
		if n.Err != nil {
			log.Warn("damage on a disk repaired from a peer", "err", n.Err)
		} else {
			log.Info("replica made equal to its peers")
		}
	case core.NoticeFrozen:
		e.log.Warn("requests wait", "err", n.Err, "in_sync", inSyncNodes(e.core.Status().View))
	case core.NoticeThawed:
		e.log.Info("requests flow again")
	case core.NoticeUnreadable:
		log.Error("no in-sync replica has these bytes intact", "node", n.Node.String(), "disk", n.Disk.String(),
			"offset", n.Offset, "bytes", n.Bytes)
	case core.NoticeDiffer:
		log.Error("replicas differ with good checksums", "offset", n.Offset, "bytes", n.Bytes)
	}
}

// inSyncNodes are those that have everything that was acknowledged.
func inSyncNodes(v block.View) []string {
	var nodes []string
	for _, m := range v.Replicas {
		if m.InSync {
			nodes = append(nodes, m.Node.String())
		}
	}
	return nodes
}
