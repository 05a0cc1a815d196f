package wire

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
)

// TestForeignCluster: both sides hear which clusters met.
func TestForeignCluster(t *testing.T) {
	n := startNode(t, newAcceptor(keep), nil)
	config := n.config()
	config.Cluster = block.ClusterID{ID: sampleID(0xc2)}
	_, err := Dial(context.Background(), config, newInbox())
	if !errors.Is(err, block.ErrForeign) {
		t.Fatalf("dial: %v", err)
	}
	for _, name := range []block.ClusterID{testCluster, config.Cluster} {
		if !strings.Contains(err.Error(), name.String()) {
			t.Errorf("%q does not name cluster %s", err, name)
		}
	}
	nothing(t, n.acceptor.conns)
}

func TestWrongNode(t *testing.T) {
	n := startNode(t, newAcceptor(keep), nil)
	config := n.config()
	config.Peer = otherNode
	if _, err := Dial(context.Background(), config, newInbox()); !errors.Is(err, block.ErrUnavailable) {
		t.Fatalf("dial: %v", err)
	}
}

func TestNobodyThere(t *testing.T) {
	listener := listen(t)
	addr := listener.Addr().String()
	listener.Close()
	config := DialConfig{Addr: addr, Cluster: testCluster, Node: otherNode, Replica: sampleReplica}
	if _, err := Dial(context.Background(), config, newInbox()); !errors.Is(err, block.ErrUnavailable) {
		t.Fatalf("dial: %v", err)
	}
}

// TestSilentPeer: a peer that accepts and says nothing costs the timeout, no
// more.
func TestSilentPeer(t *testing.T) {
	listener := listen(t)
	defer listener.Close()
	config := DialConfig{
		Addr: listener.Addr().String(), Cluster: testCluster, Node: otherNode, Replica: sampleReplica, Timeout: 50 * time.Millisecond,
	}
	if _, err := Dial(context.Background(), config, newInbox()); !errors.Is(err, block.ErrUnavailable) {
		t.Fatalf("dial: %v", err)
	}
}

// TestNotHoldfast: any other NBD server is told apart.
func TestNotHoldfast(t *testing.T) {
	s, err := nbd.NewServer(nbd.ServerConfig{Exports: noExports{}})
	if err != nil {
		t.Fatal(err)
	}
	listener := listen(t)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, listener) }()
	defer func() {
		cancel()
		await(t, served)
	}()
	config := DialConfig{Addr: listener.Addr().String(), Cluster: testCluster, Node: otherNode, Replica: sampleReplica}
	if _, err := Dial(context.Background(), config, newInbox()); !errors.Is(err, block.ErrVersion) {
		t.Fatalf("dial: %v", err)
	}
}

func TestVersions(t *testing.T) {
	base := hello{versionMin: versionMin, versionMax: Version, cluster: testCluster, node: otherNode, replica: sampleReplica}
	for name, c := range map[string]struct {
		min, max uint16
		want     error
		text     string
	}{
		"same":   {versionMin, Version, nil, ""},
		"newer":  {versionMin, Version + 3, nil, ""},
		"beyond": {Version + 1, Version + 3, block.ErrVersion, "upgrade node " + testNode.String()},
		"before": {0, 0, block.ErrVersion, "upgrade node " + otherNode.String()},
	} {
		h := base
		h.versionMin, h.versionMax = c.min, c.max
		a := negotiate(&h, testCluster, testNode)
		if a.status != statusOf(c.want) || !strings.Contains(a.text, c.text) || c.want == nil && a.version != Version {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

// TestBadAnswers: what a peer answers is checked.
func TestBadAnswers(t *testing.T) {
	config := DialConfig{Addr: "x:1", Cluster: testCluster, Peer: testNode, Replica: sampleReplica}
	good := helloAnswer{version: Version, cluster: testCluster, node: testNode}
	if err := config.judge(&good); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*helloAnswer)
		want   error
	}{
		"foreign": {func(a *helloAnswer) { a.cluster = block.ClusterID{} }, block.ErrForeign},
		"version": {func(a *helloAnswer) { a.version = Version + 1 }, block.ErrProtocol},
		"refused": {func(a *helloAnswer) { a.status = statusOf(block.ErrVersion) }, block.ErrVersion},
	} {
		a := good
		c.change(&a)
		if err := config.judge(&a); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHelloFrames(t *testing.T) {
	h := hello{versionMin: 1, versionMax: 2, features: 3, cluster: testCluster, node: testNode, replica: sampleReplica}
	golden(t, "hello", h.encode())
	a := helloAnswer{status: 15, version: 1, features: 3, cluster: testCluster, node: testNode, text: "no"}
	golden(t, "hello-answer", a.encode())
	var gotHello hello
	var gotAnswer helloAnswer
	// A later version says more.
	if err := gotHello.decode(append(h.encode(), "more"...)); err != nil || gotHello != h {
		t.Errorf("hello %+v, %v", gotHello, err)
	}
	if err := gotAnswer.decode(a.encode()); err != nil || gotAnswer != a {
		t.Errorf("answer %+v, %v", gotAnswer, err)
	}
}

func FuzzHello(f *testing.F) {
	h := hello{versionMin: 1, versionMax: 2, cluster: testCluster}
	a := helloAnswer{version: 1, cluster: testCluster, text: "no"}
	f.Add(h.encode())
	f.Add(a.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		var h hello
		if err := h.decode(b); err != nil && !errors.Is(err, block.ErrProtocol) {
			t.Fatal(err)
		}
		negotiate(&h, testCluster, testNode)
		var a helloAnswer
		if err := a.decode(b); err == nil && string(a.encode()[:helloAnswerSize]) != string(b[:helloAnswerSize]) {
			t.Fatalf("%x was understood as %+v", b, a)
		}
	})
}

// TestMalformedHello: the server refuses it and stays.
func TestMalformedHello(t *testing.T) {
	n := startNode(t, newAcceptor(keep), nil)
	raw := connect(t, n.addr)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	h, err := nbd.StartHandshake(ctx, raw, nil)
	if err != nil {
		t.Fatal(err)
	}
	var refused *nbd.OptionError
	if _, err := h.Option(option, []byte("hello")); !errors.As(err, &refused) || refused.Reply != nbd.RepErrInvalid {
		t.Fatalf("option: %v", err)
	}
	if _, err := h.List(); err != nil {
		t.Fatalf("list after a refused option: %v", err)
	}
	nothing(t, n.acceptor.conns)
}

// certificate makes a self-signed one for 127.0.0.1.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestTLS(t *testing.T) {
	cert, pool := certificate(t)
	n := startNode(t, newAcceptor(echo), func(c *ServerConfig) {
		c.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}
		c.RequireTLS = true
	})
	config := n.config()
	if _, err := Dial(context.Background(), config, newInbox()); err == nil {
		t.Fatal("a node that requires TLS was reached without")
	}
	config.TLS = &tls.Config{RootCAs: pool, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS13}
	link, in := n.dial(t, config)
	link.Send(block.Request{Op: block.OpWrite, Length: block.MaxTransfer, Buf: sampleBuffer(block.MaxTransfer), Seq: 1}, nil)
	link.Send(block.Request{Op: block.OpRead, Length: block.MaxTransfer, Seq: 2}, nil)
	for range 2 {
		if rep := await(t, in.replies); rep.Err != nil {
			t.Fatal(rep.Err)
		}
	}
	n.stop()
	await(t, in.lost)
}
