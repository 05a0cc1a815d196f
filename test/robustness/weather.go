package robustness

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// weathers are the kinds of trouble that want a kernel of one's own, and so a guest:
// netem, and a wall clock to be turned. Each is made once, in this order.
var weathers = []fault{
	{name: "delay", run: weather("50 ms of delay", "delay 50ms 20ms", nil)},
	{name: "loss", run: weather("5 % loss and a killed replica", "delay 2ms loss 5%", (*round).killReplica)},
	{name: "storm", run: weather("20 % loss", "delay 2ms loss 20%", nil)},
	{name: "disorder", run: weather("reordering and duplicates", "delay 10ms 5ms reorder 25% 50% duplicate 5%", nil)},
	{name: "forward", run: turnClock("clock an hour forward", time.Hour)},
	{name: "back", run: turnClock("clock an hour back", -time.Hour)},
	{name: "steps", run: turnClock("clock in steps", 3*time.Second, -7*time.Second, 90*time.Second, -24*time.Hour, 5*time.Second, -time.Second)},
}

// weatherHold is how long each kind of weather lasts.
const weatherHold = 10 * time.Second

// weather is netem on the way out of every node, with something more beside it.
func weather(kind, netem string, beside func(*round, context.Context) error) func(*round, context.Context) error {
	return func(r *round, ctx context.Context) error {
		_, term, err := r.stage.leader(ctx)
		if err != nil {
			return err
		}
		err = r.suffer(ctx, trouble{
			kind: kind, what: netem, hold: weatherHold,
			inject: func(ctx context.Context) error {
				err := r.stage.network.Weather(ctx, netem)
				if err == nil && beside != nil {
					err = beside(r, ctx)
				}
				return err
			},
			mend: func(ctx context.Context) error { return r.stage.network.Weather(ctx, "") },
		})
		if err != nil {
			return err
		}
		_, after, err := r.stage.leader(ctx)
		r.table.count("elections with "+kind, after-term)
		return err
	}
}

// killReplica kills a replica and starts it again after a moment.
func (r *round) killReplica(ctx context.Context) error {
	others := r.holdersBut(r.stage.home)
	n := r.stage.node(others[r.draw.IntN(len(others))])
	err := n.Kill()
	pause(ctx, time.Second)
	return errors.Join(err, n.Start(ctx))
}

// errFalse: somebody was taken for dead, or for no leader, for no reason.
var errFalse = errors.New("view or leader changed without a reason")

// turnClock turns the wall clock by each of the steps, and then by what makes it
// right again. Leases and deadlines run on a clock that nobody turns (rule 7), so
// nothing may follow: no removal, no election, and no pause that a second does not
// explain.
func turnClock(kind string, steps ...time.Duration) func(*round, context.Context) error {
	return func(r *round, ctx context.Context) error {
		if err := r.stage.inSync(ctx); err != nil {
			return err
		}
		revision, term, err := r.stage.changes(ctx)
		if err != nil {
			return err
		}
		const between = time.Second
		turned := time.Duration(0)
		err = r.suffer(ctx, trouble{
			kind: kind, what: fmt.Sprint(steps), hold: 2 * between, pauseMax: 2 * between,
			inject: func(ctx context.Context) error {
				for _, by := range steps {
					if err := turnWallClock(by); err != nil {
						return err
					}
					turned += by
					pause(ctx, between)
				}
				return nil
			},
			mend: func(context.Context) error { return turnWallClock(-turned) },
		})
		if err != nil {
			return err
		}
		newRevision, newTerm, err := r.stage.changes(ctx)
		if err == nil && (newRevision != revision || newTerm != term) {
			err = fmt.Errorf("revision %d became %d, term %d became %d: %w", revision, newRevision, term, newTerm, errFalse)
		}
		return err
	}
}

// turnWallClock sets the clock of the whole machine.
func turnWallClock(by time.Duration) error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME, &now); err != nil {
		return fmt.Errorf("read the clock: %w", err)
	}
	then := unix.NsecToTimespec(now.Nano() + int64(by))
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &then); err != nil {
		return fmt.Errorf("turn the clock by %v: %w", by, err)
	}
	return nil
}
