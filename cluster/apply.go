package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"

	"github.com/holdfast-io/holdfast/cluster/state"
	"github.com/holdfast-io/holdfast/internal/block"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// retryDelay is how long a request waits for a leader to appear before it looks
// again.
const retryDelay = 100 * time.Millisecond

// leader finds the leader. self is set if it is this member; address is else the
// control address of that server. It fails with errNoWay if none is known here.
func (c *Cluster) leader() (self bool, id raft.ServerID, address string, err error) {
	if c.leading.Load() {
		return true, "", "", nil
	}
	_, id = c.raft.LeaderWithID()
	if id == "" {
		return false, "", "", fmt.Errorf("no leader is known here: %w", errNoWay)
	}
	if id == serverID(c.NodeID()) {
		return false, "", "", fmt.Errorf("this leader is not ready yet: %w", block.ErrUnavailable)
	}
	node, err := block.ParseID(string(id))
	if err != nil {
		return false, "", "", fmt.Errorf("leader: %w", err)
	}
	record, ok := c.State().Node(block.NodeID{ID: node})
	if !ok {
		return false, "", "", fmt.Errorf("leader %s is not known here yet: %w", id, block.ErrUnavailable)
	}
	return false, id, record.ControlAddress, nil
}

// onLeader does something on the leader: here, over a connection to it, or by a
// detour through another member. It goes on to look for a leader until ctx ends as long as the answer is that
// nothing was done; retry says which other errors are worth another try.
func onLeader[T any](ctx context.Context, c *Cluster, retry func(error) bool,
	here func(context.Context) (T, error), there func(context.Context, *grpc.ClientConn) (T, error)) (T, error) {
	for {
		result, err := onLeaderOnce(ctx, c, here, there)
		if err == nil || !errors.Is(err, block.ErrNotLeader) && !retry(err) {
			return result, err
		}
		if pauseErr := c.pause(ctx, retryDelay); pauseErr != nil {
			if errors.Is(err, block.ErrNotLeader) {
				// The caller is not to look for the leader himself.
				err = fmt.Errorf("%s: %w", err.Error(), block.ErrUnavailable)
			}
			return result, fmt.Errorf("%w (%w)", err, pauseErr)
		}
	}
}

func onLeaderOnce[T any](ctx context.Context, c *Cluster,
	here func(context.Context) (T, error), there func(context.Context, *grpc.ClientConn) (T, error)) (T, error) {
	var none T
	self, leader, address, err := c.leader()
	switch {
	case errors.Is(err, errNoWay):
		return detour(ctx, c, err, there)
	case err != nil:
		return none, fmt.Errorf("%s: %w", err.Error(), block.ErrNotLeader)
	case self:
		return here(ctx)
	}
	result, err := directly(ctx, c, leader, address, there)
	if errors.Is(err, errNoWay) {
		return detour(ctx, c, err, there)
	}
	return result, err
}

// apply commits a command and waits until it is part of the local state. Every
// command can be repeated without harm but Propose, which is told by once: it is
// sent again only after an answer that it was not queued, and not waited for here,
// because the answer carries the view and held acknowledgements wait for it. An error that is not a
// refusal by the state machine (Result.Err) means that the outcome is unknown.
func (c *Cluster) apply(ctx context.Context, command state.Command, once bool) (state.Result, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	data, err := state.Encode(command)
	if err != nil {
		return state.Result{}, err
	}
	retry := func(err error) bool {
		return !once && (errors.Is(err, block.ErrUnknown) || errors.Is(err, block.ErrUnavailable))
	}
	a, err := onLeader(ctx, c, retry,
		func(ctx context.Context) (applied, error) { return c.applyHere(ctx, data) },
		func(ctx context.Context, conn *grpc.ClientConn) (applied, error) {
			return c.applyThere(ctx, conn, data)
		})
	if err != nil {
		return state.Result{}, fmt.Errorf("%s: %w", command.Kind(), err)
	}
	if !once {
		c.readOwnWrite(ctx, a.index)
	}
	return a.result, nil
}

// readOwnWrite waits until the local state holds what was just written. A member
// that the leader does not reach would wait in vain, so not for long: the answer
// is right all the same.
func (c *Cluster) readOwnWrite(ctx context.Context, index uint64) {
	ctx, cancel := context.WithTimeout(ctx, 2*c.options.Timing.Election)
	defer cancel()
	if err := c.waitIndex(ctx, index); err != nil {
		c.logger.Debug("the local state lags behind a command", "index", index, "error", err)
	}
}

// do is apply for callers that want one error.
func (c *Cluster) do(ctx context.Context, command state.Command) (state.Result, error) {
	r, err := c.apply(ctx, command, false)
	if err == nil {
		err = r.Err
	}
	return r, err
}

type applied struct {
	result state.Result
	index  uint64
}

// applyHere hands a command to the local Raft. block.ErrNotLeader means that it
// was not queued, block.ErrUnknown that it may have been.
func (c *Cluster) applyHere(ctx context.Context, data []byte) (applied, error) {
	if !c.leading.Load() {
		return applied{}, block.ErrNotLeader
	}
	return c.submit(ctx, data)
}

// submit is applyHere also before this leader is ready.
func (c *Cluster) submit(ctx context.Context, data []byte) (applied, error) {
	started := time.Now()
	const enqueueTimeout = 2 * time.Second
	var future raft.ApplyFuture
	err := c.settle(ctx, func() raft.Future {
		future = c.raft.Apply(data, enqueueTimeout)
		return future
	})
	if err != nil {
		return applied{}, err
	}
	c.metrics.applySeconds.Observe(time.Since(started).Seconds())
	result, ok := future.Response().(state.Result)
	if !ok {
		return applied{}, fmt.Errorf("answer of Raft is a %T: %w", future.Response(), block.ErrUnknown)
	}
	return applied{result: result, index: future.Index()}, nil
}

// settle asks something of Raft and waits for the answer, or for the end of ctx
// or of the member. A Raft that is shut down may never answer; what waits for it
// then ends with the process.
func (c *Cluster) settle(ctx context.Context, ask func() raft.Future) error {
	select {
	case c.applies <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ctx.Err(), block.ErrNotLeader)
	}
	future := ask()
	answer := make(chan error, 1)
	go func() {
		answer <- future.Error()
		<-c.applies
	}()
	select {
	case err := <-answer:
		return translateRaft(err)
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ctx.Err(), block.ErrUnknown)
	case <-c.closed:
		return fmt.Errorf("%w: %w", block.ErrClosed, block.ErrUnknown)
	}
}

// translateRaft tells what was certainly not queued from what may have been.
func translateRaft(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrEnqueueTimeout), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return fmt.Errorf("%w: %w", err, block.ErrNotLeader)
	default:
		return fmt.Errorf("%w: %w", err, block.ErrUnknown)
	}
}

// applyThere hands a command to the leader, or to a stop on the way to it. What is
// not an answer of the leader leaves the outcome unknown.
func (c *Cluster) applyThere(ctx context.Context, conn *grpc.ClientConn, data []byte) (applied, error) {
	ctx, cancel := c.perhapsBounded(ctx)
	defer cancel()
	resp, err := holdfastv1.NewPeerClient(conn).Apply(ctx, &holdfastv1.ApplyRequest{ClusterId: c.ClusterID().String(), Command: data})
	if err != nil {
		if definite(err) {
			return applied{}, err
		}
		return applied{}, fmt.Errorf("%w: %w", err, block.ErrUnknown)
	}
	result, err := state.DecodeResult(resp.GetResult())
	if err != nil {
		return applied{}, fmt.Errorf("%w: %w", err, block.ErrUnknown)
	}
	return applied{result: result, index: resp.GetIndex()}, nil
}

// definite reports whether the leader answered that it did not queue a command.
func definite(err error) bool {
	for _, sentinel := range []error{block.ErrNotLeader, block.ErrForeign, block.ErrVersion, block.ErrInvalid} {
		if errors.Is(err, sentinel) {
			return true
		}
	}
	return false
}

func (c *Cluster) waitIndex(ctx context.Context, index uint64) error {
	return c.Wait(ctx, func(s *state.State) bool { return s.Index() >= index })
}

// Sync waits until the local state holds everything that was committed before
// the call. It needs a leader that reaches a majority.
func (c *Cluster) Sync(ctx context.Context) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	retry := func(err error) bool { return errors.Is(err, block.ErrUnavailable) || errors.Is(err, block.ErrUnknown) }
	index, err := onLeader(ctx, c, retry,
		func(ctx context.Context) (uint64, error) { return c.readIndexHere(ctx) },
		func(ctx context.Context, conn *grpc.ClientConn) (uint64, error) {
			asking, cancel := c.perhapsBounded(ctx)
			defer cancel()
			resp, err := holdfastv1.NewPeerClient(conn).ReadIndex(asking, &holdfastv1.ReadIndexRequest{ClusterId: c.ClusterID().String()})
			if err != nil && ctx.Err() == nil && asking.Err() != nil {
				err = fmt.Errorf("%w: %w", err, block.ErrUnavailable)
			}
			return resp.GetIndex(), err
		})
	if err == nil {
		err = c.waitIndex(ctx, index)
	}
	if err != nil {
		return fmt.Errorf("read the cluster's state: %w", err)
	}
	return nil
}

// readIndexHere is the index of the leader's state, after a check that it still
// leads. Whatever was answered to anybody is in that state.
func (c *Cluster) readIndexHere(ctx context.Context) (uint64, error) {
	if !c.leading.Load() {
		return 0, block.ErrNotLeader
	}
	index := c.State().Index()
	if err := c.settle(ctx, c.raft.VerifyLeader); err != nil {
		return 0, fmt.Errorf("verify leadership: %s: %w", err.Error(), block.ErrNotLeader)
	}
	return index, nil
}
