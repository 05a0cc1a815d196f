package robustness

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// fault is a kind of trouble. run brings it about, waits, and mends it.
type fault struct {
	name   string
	weight int
	run    func(*round, context.Context) error
}

// faults are all kinds. The weights say how often each is drawn.
var faults = []fault{
	{"kill", 5, alone((*round).kill)},
	{"restart", 3, alone((*round).restart)},
	{"freeze", 4, alone((*round).freeze)},
	{"vanish", 4, alone((*round).vanish)},
	{"one way", 3, alone((*round).oneWay)},
	{"split", 3, (*round).splitReplica},
	{"part", 3, (*round).part},
	{"leader", 4, (*round).leaderSuffers},
	{"split leader", 3, (*round).splitLeader},
	{"chase", 2, (*round).chase},
	{"two at once", 5, (*round).twoAtOnce},
	{"kill all", 2, (*round).killAll},
	{"kill two", 2, (*round).killTwo},
	{"fill", 2, (*round).fillOne},
	{"fill all", 1, (*round).fillAll},
	{"no space", 1, (*round).noSpace},
	{"busy", 2, (*round).busy},
	{"move", 2, (*round).move},
	{"move by force", 3, (*round).moveByForce},
	{"restage", 1, (*round).restage},
}

// chooseFaults are those of a list whose names are given, separated by commas; all
// for none.
func chooseFaults(list []fault, names string) ([]fault, error) {
	if names == "" {
		return list, nil
	}
	var chosen []fault
	for _, name := range strings.Split(names, ",") {
		i := slices.IndexFunc(list, func(f fault) bool { return f.name == name })
		if i < 0 {
			return nil, fmt.Errorf("fault %q: %w", name, block.ErrNotFound)
		}
		chosen = append(chosen, list[i])
	}
	return chosen, nil
}

// The clients of a history that are not the writers of the load.
const (
	finalReader = writers + iota
	staleReader
	firstFiller
)

// roles says what a node is to the volume and to the cluster, for a table.
func (r *round) roles(ctx context.Context, node int) (string, error) {
	leader, _, err := r.stage.leader(ctx)
	if err != nil {
		return "", err
	}
	var all []string
	if node == r.stage.home {
		all = append(all, "engine")
	}
	if slices.Contains(r.stage.holders, node) {
		all = append(all, "replica")
	}
	if node == leader {
		all = append(all, "leader")
	}
	if len(all) == 0 {
		return "bystander", nil
	}
	return strings.Join(all, "+"), nil
}

// victim is a node to be hit, and what it is to the volume and to the cluster.
type victim struct {
	node  int
	roles string
}

// victim draws a node.
func (r *round) victim(ctx context.Context) (victim, error) {
	return r.victimOf(ctx, r.draw.IntN(len(r.stage.cluster.Nodes)))
}

func (r *round) victimOf(ctx context.Context, node int) (victim, error) {
	roles, err := r.roles(ctx, node)
	return victim{node: node, roles: roles}, err
}

// between draws a time.
func (r *round) between(least, most time.Duration) time.Duration {
	return least + time.Duration(r.draw.Int64N(int64(most-least)))
}

// trouble is the common part of most faults.
type trouble struct {
	kind, what string
	// node is whom it hits.
	node int
	// hold is how long it lasts.
	hold time.Duration
	// pauseMax is what writes may pause at most meanwhile; zero if nobody can say.
	pauseMax time.Duration
	// inject brings it about, mend ends it.
	inject, mend func(context.Context) error
}

func (r *round) suffer(ctx context.Context, t trouble) error {
	at := r.say("%s: %s for %.1f s", t.kind, t.what, t.hold.Seconds())
	if err := t.inject(ctx); err != nil {
		return err
	}
	pause(ctx, t.hold)
	mended := r.load.history.now()
	if err := t.mend(ctx); err != nil {
		return err
	}
	if err := r.recover(ctx, t.kind, at, mended); err != nil {
		return err
	}
	if paused := r.load.history.pause(at, mended); t.pauseMax > 0 && paused > t.pauseMax {
		return fmt.Errorf("writes paused for %v, more than %v: %w", paused, t.pauseMax, errPaused)
	}
	return nil
}

// errPaused: writes stood still for longer than the fault excuses.
var errPaused = errors.New("pause is too long")

// plan makes the trouble of a node.
type plan func(*round, victim) trouble

// alone makes a fault of trouble that hits one node.
func alone(of plan) func(*round, context.Context) error {
	return func(r *round, ctx context.Context) error {
		v, err := r.victim(ctx)
		if err != nil {
			return err
		}
		return r.suffer(ctx, of(r, v))
	}
}

// leaderSuffers aims at the leader of the Raft group.
func (r *round) leaderSuffers(ctx context.Context) error {
	leader, _, err := r.stage.leader(ctx)
	if err != nil {
		return err
	}
	v, err := r.victimOf(ctx, leader)
	if err != nil {
		return err
	}
	plans := []plan{(*round).kill, (*round).restart, (*round).freeze, (*round).vanish, (*round).oneWay}
	return r.suffer(ctx, plans[r.draw.IntN(len(plans))](r, v))
}

// twoAtOnce lets two nodes suffer, each in its own way, and ends both together.
func (r *round) twoAtOnce(ctx context.Context) error {
	plans := []plan{(*round).kill, (*round).freeze, (*round).vanish, (*round).oneWay, (*round).split}
	v, err := r.victim(ctx)
	if err != nil {
		return err
	}
	first := plans[r.draw.IntN(len(plans))](r, v)
	second := first
	for second.node == first.node {
		if v, err = r.victim(ctx); err != nil {
			return err
		}
		second = plans[r.draw.IntN(len(plans))](r, v)
	}
	apart := r.between(0, 3*time.Second)
	return r.suffer(ctx, trouble{
		kind: "two at once",
		what: fmt.Sprintf("%s %s and %.1f s later %s %s", first.kind, first.what, apart.Seconds(), second.kind, second.what),
		hold: r.between(0, 6*time.Second),
		inject: func(ctx context.Context) error {
			if err := first.inject(ctx); err != nil {
				return err
			}
			pause(ctx, apart)
			return second.inject(ctx)
		},
		mend: r.stage.heal,
	})
}

// describe is what the engine says of itself, for who wonders why nothing moves.
func (r *round) describe(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	var lines []string
	for _, n := range r.stage.cluster.Nodes {
		status, err := n.Agent().GetEngine(ctx, &holdfastv1.GetEngineRequest{VolumeId: r.stage.volume})
		if err == nil {
			lines = append(lines, fmt.Sprintf("%s: %v", n.Name, status))
		}
	}
	return strings.Join(lines, "\n")
}
