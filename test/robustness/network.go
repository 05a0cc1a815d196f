package robustness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// network is a bridge in a network namespace, with a namespace for each host behind
// it. Namespaces are held by open files alone: when the test ends, however it does,
// they are gone with everything in them. Nothing of the machine's own network is
// touched.
type network struct {
	hub   *os.File
	hosts []*os.File
	// cuttable: links can be cut. The kernel of a guest has no nftables.
	cuttable bool
}

// cutTableName is of this test alone, so that its table is known where it must not be.
const cutTableName = "holdfast_robustness"

// cutTable drops what comes from an address of the set: no answer, no reset.
const cutTable = `table inet ` + cutTableName + ` {
	set from {
		type ipv4_addr
	}
	chain in {
		type filter hook input priority 0
		ip saddr @from drop
	}
}
`

// newNetwork makes a network of that many hosts.
func newNetwork(ctx context.Context, hosts int) (_ *network, err error) {
	n := &network{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("make network: %w", err), n.close())
		}
	}()
	if n.hub, err = newNamespace(); err != nil {
		return nil, err
	}
	commands := []string{"link set lo up", "link add br0 type bridge", "addr add 10.0.0.254/24 dev br0", "link set br0 up"}
	for i := range hosts {
		host, err := newNamespace()
		if err != nil {
			return nil, err
		}
		n.hosts = append(n.hosts, host)
		commands = append(commands,
			fmt.Sprintf("link add n%d type veth peer name eth0 netns %s", i+1, namespacePath(host)),
			fmt.Sprintf("link set n%d master br0 up", i+1))
	}
	if err := ipIn(ctx, n.hub, commands...); err != nil {
		return nil, err
	}
	for i, host := range n.hosts {
		if err := ipIn(ctx, host, "link set lo up", "addr add "+n.address(i)+"/24 dev eth0", "link set eth0 up"); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// allowCuts prepares all hosts for cut.
func (n *network) allowCuts(ctx context.Context) error {
	for _, host := range n.hosts {
		if err := inside(ctx, host, cutTable, "nft", "-f", "-"); err != nil {
			return err
		}
	}
	n.cuttable = true
	return nil
}

// newNamespace makes a network namespace that lives as long as the file is open.
func newNamespace() (*os.File, error) {
	var file *os.File
	err := onOtherNetwork(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		var err error
		file, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	return file, err
}

// onOtherNetwork runs f, which may change the network namespace of its thread.
// Sockets belong to the namespace of the thread that makes them.
func onOtherNetwork(f func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer home.Close()
	err = f()
	if homeErr := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); homeErr != nil {
		// The thread stays locked, so that nobody else runs on it.
		return errors.Join(err, fmt.Errorf("leave network namespace: %w", homeErr))
	}
	runtime.UnlockOSThread()
	return err
}

// on runs f with the network of a namespace.
func on(namespace *os.File, f func() error) error {
	return onOtherNetwork(func() error {
		if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return f()
	})
}

// namespacePath is how other processes find the namespace.
func namespacePath(namespace *os.File) string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), namespace.Fd())
}

// inside runs a program in a namespace.
func inside(ctx context.Context, namespace *os.File, input string, command ...string) error {
	args := append([]string{"--net=" + namespacePath(namespace)}, command...)
	cmd := exec.CommandContext(ctx, "nsenter", args...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, out)
	}
	return nil
}

// ipIn runs ip(8) in a namespace, once for all of the commands.
func ipIn(ctx context.Context, namespace *os.File, commands ...string) error {
	return inside(ctx, namespace, strings.Join(commands, "\n")+"\n", "ip", "-batch", "-")
}

// address is that of a host, from 0.
func (n *network) address(host int) string { return fmt.Sprintf("10.0.0.%d", host+1) }

// addresses are those of all hosts.
func (n *network) addresses() []string {
	var all []string
	for i := range n.hosts {
		all = append(all, n.address(i))
	}
	return all
}

// enter is what a program is started by on a host.
func (n *network) enter(host int) []string {
	return []string{"nsenter", "--net=" + namespacePath(n.hosts[host])}
}

// dial connects from the hub, which no cut reaches.
func (n *network) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = on(n.hub, func() error {
		var dialer net.Dialer
		conn, err = dialer.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// cut drops everything that goes from one host to another.
func (n *network) cut(ctx context.Context, from, to int) error {
	return inside(ctx, n.hosts[to], "", "nft", "add", "element", "inet", cutTableName, "from", "{ "+n.address(from)+" }")
}

// weather lets netem have its way with everything that leaves a host; "" is calm.
func (n *network) weather(ctx context.Context, netem string) error {
	command := []string{"tc", "qdisc", "del", "dev", "eth0", "root"}
	if netem != "" {
		command = append([]string{"tc", "qdisc", "replace", "dev", "eth0", "root", "netem"}, strings.Fields(netem)...)
	}
	var errs []error
	for _, host := range n.hosts {
		errs = append(errs, inside(ctx, host, "", command...))
	}
	return errors.Join(errs...)
}

// heal takes all cuts back.
func (n *network) heal(ctx context.Context) error {
	if !n.cuttable {
		return nil
	}
	var errs []error
	for _, host := range n.hosts {
		errs = append(errs, inside(ctx, host, "", "nft", "flush", "set", "inet", cutTableName, "from"))
	}
	return errors.Join(errs...)
}

// inodes tell the namespaces from all others of the machine.
func (n *network) inodes() ([]uint64, error) {
	var all []uint64
	for _, file := range append([]*os.File{n.hub}, n.hosts...) {
		var stat unix.Stat_t
		if err := unix.Fstat(int(file.Fd()), &stat); err != nil {
			return nil, fmt.Errorf("identify network namespace: %w", err)
		}
		all = append(all, stat.Ino)
	}
	return all, nil
}

// close lets the namespaces go, once nobody is inside.
func (n *network) close() error {
	var errs []error
	if n.hub != nil {
		errs = append(errs, n.hub.Close())
	}
	for _, host := range n.hosts {
		errs = append(errs, host.Close())
	}
	n.hub, n.hosts = nil, nil
	return errors.Join(errs...)
}
