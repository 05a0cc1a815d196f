package core

import (
	"fmt"

	"github.com/holdfast-io/holdfast/internal/block"
)

const (
	millisecond int64 = 1e6
	second            = 1000 * millisecond
)

// Default are the durations for replicas on one local network.
func (Timing) Default() Timing {
	return Timing{
		PingInterval:    500 * millisecond,
		IdlePing:        10 * second,
		Lease:           1000 * millisecond,
		LeaseMargin:     250 * millisecond,
		PingDeadline:    2500 * millisecond,
		ReplicaDeadline: 8 * second,
		AttachGrace:     1500 * millisecond,
		AttachWait:      5 * second,
		ConnectRetry:    500 * millisecond,
		ProposeRetry:    100 * millisecond,
		NoSpaceRetry:    second,
		JobGap:          20 * millisecond,
		LogIdle:         30 * second,
		CutHold:         second,
		NumberGap:       second,
		FlushGather:     2 * millisecond,
	}
}

// Validate reports durations with which the protocol cannot work.
func (t Timing) Validate() error {
	for _, d := range []int64{
		t.PingInterval, t.Lease, t.LeaseMargin, t.PingDeadline, t.ReplicaDeadline, t.AttachGrace, t.AttachWait,
		t.ConnectRetry, t.ProposeRetry, t.NoSpaceRetry, t.LogIdle, t.CutHold,
	} {
		if d <= 0 {
			return fmt.Errorf("timing %+v: every duration must be positive: %w", t, block.ErrInvalid)
		}
	}
	if t.IdlePing < 0 {
		return fmt.Errorf("timing: %d ns between the pings of an idle engine: %w", t.IdlePing, block.ErrInvalid)
	}
	if t.JobGap < 0 || t.NumberGap < 0 || t.FlushGather < 0 {
		return fmt.Errorf("timing: gaps of %d ns between jobs and %d ns between flush numbers, flushes wait for %d ns: %w",
			t.JobGap, t.NumberGap, t.FlushGather, block.ErrInvalid)
	}
	if t.PingInterval*2 > t.Lease {
		return fmt.Errorf("timing: lease %d ns is shorter than two ping intervals of %d ns: %w",
			t.Lease, t.PingInterval, block.ErrInvalid)
	}
	return nil
}

// Default are limits that keep a core within a few hundred kilobytes, payloads
// apart.
func (Limits) Default() Limits {
	return Limits{Requests: 256, TargetWindow: 128, Copies: 8, LogRegions: 256}
}

// Validate reports limits with which the protocol cannot work.
func (l Limits) Validate() error {
	if l.Requests < 1 || l.TargetWindow < 1 || l.Copies < 1 || l.LogRegions < 1 ||
		l.Requests > 1<<15 || l.TargetWindow > 1<<15 || l.Copies > 1<<10 {
		return fmt.Errorf("limits %+v: out of range: %w", l, block.ErrInvalid)
	}
	return nil
}

// Validate reports a configuration that no core can be born with.
func (c *Config) Validate() error {
	if err := c.Timing.Validate(); err != nil {
		return err
	}
	if err := c.Limits.Validate(); err != nil {
		return err
	}
	v := &c.View
	switch {
	case v.Epoch == 0:
		return fmt.Errorf("volume %s: view without an epoch: %w", v.Volume, block.ErrInvalid)
	case v.Size <= 0 || v.Size > block.MaxVolumeSize || v.Size%block.SectorSize != 0:
		return fmt.Errorf("volume %s: size %d: %w", v.Volume, v.Size, block.ErrInvalid)
	case len(v.Replicas) > maxReplicas:
		return fmt.Errorf("volume %s: %d replicas: %w", v.Volume, len(v.Replicas), block.ErrInvalid)
	case v.InSync() == 0:
		return fmt.Errorf("volume %s: empty in-sync set: %w", v.Volume, block.ErrInvalid)
	case c.MinInSync < 1:
		return fmt.Errorf("volume %s: at least %d members: %w", v.Volume, c.MinInSync, block.ErrInvalid)
	}
	for i := range v.Replicas {
		for k := range i {
			if v.Replicas[i].ID == v.Replicas[k].ID {
				return fmt.Errorf("volume %s: replica %s twice: %w", v.Volume, v.Replicas[i].ID, block.ErrInvalid)
			}
		}
	}
	return nil
}
