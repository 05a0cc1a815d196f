package sim

import "github.com/holdfast-io/holdfast/engine/core"

// rulePaths are the paths on which a guard of one of the rules in engine/DESIGN.md
// decides something.
type rulePaths struct {
	rule  int
	paths []string
}

// rules lists, by rule, what a set of runs must have met. Not here are the rules
// whose guards lie outside of what a world has: 20 (a feature that is not built), 32 (the daemon's memory; what an engine queues, and what a replica holds of a
// session, is looked at by check_memory.go).
func rules() []rulePaths {
	return []rulePaths{
		{1, []string{"agent: replica made", "agent: replica deleted", "agent: quarantine", "estate: volume is gone"}},
		{2, []string{"attach: at another node", "attach: the same attachment", "attach: one start asked for twice"}},
		{3, []string{"view: conflict", "update: view", guardNames()[core.GuardGate]}},
		{4, []string{"door: stale epoch", "door: stale session", "door: opening waits for older I/O",
			"network: older session arrives late", "engine: fenced"}},
		{5, []string{"view: removal before serving", guardNames()[core.GuardMembers]}},
		{6, []string{"raft: outcome unknown", "view: no-op", guardNames()[core.GuardJoining]}},
		{7, []string{"view: waited out", guardNames()[core.GuardLease], guardNames()[core.GuardWaitOut]}},
		{8, []string{"killed with bytes that are not synced"}},
		{9, []string{"view: last member", guardNames()[core.GuardRemoval], guardNames()[core.GuardMinimum]}},
		{10, []string{"disk that was put back leaves", guardNames()[core.GuardRolledBack]}},
		{11, []string{guardNames()[core.GuardOrder]}},
		{12, []string{"request: zero of a part of a block"}},
		{13, []string{guardNames()[core.GuardRead]}},
		{14, []string{guardNames()[core.GuardLeaving]}},
		{15, []string{"update: log cleared", guardNames()[core.GuardDivergentLog], guardNames()[core.GuardLackedLog]}},
		{16, []string{"update: dirty grows", guardNames()[core.GuardRemovalSet], guardNames()[core.GuardLogsAgain]}},
		{17, []string{"view: removal of a member that lost memory", "view: attachment ended, all lost",
			guardNames()[core.GuardLostMemory]}},
		{18, []string{"repair: divergent", "suspect bytes accepted", guardNames()[core.GuardDivergent]}},
		{19, []string{guardNames()[core.GuardDark], guardNames()[core.GuardUnreadable]}},
		{21, []string{guardNames()[core.GuardWindow]}},
		{22, []string{"resync: copy", guardNames()[core.GuardNoSet], guardNames()[core.GuardCopy],
			guardNames()[core.GuardKeptHead]}},
		{23, []string{"update: takeover", guardNames()[core.GuardTakeOver]}},
		{24, []string{"snapshot: taken", "snapshot: taken back", "snapshot: given up", "update: cut", "update: cuts are dropped",
			guardNames()[core.GuardCutWaits], guardNames()[core.GuardCut], guardNames()[core.GuardCutTarget],
			guardNames()[core.GuardCutGivenUp]}},
		{25, []string{"update: cut of a target", "update: head is kept", "update: cuts of a target are valid",
			"snapshot: deleted", guardNames()[core.GuardLayer]}},
		{26, []string{"revert: begins", "revert: done", "revert: client is refused", "revert: snapshot stays", "revert: snapshot is refused",
			"revert: engine loses the volume", "revert: back to what was kept", "revert: taken back"}},
		{27, []string{"growth: done", "update: replica grows"}},
		{28, []string{"leader: term begins", "leader: node held for dead", "completed: without a quorum", "raft: waited for quorum"}},
		{29, []string{"network: request arrives again", guardNames()[core.GuardLate]}},
		{30, []string{"hash: bad blocks", "repair: after a read", guardNames()[core.GuardBadSource]}},
		{31, []string{guardNames()[core.GuardSpace], guardNames()[core.GuardFull], guardNames()[core.GuardReadOnly]}},
	}
}

// guardNames are the paths that the core counts itself.
func guardNames() [core.Guards]string {
	return [core.Guards]string{
		core.GuardGate:         "waits until a view is stored",
		core.GuardMembers:      "attach waits for members",
		core.GuardJoining:      "write waits for a joining replica",
		core.GuardLease:        "read waits for a lease",
		core.GuardWaitOut:      "attach waits for older leases",
		core.GuardRemoval:      "write waits for a removal",
		core.GuardMinimum:      "write waits for more members",
		core.GuardRolledBack:   "disk went back behind a flush",
		core.GuardOrder:        "write waits for what it overlaps",
		core.GuardRead:         "read waits for a write",
		core.GuardLeaving:      "write waits for a clearing of the logs",
		core.GuardDivergentLog: "divergent region stays in the logs",
		core.GuardLackedLog:    "region is marked before it is cleared",
		core.GuardRemovalSet:   "dirty set begins with the logs",
		core.GuardLogsAgain:    "logs are added to a dirty set again",
		core.GuardLostMemory:   "member lost its memory",
		core.GuardDivergent:    "request waits for a repair",
		core.GuardDark:         "all members are lost, none removed",
		core.GuardUnreadable:   "nobody can serve a read",
		core.GuardWindow:       "write misses a target, window full",
		core.GuardNoSet:        "dirty set is missing or misnamed",
		core.GuardCopy:         "write waits for a copy",
		core.GuardKeptHead:     "kept head makes room",
		core.GuardTakeOver:     "dirty set is taken over",
		core.GuardCutWaits:     "cut waits",
		core.GuardCut:          "write waits for a cut",
		core.GuardCutTarget:    "write waits for the cut of a target",
		core.GuardCutGivenUp:   "cut is given up",
		core.GuardPartial:      "member that lacks a snapshot leaves",
		core.GuardLayer:        "copy goes through a layer",
		core.GuardLate:         "late reply is dropped",
		core.GuardBadSource:    "copy stops at bad bytes",
		core.GuardSpace:        "full member leaves",
		core.GuardFull:         "write waits for space",
		core.GuardReadOnly:     "last member takes no writes",
	}
}

// guards takes over what a core has counted.
func (p *paths) guards(counts [core.Guards]uint64) {
	for g, name := range guardNames() {
		if counts[g] > 0 {
			p.counts[name] += int(counts[g])
		}
	}
}
