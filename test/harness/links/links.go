// Package links makes a network of namespaces on one machine, whose links can be cut
// in either direction without a word to those at its ends. It needs root, ip and nft.
package links

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Network is a bridge in a network namespace, with a namespace for each host behind
// it. Namespaces are held by open files alone: when the test ends, however it does,
// they are gone with everything in them. Nothing of the machine's own network is
// touched.
type Network struct {
	hub   *os.File
	hosts []*os.File
	// cuttable: links can be cut. The kernel of a guest has no nftables.
	cuttable bool
}

// CutTable names the table of the rules: no other than these tests use it, so that it is
// known where it must not be.
const CutTable = "holdfast_robustness"

// cutRules drops what comes from an address of the set: no answer, no reset.
const cutRules = `table inet ` + CutTable + ` {
	set from {
		type ipv4_addr
	}
	chain in {
		type filter hook input priority 0
		ip saddr @from drop
	}
}
`

// New makes a network of that many hosts.
func New(ctx context.Context, hosts int) (_ *Network, err error) {
	n := &Network{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("make network: %w", err), n.Close())
		}
	}()
	if n.hub, err = NewNamespace(); err != nil {
		return nil, err
	}
	commands := []string{"link set lo up", "link add br0 type bridge", "addr add 10.0.0.254/24 dev br0", "link set br0 up"}
	for i := range hosts {
		host, err := NewNamespace()
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
		if err := ipIn(ctx, host, "link set lo up", "addr add "+n.Address(i)+"/24 dev eth0", "link set eth0 up"); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// AllowCuts prepares all hosts for Cut.
func (n *Network) AllowCuts(ctx context.Context) error {
	for _, host := range n.hosts {
		if err := inside(ctx, host, cutRules, "nft", "-f", "-"); err != nil {
			return err
		}
	}
	n.cuttable = true
	return nil
}

// NewNamespace makes a network namespace that lives as long as the file is open.
func NewNamespace() (*os.File, error) {
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

// On runs f with the network of a namespace.
func On(namespace *os.File, f func() error) error {
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

// Address is that of a host, from 0.
func (n *Network) Address(host int) string { return fmt.Sprintf("10.0.0.%d", host+1) }

// Addresses are those of all hosts.
func (n *Network) Addresses() []string {
	var all []string
	for i := range n.hosts {
		all = append(all, n.Address(i))
	}
	return all
}

// Enter is what a program is started by on a host.
func (n *Network) Enter(host int) []string {
	return []string{"nsenter", "--net=" + namespacePath(n.hosts[host])}
}

// Dial connects from the hub, which no cut reaches.
func (n *Network) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = On(n.hub, func() error {
		var dialer net.Dialer
		conn, err = dialer.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Cut drops everything that goes from one host to another.
func (n *Network) Cut(ctx context.Context, from, to int) error {
	return inside(ctx, n.hosts[to], "", "nft", "add", "element", "inet", CutTable, "from", "{ "+n.Address(from)+" }")
}

// Weather lets netem have its way with everything that leaves a host; "" is calm.
func (n *Network) Weather(ctx context.Context, netem string) error {
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

// Heal takes all cuts back.
func (n *Network) Heal(ctx context.Context) error {
	if !n.cuttable {
		return nil
	}
	var errs []error
	for _, host := range n.hosts {
		errs = append(errs, inside(ctx, host, "", "nft", "flush", "set", "inet", CutTable, "from"))
	}
	return errors.Join(errs...)
}

// Identity tells a network namespace from all others of the machine, also from those
// that get its inode after it is gone.
type Identity struct {
	Inode  uint64
	Cookie uint64 // the kernel's, which it gives once; 0 where it has none
}

func (i Identity) String() string { return fmt.Sprintf("network namespace %d", i.Inode) }

// identify looks into a namespace.
func identify(namespace *os.File) (Identity, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(int(namespace.Fd()), &stat); err != nil {
		return Identity{}, fmt.Errorf("identify network namespace: %w", err)
	}
	id := Identity{Inode: stat.Ino}
	err := On(namespace, func() error {
		socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(socket) }()
		// Before Linux 5.14 there is no cookie.
		if id.Cookie, err = unix.GetsockoptUint64(socket, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE); errors.Is(err, unix.ENOPROTOOPT) {
			return nil
		}
		return err
	})
	if err != nil {
		return Identity{}, fmt.Errorf("identify network namespace: %w", err)
	}
	return id, nil
}

// Identities are those of the namespaces.
func (n *Network) Identities() ([]Identity, error) {
	var all []Identity
	for _, file := range append([]*os.File{n.hub}, n.hosts...) {
		id, err := identify(file)
		if err != nil {
			return nil, err
		}
		all = append(all, id)
	}
	return all, nil
}

// Left are those of the namespaces that a process is in or holds open.
func Left(all []Identity) ([]Identity, error) {
	var found []Identity
	for _, pattern := range []string{"/proc/[0-9]*/task/[0-9]*/ns/net", "/proc/[0-9]*/fd/*"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			target, err := os.Readlink(path)
			if err != nil || !slices.ContainsFunc(all, func(id Identity) bool { return target == fmt.Sprintf("net:[%d]", id.Inode) }) {
				continue
			}
			file, err := os.Open(path)
			if err != nil {
				continue // its process has ended
			}
			id, err := identify(file)
			err = errors.Join(err, file.Close())
			if err != nil {
				return nil, err
			}
			if slices.Contains(all, id) && !slices.Contains(found, id) {
				found = append(found, id)
			}
		}
	}
	return found, nil
}

// Close lets the namespaces go, once nobody is inside.
func (n *Network) Close() error {
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
