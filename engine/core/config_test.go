package core

import (
	"errors"
	"testing"

	"github.com/holdfast-io/holdfast/internal/block"
)

func goodConfig() Config {
	return Config{
		MinInSync: 1, Timing: Timing{}.Default(), Limits: Limits{}.Default(),
		View: block.View{Epoch: 1, Size: mib, Replicas: []block.Member{{ID: replicaID(0), InSync: true}, {ID: replicaID(1)}}},
	}
}

func TestConfigIsValidated(t *testing.T) {
	if c := goodConfig(); c.Validate() != nil {
		t.Fatal(c.Validate())
	}
	bad := map[string]func(*Config){
		"no duration":        func(c *Config) { c.Timing.LogIdle = 0 },
		"idle pings":         func(c *Config) { c.Timing.IdlePing = -1 },
		"lease too short":    func(c *Config) { c.Timing.PingInterval = c.Timing.Lease },
		"no requests":        func(c *Config) { c.Limits.Requests = 0 },
		"no window":          func(c *Config) { c.Limits.TargetWindow = 0 },
		"too many copies":    func(c *Config) { c.Limits.Copies = 1 << 20 },
		"no epoch":           func(c *Config) { c.View.Epoch = 0 },
		"no size":            func(c *Config) { c.View.Size = 0 },
		"half a sector":      func(c *Config) { c.View.Size = 700 },
		"too large":          func(c *Config) { c.View.Size = block.MaxVolumeSize + 512 },
		"nobody in sync":     func(c *Config) { c.View.Replicas[0].InSync = false },
		"a replica twice":    func(c *Config) { c.View.Replicas[1].ID = replicaID(0) },
		"no minimum":         func(c *Config) { c.MinInSync = 0 },
		"too many replicas":  func(c *Config) { c.View.Replicas = make([]block.Member, maxReplicas+1) },
		"no regions in logs": func(c *Config) { c.Limits.LogRegions = 0 },
	}
	for name, spoil := range bad {
		t.Run(name, func(t *testing.T) {
			c := goodConfig()
			spoil(&c)
			if _, err := New(c, hour); !errors.Is(err, block.ErrInvalid) {
				t.Errorf("error %v, want %v", err, block.ErrInvalid)
			}
		})
	}
}
