package harness

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/control"
	"github.com/holdfast-io/holdfast/internal/mtls"
	"github.com/holdfast-io/holdfast/internal/nbd"
	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
	"github.com/holdfast-io/holdfast/test/harness/certs"
)

// secured is a cluster whose nodes speak TLS, with a volume in use.
type secured struct {
	t       *testing.T
	ctx     context.Context
	cluster *Cluster
	volume  string
	client  *nbd.Client
}

// TestClusterWithTLS: a volume is used, strangers get nothing, and certificates and
// their authority are renewed under load.
func TestClusterWithTLS(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("disks need root, which make test has")
	}
	buildCtx, cancelBuild := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancelBuild()
	binaries, err := Build(buildCtx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), lifeTimeout)
	defer cancel()
	s := &secured{t: t, ctx: ctx, cluster: New(t, Options{
		Binaries: binaries, TLS: true, DaemonArgs: []string{"--frontend", "socket"},
	})}
	s.attach()
	s.write(0)
	s.refuseStrangers()
	s.rotate()
	s.sameEverywhere()
}

// attach makes a volume with a replica on every node, and uses it on the first.
func (s *secured) attach() {
	s.t.Helper()
	if err := s.cluster.AddDisks(s.ctx, "ssd"); err != nil {
		s.t.Fatal(err)
	}
	first := s.cluster.Nodes[0]
	made, err := first.Volumes().CreateVolume(s.ctx, &holdfastv1.CreateVolumeRequest{
		Name: "v", SizeBytes: 4 << 20, Parameters: &holdfastv1.VolumeParameters{Replicas: 3},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.volume = made.GetId()
	dial, err := first.Attach(s.ctx, s.volume)
	if err != nil {
		s.t.Fatal(err)
	}
	socket, err := dial(s.ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	if s.client, err = nbd.Connect(s.ctx, socket, nbd.ClientConfig{}); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { s.client.Close() })
}

// write writes a block and reads it.
func (s *secured) write(round int) {
	s.t.Helper()
	const length = 4096
	wrote, read := bytes.Repeat([]byte{byte(round + 1)}, length), make([]byte, length)
	at := int64(round%1024) * length
	if _, err := s.client.WriteAt(wrote, at); err != nil {
		s.t.Fatalf("write %d: %v", round, err)
	}
	if _, err := s.client.ReadAt(read, at); err != nil || !bytes.Equal(wrote, read) {
		s.t.Fatalf("read %d: %v", round, err)
	}
}

// config is that of an end with a certificate, whether or not it may be used.
func (s *secured) config(a *certs.Authority, r certs.Request) *tls.Config {
	s.t.Helper()
	files, err := a.Issue(s.t.TempDir(), r)
	if err != nil {
		s.t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	if err != nil {
		s.t.Fatal(err)
	}
	c := s.open(s.cluster.Nodes[0].TLS, mtls.Node).Client()
	c.Certificates = []tls.Certificate{pair}
	c.NextProtos = []string{"h2"}
	return c
}

func (s *secured) open(files mtls.Files, roles ...string) *mtls.Identity {
	s.t.Helper()
	i, err := mtls.Open(files, slog.New(slog.DiscardHandler), roles...)
	if err != nil {
		s.t.Fatal(err)
	}
	return i
}

// refuseStrangers tries each port of a node with what must not be let in, and, because
// a port that is closed refuses everybody, with what must be.
func (s *secured) refuseStrangers() {
	s.t.Helper()
	ours := s.cluster.Authority
	other, err := certs.NewAuthority()
	if err != nil {
		s.t.Fatal(err)
	}
	bare := s.config(ours, certs.Request{Name: mtls.Node})
	bare.Certificates = nil
	client := s.config(ours, certs.Request{Name: mtls.Client})
	node := s.cluster.Nodes[0]
	for name, reach := range map[string]func(*tls.Config) error{
		"control": func(c *tls.Config) error { return s.shake(node.ControlAddress, c) },
		"Raft":    func(c *tls.Config) error { return s.shake(node.RaftAddress, c) },
		"data":    func(c *tls.Config) error { return s.list(node.DataAddress, c) },
	} {
		if err := reach(s.config(ours, certs.Request{Name: mtls.Node})); err != nil {
			s.t.Errorf("%s port, a node: %v", name, err)
		}
		if err := reach(client); (err == nil) != (name == "control") {
			s.t.Errorf("%s port, a client: %v", name, err)
		}
		for who, config := range map[string]*tls.Config{
			"no certificate":    bare,
			"another authority": s.config(other, certs.Request{Name: mtls.Node}),
			"expired":           s.config(ours, certs.Request{Name: mtls.Node, Ends: time.Now().Add(-time.Minute)}),
			"another name":      s.config(ours, certs.Request{Name: "example.org"}),
		} {
			if err := reach(config); err == nil || !strings.Contains(err.Error(), "remote error: tls: ") {
				s.t.Errorf("%s port, %s: %v, want to be refused", name, who, err)
			}
		}
	}
	s.refusePlain(node)
}

// shake shakes hands and says some words of no protocol; nil if it is let in so far.
func (s *secured) shake(address string, config *tls.Config) error {
	conn, err := (&tls.Dialer{Config: config}).DialContext(s.ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write(make([]byte, 64)); err != nil {
		return err
	}
	_, err = io.ReadAll(conn)
	var broken *net.OpError
	if errors.As(err, &broken) && broken.Op == "remote error" {
		return err
	}
	return nil // however it takes the words
}

// list lists the exports of the data port.
func (s *secured) list(address string, config *tls.Config) error {
	socket, err := new(net.Dialer).DialContext(s.ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer socket.Close()
	h, err := nbd.StartHandshake(s.ctx, socket, config)
	if err != nil {
		return err
	}
	if _, err := h.List(); err != nil {
		return err
	}
	return h.Abort()
}

// refusePlain tries each port without TLS, as those would who know the protocol.
func (s *secured) refusePlain(node *Node) {
	s.t.Helper()
	var refused *nbd.OptionError
	if err := s.list(node.DataAddress, nil); !errors.As(err, &refused) || refused.Reply != nbd.RepErrTLSRequired {
		s.t.Errorf("data port without TLS: %v", err)
	}
	plain, err := control.Dial(node.ControlAddress)
	if err != nil {
		s.t.Fatal(err)
	}
	defer plain.Close()
	if _, err := holdfastv1.NewNodeAgentClient(plain).GetNode(s.ctx, &holdfastv1.GetNodeRequest{}); err == nil {
		s.t.Error("the control port answers without TLS")
	}
	raft, err := new(net.Dialer).DialContext(s.ctx, "tcp", node.RaftAddress)
	if err != nil {
		s.t.Fatal(err)
	}
	defer raft.Close()
	// A greeting to whatever node of whatever cluster; 0 and 2 would be answers.
	if _, err := raft.Write(append([]byte("HFR1"), make([]byte, 32)...)); err != nil {
		s.t.Fatal(err)
	}
	if answer, _ := io.ReadAll(raft); len(answer) == 1 {
		s.t.Errorf("the Raft port answers %d without TLS", answer[0])
	}
}

// rotate replaces the authority in three steps, while the volume is written, and then
// lets one node meet the others anew, one of which has a broken file by then.
func (s *secured) rotate() {
	s.t.Helper()
	before, after := s.cluster.Authority, s.newAuthority()
	ends := time.Now().Add(10 * time.Hour).Truncate(time.Second)
	round := 1
	for _, step := range []struct {
		by      *certs.Authority
		trusted []*certs.Authority
	}{{before, []*certs.Authority{after}}, {after, []*certs.Authority{before}}, {after, nil}} {
		ends = ends.Add(time.Hour)
		for _, n := range s.cluster.Nodes {
			if _, err := step.by.Issue(filepath.Dir(n.TLS.Cert), certs.Request{Name: mtls.Node, Ends: ends, Trusted: step.trusted}); err != nil {
				s.t.Fatal(err)
			}
		}
		s.waitMetric("holdfast_tls_certificate_end_timestamp_seconds", func(v float64) bool {
			s.write(round)
			round++
			return v == float64(ends.Unix())
		}, s.cluster.Nodes...)
	}
	old, err := before.Issue(s.t.TempDir(), certs.Request{Name: mtls.Node})
	if err != nil {
		s.t.Fatal(err)
	}
	first, last := s.cluster.Nodes[0], s.cluster.Nodes[2]
	s.refuseOld(first, old)
	s.breakFile(first)
	if err := errors.Join(last.Kill(), last.Start(s.ctx), s.cluster.WaitAlive(s.ctx, s.cluster.Nodes...)); err != nil {
		s.t.Fatal(err)
	}
	s.waitInSync(func() { s.write(round); round++ })
}

func (s *secured) newAuthority() *certs.Authority {
	s.t.Helper()
	a, err := certs.NewAuthority()
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

// refuseOld: the authority that was replaced counts no more.
func (s *secured) refuseOld(n *Node, old mtls.Files) {
	s.t.Helper()
	pair, err := tls.LoadX509KeyPair(old.Cert, old.Key)
	if err != nil {
		s.t.Fatal(err)
	}
	config := s.open(n.TLS, mtls.Node).Client()
	config.Certificates = []tls.Certificate{pair}
	if err := s.list(n.DataAddress, config); err == nil {
		s.t.Error("a certificate of the authority before is let in")
	}
}

// breakFile: what cannot be used is counted, and not used.
func (s *secured) breakFile(n *Node) {
	s.t.Helper()
	const failures = "holdfast_tls_reload_failures_total"
	before, err := n.Metric(s.ctx, http.DefaultClient, failures)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := certs.Replace(n.TLS.Cert, []byte("nothing of use")); err != nil {
		s.t.Fatal(err)
	}
	s.waitMetric(failures, func(v float64) bool { return v > before }, n)
}

func (s *secured) waitMetric(name string, wanted func(float64) bool, nodes ...*Node) {
	s.t.Helper()
	err := Wait(s.ctx, name, func(ctx context.Context) error {
		for _, n := range nodes {
			if v, err := n.Metric(ctx, http.DefaultClient, name); err != nil || !wanted(v) {
				return errors.Join(err, fmt.Errorf("it is %v on %s", v, n.Name))
			}
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// waitInSync waits for all replicas, and does something meanwhile.
func (s *secured) waitInSync(meanwhile func()) {
	s.t.Helper()
	err := Wait(s.ctx, "replicas in sync", func(ctx context.Context) error {
		meanwhile()
		v, err := s.cluster.Nodes[0].Volumes().GetVolume(ctx, &holdfastv1.GetVolumeRequest{Id: s.volume})
		if err != nil {
			return err
		}
		for _, r := range v.GetReplicas() {
			if !r.GetInSync() {
				return fmt.Errorf("replica on %s is not in sync", r.GetNodeId())
			}
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// sameEverywhere compares the replicas, read over TLS from each node.
func (s *secured) sameEverywhere() {
	s.t.Helper()
	if err := s.client.Flush(); err != nil {
		s.t.Fatal(err)
	}
	// The first node's file is broken; the last one's identity does for all.
	s.cluster.Nodes[0].TLS = s.cluster.Nodes[2].TLS
	copies, err := s.cluster.Copies(s.ctx, s.volume)
	if err != nil || len(copies) != 3 {
		s.t.Fatalf("%d replicas: %v", len(copies), err)
	}
	var first Sums
	for i, c := range copies {
		sums, err := c.Sums(s.ctx)
		if err != nil {
			s.t.Fatal(err)
		}
		if i == 0 {
			first = sums
		} else if differ := sums.Differing(first); len(differ) > 0 {
			s.t.Errorf("replica on %s differs in extents %v", c.Node.Name, differ)
		}
	}
}
