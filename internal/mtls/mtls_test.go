package mtls_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/mtls"
	"github.com/holdfast-io/holdfast/test/harness/certs"
)

var silent = slog.New(slog.DiscardHandler)

func authority(t *testing.T) *certs.Authority {
	t.Helper()
	a, err := certs.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t *testing.T, a *certs.Authority, r certs.Request) mtls.Files {
	t.Helper()
	files, err := a.Issue(t.TempDir(), r)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func open(t *testing.T, files mtls.Files, roles ...string) *mtls.Identity {
	t.Helper()
	i, err := mtls.Open(files, silent, roles...)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestAllThreeFlagsOrNone(t *testing.T) {
	for _, f := range []mtls.Files{{}, {Cert: "c", Key: "k", CA: "a"}} {
		if err := f.Validate(); err != nil {
			t.Errorf("%+v: %v", f, err)
		}
	}
	for says, f := range map[string]mtls.Files{
		"--tls-cert is missing": {Key: "k", CA: "a"},
		"--tls-key is missing":  {Cert: "c", CA: "a"},
		"--tls-ca is missing":   {Cert: "c"},
	} {
		if err := f.Validate(); err != nil && !f.Given() || err == nil {
			t.Errorf("%+v: %v", f, err)
		} else if f.CA != "" && !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v, want %s", f, err, says)
		}
	}
}

// TestUnusableFiles: a daemon that others would refuse says so itself.
func TestUnusableFiles(t *testing.T) {
	ours, other := authority(t), authority(t)
	good, foreign := issue(t, ours, certs.Request{Name: mtls.Node}), issue(t, other, certs.Request{Name: mtls.Node})
	broken := filepath.Join(t.TempDir(), "broken")
	if err := os.WriteFile(broken, []byte("-----BEGIN"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		files mtls.Files
		says  string
	}{
		"no file":           {mtls.Files{Cert: good.Cert, Key: good.Key, CA: broken + "x"}, "--tls-ca: open"},
		"no authority":      {mtls.Files{Cert: good.Cert, Key: good.Key, CA: broken}, "no certificate in it"},
		"no certificate":    {mtls.Files{Cert: broken, Key: good.Key, CA: good.CA}, "--tls-cert"},
		"another's key":     {mtls.Files{Cert: good.Cert, Key: foreign.Key, CA: good.CA}, "its own key"},
		"another authority": {mtls.Files{Cert: good.Cert, Key: good.Key, CA: foreign.CA}, "issued by the authority of --tls-ca"},
		"ended":             {issue(t, ours, certs.Request{Name: mtls.Node, Ends: time.Now().Add(-time.Hour)}), "have another one issued"},
		"not begun":         {issue(t, ours, certs.Request{Name: mtls.Node, Ends: time.Now().Add(1000 * time.Hour)}), "have another one issued"},
		"of a client":       {issue(t, ours, certs.Request{Name: mtls.Client}), "not holdfast-node"},
	} {
		if _, err := mtls.Open(test.files, silent, mtls.Node); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want %s", name, err, test.says)
		}
	}
	open(t, good, mtls.Node)
}

// meet lets two ends shake hands, and says what each of them made of it.
func meet(t *testing.T, server, client *tls.Config) (serverErr, clientErr error) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	done := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			done <- err
			return
		}
		secure := tls.Server(conn, server)
		if err = secure.HandshakeContext(t.Context()); err == nil {
			_, err = secure.Write([]byte("welcome"))
		}
		secure.Close()
		done <- err
	}()
	conn, clientErr := (&tls.Dialer{Config: client}).DialContext(t.Context(), "tcp", listener.Addr().String())
	if clientErr == nil {
		var text []byte
		// What a server of TLS 1.3 thinks of a client arrives with its first answer.
		if text, clientErr = io.ReadAll(conn); clientErr == nil && !bytes.Equal(text, []byte("welcome")) {
			clientErr = io.ErrUnexpectedEOF
		}
		conn.Close()
	}
	return <-done, clientErr
}

func TestWhoIsLetIn(t *testing.T) {
	ours, other := authority(t), authority(t)
	node := open(t, issue(t, ours, certs.Request{Name: mtls.Node}), mtls.Node)
	client := open(t, issue(t, ours, certs.Request{Name: mtls.Client}), mtls.Client)
	stranger := open(t, issue(t, other, certs.Request{Name: mtls.Node, Trusted: []*certs.Authority{ours}}), mtls.Node)
	bare := node.Client()
	bare.Certificates = nil
	old := node.Client()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	ended := issue(t, ours, certs.Request{Name: mtls.Node, Ends: time.Now().Add(-time.Minute)})
	pair, err := tls.LoadX509KeyPair(ended.Cert, ended.Key)
	if err != nil {
		t.Fatal(err)
	}
	expired := node.Client()
	expired.Certificates = []tls.Certificate{pair}
	posing := node.Server(mtls.Node)
	posing.GetConfigForClient, posing.Certificates = nil, client.Client().Certificates
	for name, test := range map[string]struct {
		server, client *tls.Config
		in             bool
	}{
		"a node":                      {node.Server(mtls.Node), node.Client(), true},
		"a client, at control":        {node.Server(mtls.Node, mtls.Client), client.Client(), true},
		"a client, elsewhere":         {node.Server(mtls.Node), client.Client(), false},
		"no certificate":              {node.Server(mtls.Node), bare, false},
		"another authority":           {node.Server(mtls.Node), stranger.Client(), false},
		"another authority's server":  {stranger.Server(mtls.Node), node.Client(), false},
		"expired":                     {node.Server(mtls.Node), expired, false},
		"TLS 1.2":                     {node.Server(mtls.Node), old, false},
		"a client that poses as node": {posing, node.Client(), false},
	} {
		serverErr, clientErr := meet(t, test.server, test.client)
		if in := serverErr == nil && clientErr == nil; in != test.in || !test.in && clientErr == nil {
			t.Errorf("%s: server says %v, client says %v", name, serverErr, clientErr)
		}
	}
}
