package nbd_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/block"
	"github.com/holdfast-io/holdfast/internal/nbd"
	"github.com/holdfast-io/holdfast/internal/nbd/nbdtest"
)

func TestHandshake(t *testing.T) {
	info := nbdtest.Info("v", testSize, 4096)
	info.Description = "a volume"
	info.Contexts = []string{nbd.ContextAllocation, "holdfast:changed/s1", "holdfast:changed/s2"}
	disk := nbdtest.NewMemory(info)
	dial := startServer(t, nbd.ServerConfig{Exports: nbdtest.Exports{"v": disk}})
	ctx := testContext(t)
	socket, err := dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	h, err := nbd.StartHandshake(ctx, socket, nil)
	if err != nil {
		t.Fatal(err)
	}
	if names, err := h.List(); err != nil || !reflect.DeepEqual(names, []string{"v"}) {
		t.Fatal(names, err)
	}
	if got, err := h.Info("v"); err != nil || got.Size != testSize || got.Description != "a volume" || got.MinBlock != 4096 || !got.FUA {
		t.Fatalf("%+v %v", got, err)
	}
	var refused *nbd.OptionError
	if _, err := h.Info("w"); !errors.As(err, &refused) || refused.Reply != nbd.RepErrUnknown || !errors.Is(err, block.ErrNotFound) {
		t.Fatal(err)
	}
	if _, err := h.Option(nbd.Option(1<<20), []byte("x")); !errors.As(err, &refused) || refused.Reply != nbd.RepErrUnsup {
		t.Fatal(err)
	}
	if _, err := h.Option(nbd.OptGo, []byte("garbage")); !errors.As(err, &refused) || refused.Reply != nbd.RepErrInvalid {
		t.Fatal(err)
	}
	if _, err := h.Option(nbd.OptInfo, make([]byte, 100<<10)); !errors.As(err, &refused) || refused.Reply != nbd.RepErrTooBig {
		t.Fatal(err)
	}
	if _, err := h.SelectContexts("v", []string{nbd.ContextAllocation}); !errors.As(err, &refused) {
		t.Fatalf("contexts without structured replies: %v", err)
	}
	if err := h.StructuredReplies(); err != nil {
		t.Fatal(err)
	}
	if names, err := h.ListContexts("v"); err != nil || !reflect.DeepEqual(names, info.Contexts) {
		t.Fatal(names, err)
	}
	chosen, err := h.SelectContexts("v", []string{"holdfast:changed/s2", "other:thing"})
	if err != nil || len(chosen) != 1 || chosen[0].Name != "holdfast:changed/s2" {
		t.Fatal(chosen, err)
	}
	if err := h.Abort(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(socket); err != nil {
		t.Fatal(err)
	}
	if opened, closed := disk.Opened.Load(), disk.Closed.Load(); opened != closed {
		t.Fatalf("%d opened, %d closed", opened, closed)
	}
}

func TestOldestWayToChooseAnExport(t *testing.T) {
	dial := startServer(t, nbd.ServerConfig{Exports: nbdtest.Exports{"v": nbdtest.NewMemory(nbdtest.Info("v", testSize, 512))}})
	for _, flags := range []byte{1, 3} {
		socket, err := dial(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		hello := make([]byte, 18)
		if _, err := io.ReadFull(socket, hello); err != nil {
			t.Fatal(err)
		}
		message := append([]byte{0, 0, 0, flags}, "IHAVEOPT\x00\x00\x00\x01\x00\x00\x00\x01v"...)
		// The first request rides along with the option.
		message = append(message, rawRequest(read, 0, 5, 0, 512, nil)...)
		if _, err := socket.Write(message); err != nil {
			t.Fatal(err)
		}
		want := 10 + 16 + 512
		if flags == 1 {
			want += 124
		}
		if _, err := io.ReadFull(socket, make([]byte, want)); err != nil {
			t.Fatal(err)
		}
		if err := socket.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPrivateOptionTakesTheConnection(t *testing.T) {
	const private = nbd.Option(0x486f6c64)
	dial := startServer(t, nbd.ServerConfig{
		Exports: nbdtest.Exports{},
		Options: map[nbd.Option]nbd.OptionHandler{
			private: func(_ context.Context, n *nbd.Negotiation, payload []byte) (bool, error) {
				if string(payload) != "please" {
					return false, n.Refuse(nbd.RepErrPolicy, "say please")
				}
				if err := n.Reply(nbd.RepAck, nil); err != nil {
					return false, err
				}
				socket, in, err := n.Take()
				if err != nil {
					return false, err
				}
				_, err = io.CopyN(socket, in, 5)
				return true, err
			},
		},
	})
	ctx := testContext(t)
	socket, err := dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	h, err := nbd.StartHandshake(ctx, socket, nil)
	if err != nil {
		t.Fatal(err)
	}
	var refused *nbd.OptionError
	if _, err := h.Option(private, []byte("now")); !errors.As(err, &refused) || refused.Text != "say please" {
		t.Fatal(err)
	}
	if _, err := h.Option(private, []byte("please")); err != nil {
		t.Fatal(err)
	}
	raw, in, err := h.Take()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := raw.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(in); err != nil || string(got) != "hello" {
		t.Fatalf("%q %v", got, err)
	}
}

func TestBlockStatusAndReadOnly(t *testing.T) {
	info := nbdtest.Info("v", testSize, 512)
	info.ReadOnly = true
	info.Contexts = []string{nbd.ContextAllocation}
	disk := nbdtest.NewMemory(info)
	if _, err := disk.Storage().WriteAt([]byte{1}, 8192); err != nil {
		t.Fatal(err)
	}
	dial := startServer(t, nbd.ServerConfig{Exports: nbdtest.Exports{"v": disk}})
	client := connect(t, dial, nbd.ClientConfig{Export: "v", Contexts: []string{nbd.ContextAllocation}})
	status, err := client.BlockStatus(block.Span{Length: 16 << 10})
	hole := nbd.StateHole | nbd.StateZero
	want := []nbd.Extent{{Length: 8192, Flags: hole}, {Length: 4096}, {Length: 4096, Flags: hole}}
	if err != nil || !reflect.DeepEqual(status[nbd.ContextAllocation], want) {
		t.Fatal(status, err)
	}
	if _, err := client.WriteAt(make([]byte, 512), 0); !errors.Is(err, nbd.EPERM) {
		t.Fatal(err)
	}
	got := make([]byte, 512)
	if _, err := client.ReadAt(got, testSize); !errors.Is(err, nbd.EINVAL) {
		t.Fatal(err)
	}
	if _, err := client.ReadAt(got, 8192); err != nil || got[0] != 1 {
		t.Fatal(err)
	}
}

// testTLS makes a certificate for this test only.
func testTLS(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"holdfast"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(certificate)
	server = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS13}
	return server, &tls.Config{RootCAs: roots, ServerName: "holdfast", MinVersion: tls.VersionTLS13}
}

func TestTLS(t *testing.T) {
	server, config := testTLS(t)
	dial := startServer(t, nbd.ServerConfig{
		Exports: nbdtest.Exports{"v": nbdtest.NewMemory(nbdtest.Info("v", testSize, 512))},
		TLS:     server, RequireTLS: true,
	})
	client := connect(t, dial, nbd.ClientConfig{Export: "v", TLS: config})
	data := bytes.Repeat([]byte("secret"), 512*1024)
	if _, err := client.WriteAt(data, 512); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(data))
	if _, err := client.ReadAt(got, 512); err != nil || !bytes.Equal(got, data) {
		t.Fatal(err)
	}
	ctx := testContext(t)
	socket, err := dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var refused *nbd.OptionError
	if _, err := nbd.Connect(ctx, socket, nbd.ClientConfig{Export: "v"}); !errors.As(err, &refused) || refused.Reply != nbd.RepErrTLSRequired {
		t.Fatalf("in the clear: %v", err)
	}
}

func TestCloseFailsPendingCalls(t *testing.T) {
	gate := nbdtest.NewGate(nbdtest.NewMemory(nbdtest.Info("v", testSize, 512)))
	dial := startServer(t, nbd.ServerConfig{Exports: nbdtest.Exports{"v": gate}})
	client := connect(t, dial, nbd.ClientConfig{Export: "v"})
	var pending sync.WaitGroup
	pending.Go(func() {
		if err := client.Flush(); !errors.Is(err, block.ErrClosed) {
			t.Errorf("pending flush: %v", err)
		}
	})
	held := gate.Held(1)
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	pending.Wait()
	held[0].Complete(nil, nil)
	if err := client.Flush(); !errors.Is(err, block.ErrClosed) {
		t.Fatalf("flush after close: %v", err)
	}
}

// FuzzServer feeds a whole connection, handshake and transmission.
func FuzzServer(f *testing.F) {
	option := "IHAVEOPT\x00\x00\x00\x01\x00\x00\x00\x01v"
	f.Add([]byte("\x00\x00\x00\x03" + option + string(rawRequest(write, 0, 1, 0, 512, make([]byte, 512)))))
	f.Add([]byte("\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x07\x00\x00\x00\x07\x00\x00\x00\x01v\x00\x00"))
	f.Fuzz(func(t *testing.T, input []byte) {
		info := nbdtest.Info("v", 64<<10, 512)
		info.Contexts = []string{nbd.ContextAllocation}
		server, err := nbd.NewServer(nbd.ServerConfig{Exports: nbdtest.Exports{"v": nbdtest.NewMemory(info)}})
		if err != nil {
			t.Fatal(err)
		}
		client, socket := net.Pipe()
		var loops sync.WaitGroup
		loops.Go(func() { _ = server.ServeConn(context.Background(), socket) })
		loops.Go(func() { _, _ = io.Copy(io.Discard, client) })
		_, _ = client.Write(input)
		_ = client.Close()
		loops.Wait()
	})
}

// FuzzClient feeds a client everything a server may say.
func FuzzClient(f *testing.F) {
	f.Add([]byte("NBDMAGICIHAVEOPT\x00\x03"))
	f.Fuzz(func(t *testing.T, input []byte) {
		client, socket := net.Pipe()
		var loops sync.WaitGroup
		loops.Go(func() { _, _ = io.Copy(io.Discard, socket) })
		loops.Go(func() {
			_, _ = socket.Write(input)
			_ = socket.Close()
		})
		if c, err := nbd.Connect(context.Background(), client, nbd.ClientConfig{Export: "v", Contexts: []string{"x:y"}}); err == nil {
			_, _ = c.ReadAt(make([]byte, 512), 0)
			_ = c.Close()
		}
		loops.Wait()
	})
}
