package engine

import (
	"errors"
	"log/slog"

	"github.com/holdfast-io/holdfast/engine/core"
	"github.com/holdfast-io/holdfast/internal/block"
)

// report logs and counts what the core reports.
func (e *Engine) report(n core.Notice) {
	e.config.Metrics.notice(n)
	e.watched.notice(n)
	log := e.log.With("replica", n.Replica.String())
	switch n.Kind {
	case core.NoticeMemberLost:
		if errors.Is(n.Err, block.ErrDetached) {
			log.Info("replica has been replaced")
			return
		}
		log.Warn("replica left the in-sync set", "err", n.Err)
	case core.NoticeResyncStarted:
		log.Info("resync started", "bytes", n.Bytes)
	case core.NoticeResyncProgress:
		log.Debug("resync goes on", "remaining", n.Bytes, "copied", n.Copied)
	case core.NoticeNoRoom:
		log.Warn("resync waits for room on the replica's disk", "remaining", n.Bytes)
	case core.NoticeAdmitted:
		log.Info("replica is in sync again", "copied", n.Copied)
	case core.NoticeRepaired, core.NoticeUnreadable, core.NoticeDiffer:
		if !n.Snapshot.IsZero() {
			log = log.With("snapshot", n.Snapshot.String())
		}
		reportBytes(log.With("node", n.Node.String(), "disk", n.Disk.String(), "offset", n.Offset, "bytes", n.Bytes), n)
	case core.NoticeFrozen:
		e.log.Warn("requests wait", "err", n.Err, "in_sync", inSyncNodes(e.core.Status().View))
	case core.NoticeThawed:
		e.log.Info("requests flow again")
	}
}

// reportBytes logs what was found on a disk.
func reportBytes(log *slog.Logger, n core.Notice) {
	switch {
	case n.Kind == core.NoticeUnreadable:
		log.Error("no in-sync replica has these bytes intact")
	case n.Kind == core.NoticeDiffer && n.Err == nil:
		log.Error("replicas differ with good checksums")
	case n.Kind == core.NoticeDiffer:
		log.Warn("damage on a disk holds a copy up", "err", n.Err)
	case n.Err != nil:
		log.Warn("damage on a disk repaired from a peer", "err", n.Err)
	default:
		log.Info("replica made equal to its peers")
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
