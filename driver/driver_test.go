package driver

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-logr/logr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"k8s.io/klog/v2"

	holdfastv1 "github.com/holdfast-io/holdfast/proto/holdfast/v1"
)

// startDriver serves a plugin until stop is called, which returns what Run did.
func startDriver(t *testing.T, d *scriptedDaemon) (conn *grpc.ClientConn, socket string, stop func() error) {
	t.Helper()
	api := serveDaemonConn(t, d)
	socket = filepath.Join(t.TempDir(), "csi", "csi.sock")
	plugin, err := New(Options{Endpoint: "unix://" + socket, Daemon: api, Version: "test", Mode: ModeController})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- plugin.Run(ctx) }()
	conn, err = grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceValue(func() error {
		conn.Close()
		cancel()
		return <-ended
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return conn, socket, stop
}

func TestProbeFollowsTheDaemon(t *testing.T) {
	d := &scriptedDaemon{}
	conn, _, _ := startDriver(t, d)
	client := csi.NewIdentityClient(conn)
	for _, test := range []struct {
		daemon codes.Code
		ready  bool
		answer codes.Code
	}{
		{codes.OK, true, codes.OK},
		{codes.Unavailable, false, codes.OK},
		{codes.Internal, false, codes.FailedPrecondition},
	} {
		d.fail("GetCluster", status.Error(test.daemon, "scripted"))
		answer, err := client.Probe(t.Context(), &csi.ProbeRequest{})
		if status.Code(err) != test.answer || answer.GetReady().GetValue() != test.ready {
			t.Errorf("a daemon that answers %v makes the probe %v, %v", test.daemon, answer, err)
		}
	}
	info, err := client.GetPluginInfo(t.Context(), &csi.GetPluginInfoRequest{})
	if err != nil || info.GetName() != Name || info.GetVendorVersion() != "test" {
		t.Errorf("plugin info is %v, %v", info, err)
	}
}

func TestOnlyOnePluginServesASocket(t *testing.T) {
	conn, socket, stop := startDriver(t, &scriptedDaemon{})
	if _, err := csi.NewIdentityClient(conn).GetPluginInfo(t.Context(), &csi.GetPluginInfoRequest{}); err != nil {
		t.Fatal(err)
	}
	second, err := New(Options{Endpoint: socket, Daemon: conn, Version: "test", Mode: ModeController})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "another plugin is serving") {
		t.Errorf("the second plugin answers %v", err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	// What a killed plugin leaves behind is replaced.
	address := &net.UnixAddr{Name: socket, Net: "unix"}
	left, err := net.ListenUnix("unix", address)
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	left.Close()
	if _, err := os.Stat(socket); err != nil {
		t.Fatal(err)
	}
	listener, err := second.listen(t.Context())
	if err != nil {
		t.Fatalf("a left socket is not replaced: %v", err)
	}
	listener.Close()
}

func TestOptionsAreChecked(t *testing.T) {
	good := Options{Endpoint: "/run/csi.sock", Daemon: &grpc.ClientConn{}, Version: "1"}
	if err := good.Validate(); err != nil || good.Mode != ModeAll {
		t.Errorf("good options answer %v, mode %q", err, good.Mode)
	}
	for name, spoil := range map[string]func(*Options){
		"tcp":        func(o *Options) { o.Endpoint = "tcp://127.0.0.1:1" },
		"empty":      func(o *Options) { o.Endpoint = "unix://" },
		"no daemon":  func(o *Options) { o.Daemon = nil },
		"mode":       func(o *Options) { o.Mode = "both" },
		"no version": func(o *Options) { o.Version = "" },
		"interval":   func(o *Options) { o.TrimInterval = -1 },
	} {
		bad := good
		spoil(&bad)
		if _, err := New(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestSecretsAreNeverLogged at the most talkative level.
func TestSecretsAreNeverLogged(t *testing.T) {
	var log bytes.Buffer
	logger := logr.FromSlogHandler(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.Level(-10)}))
	d := &scriptedDaemon{volume: &holdfastv1.Volume{Id: testVolume}}
	c := newController(t, d)
	req := createRequest()
	req.Secrets = map[string]string{"token": "hunter2"}
	ctx := klog.NewContext(t.Context(), logger)
	_, err := logged(ctx, req, &grpc.UnaryServerInfo{FullMethod: "/csi.v1.Controller/CreateVolume"},
		func(ctx context.Context, req any) (any, error) {
			return c.CreateVolume(ctx, req.(*csi.CreateVolumeRequest))
		})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "stripped") || !strings.Contains(log.String(), "pvc-1") {
		t.Errorf("the request is not logged: %s", log.String())
	}
	if strings.Contains(log.String(), "hunter2") {
		t.Errorf("a secret is logged: %s", log.String())
	}
}

func TestEveryCallHasADeadline(t *testing.T) {
	_, err := withDeadline(context.Background(), nil, nil, func(ctx context.Context, _ any) (any, error) {
		if _, ok := ctx.Deadline(); !ok {
			t.Error("the handler has no deadline")
		}
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
