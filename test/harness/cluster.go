package harness

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
	"github.com/holdfast-io/holdfast/test/harness/certs"
)

// The ports that every node uses on its own address.
const (
	controlPort = "7420"
	dataPort    = "7421"
	raftPort    = "7422"
	metricsPort = "7423"
	debugPort   = "7424"
)

const (
	// startTimeout bounds the start of a cluster, stopTimeout each step of its end.
	startTimeout = 60 * time.Second
	stopTimeout  = 20 * time.Second
	// pollInterval is how often Wait asks.
	pollInterval = 50 * time.Millisecond
)

// Options describe a cluster.
type Options struct {
	Binaries Binaries
	// Nodes defaults to 3.
	Nodes int
	// Dir is where everything lies; it must not exist. By default it is made in
	// /var/tmp, which is on a disk: a memory file system has no O_DIRECT.
	Dir string
	// DaemonArgs are added to the arguments of every daemon, PluginArgs to those of
	// every plugin.
	DaemonArgs, PluginArgs []string
	// Debug lets every daemon offer profiles, at Node.DebugAddress.
	Debug bool
	// Hosts are the addresses of the nodes, if they are not to be loopback ones.
	Hosts []string
	// TLS gives every node a certificate of an authority of this cluster.
	TLS bool
	// Prefix is what a daemon is started by, such as ["nsenter", "--net=..."]; it
	// must become the daemon by execve, so that signals reach it.
	Prefix func(n *Node) []string
	// Dial reaches the nodes from the test, if Hosts are not of this machine.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Cluster is a set of daemons that form one Holdfast cluster.
type Cluster struct {
	Nodes []*Node
	Dir   string

	// Authority issues the certificates of the nodes, nil without Options.TLS.
	Authority *certs.Authority

	options Options
}

// Start starts a cluster and waits until all its nodes are members and alive. If
// that fails, everything is cleaned up already.
func Start(ctx context.Context, options Options) (*Cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if options.Nodes == 0 {
		options.Nodes = 3
	}
	if options.Dial == nil {
		options.Dial = new(net.Dialer).DialContext
	}
	c, err := prepare(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("prepare cluster: %w", err)
	}
	if err := c.start(ctx); err != nil {
		return nil, fmt.Errorf("start cluster: %w", errors.Join(err, c.Stop(context.WithoutCancel(ctx))))
	}
	return c, nil
}

// prepare makes the directories and chooses the addresses.
func prepare(ctx context.Context, options Options) (*Cluster, error) {
	var err error
	if options.Dir == "" {
		options.Dir, err = os.MkdirTemp("/var/tmp", "holdfast-")
	} else {
		err = os.Mkdir(options.Dir, 0o750)
	}
	if err != nil {
		return nil, err
	}
	c := &Cluster{Dir: options.Dir, options: options}
	if options.TLS {
		if c.Authority, err = certs.NewAuthority(); err != nil {
			return nil, errors.Join(err, os.RemoveAll(c.Dir))
		}
	}
	hosts := options.Hosts
	if hosts == nil {
		if hosts, err = freeHosts(ctx, options.Nodes); err != nil {
			return nil, errors.Join(err, os.RemoveAll(c.Dir))
		}
	}
	for i, host := range hosts {
		n, err := newNode(c, i, host)
		if err != nil {
			return nil, errors.Join(err, os.RemoveAll(c.Dir))
		}
		c.Nodes = append(c.Nodes, n)
	}
	return c, nil
}

// freeHosts finds a loopback network whose first addresses nobody uses.
func freeHosts(ctx context.Context, nodes int) ([]string, error) {
	const attempts = 100
	for range attempts {
		var random [2]byte
		if _, err := rand.Read(random[:]); err != nil {
			return nil, err
		}
		// 127.0 and 127.1 are what people type by hand.
		var hosts []string
		for i := range nodes {
			hosts = append(hosts, fmt.Sprintf("127.%d.%d.%d", 2+int(random[0])%250, random[1], i+1))
		}
		if areFree(ctx, hosts) {
			return hosts, nil
		}
	}
	return nil, errors.New("no free loopback network was found")
}

func areFree(ctx context.Context, hosts []string) bool {
	var config net.ListenConfig
	for _, host := range hosts {
		listener, err := config.Listen(ctx, "tcp", net.JoinHostPort(host, controlPort))
		if err != nil {
			return false
		}
		listener.Close()
	}
	return true
}

// start starts the first node, then the others, and waits for all.
func (c *Cluster) start(ctx context.Context) error {
	for i, n := range c.Nodes {
		var err error
		if i == 0 {
			err = n.startWith(ctx, "--bootstrap")
		} else {
			err = n.startWith(ctx, "--join", c.Nodes[0].ControlAddress)
		}
		if err != nil {
			return err
		}
	}
	return c.WaitAlive(ctx, c.Nodes...)
}

// WaitAlive waits until the first of some nodes, and so the leader, knows that all of
// them are alive and have applied what the cluster had decided when this began: only
// then can any of them be elected.
func (c *Cluster) WaitAlive(ctx context.Context, nodes ...*Node) error {
	var decided uint64
	return Wait(ctx, "nodes to be alive", func(ctx context.Context) error {
		for _, n := range nodes {
			if err := n.daemon.check(); err != nil {
				return Stop(err)
			}
		}
		response, err := nodes[0].Cluster().ListNodes(ctx, &holdfastv1.ListNodesRequest{})
		if err != nil {
			return err
		}
		known := response.GetNodes()
		if decided == 0 {
			for _, k := range known {
				decided = max(decided, k.GetAppliedIndex())
			}
		}
		for _, n := range nodes {
			i := slices.IndexFunc(known, func(k *holdfastv1.Node) bool { return k.GetName() == n.Name })
			if i < 0 || !known[i].GetAlive() || known[i].GetAppliedIndex() < decided {
				return fmt.Errorf("node %s is not alive, or far behind", n.Name)
			}
		}
		return nil
	})
}

// stopError is an error that more asking will not mend.
type stopError struct{ error }

func (e stopError) Unwrap() error { return e.error }

// Stop marks an error that ends a Wait.
func Stop(err error) error { return stopError{err} }

// Wait asks ready until it answers nil. It gives up when the context ends, with
// the last answer before that, or when ready answers an error marked by Stop. what completes
// "wait for".
func Wait(ctx context.Context, what string, ready func(ctx context.Context) error) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	var last error
	for {
		err := ready(ctx)
		if last == nil || ctx.Err() == nil {
			last = err
		}
		var stop stopError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &stop):
			return fmt.Errorf("wait for %s: %w", what, stop.error)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w; last: %w", what, ctx.Err(), last)
		case <-ticker.C:
		}
	}
}

// AddDisks gives every node a disk.
func (c *Cluster) AddDisks(ctx context.Context, class string) error {
	for _, n := range c.Nodes {
		if _, err := n.AddDisk(ctx, class); err != nil {
			return err
		}
	}
	return nil
}

// Node is the node with that ID, or nil.
func (c *Cluster) Node(id string) *Node {
	for _, n := range c.Nodes {
		if n.ID() == id {
			return n
		}
	}
	return nil
}

// LogTails are the ends of all logs, for a person who wants to know why.
func (c *Cluster) LogTails() string {
	var text string
	for _, n := range c.Nodes {
		for _, p := range []*process{n.daemon, n.plugin} {
			if p.life != nil {
				text += fmt.Sprintf("--- end of the log of %s\n%s\n", p.name, p.tail())
			}
		}
	}
	return text
}

// Stop ends everything that belongs to the cluster and removes its directory. It
// goes on after errors and reports all of them. Stopping again does nothing.
func (c *Cluster) Stop(ctx context.Context) error {
	var errs []error
	collect := func(err error) { errs = append(errs, err) }
	for _, n := range c.Nodes {
		collect(n.Thaw())
		collect(n.StopPlugin(ctx))
	}
	// What serves the devices stays until they are detached from it.
	collect(unmountBelow(ctx, c.Dir, "fuse.holdfast"))
	for _, n := range c.Nodes {
		collect(n.unstageAll(ctx))
	}
	collect(c.stopDaemons(ctx))
	for _, n := range c.Nodes {
		collect(n.close())
	}
	collect(killNaming(c.options.Binaries.Daemon, c.Dir))
	collect(detachLoops(ctx, c.Dir))
	collect(unmountBelow(ctx, c.Dir))
	for _, n := range c.Nodes {
		collect(os.RemoveAll(n.deviceDir))
	}
	if mounted, err := mountsBelow(c.Dir); err != nil || len(mounted) > 0 {
		// Removing would go through the mounts into what is not ours to delete.
		collect(err)
		collect(fmt.Errorf("still mounted, left in place: %v", mounted))
	} else {
		collect(os.RemoveAll(c.Dir))
	}
	return errors.Join(errs...)
}

// stopDaemons stops all daemons at once: the last one alone has no majority.
func (c *Cluster) stopDaemons(ctx context.Context) error {
	errs := make([]error, len(c.Nodes))
	var stopping sync.WaitGroup
	for i, n := range c.Nodes {
		stopping.Go(func() { errs[i] = n.Stop(ctx) })
	}
	stopping.Wait()
	return errors.Join(errs...)
}

// logPath is where a process of a node logs.
func (c *Cluster) logPath(name string) string { return filepath.Join(c.Dir, name+".log") }
