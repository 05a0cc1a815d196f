// Package control opens connections to the control address of a daemon: the one
// place that knows its default and how such a connection behaves.
package control

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/holdfast-io/holdfast/internal/mtls"
)

const (
	// DefaultSocket is where a daemon listens on its own machine.
	DefaultSocket = "/run/holdfast/holdfastd.sock"
	// ServerVariable names the environment variable that replaces the default.
	ServerVariable = "HOLDFAST_SERVER"

	// reconnectDelayMax is short, because a daemon that restarts is back within a
	// second or two and its clients should notice.
	reconnectDelayMax = 2 * time.Second
)

// DefaultServer is the address to use where the user names none.
func DefaultServer() string {
	if server := os.Getenv(ServerVariable); server != "" {
		return server
	}
	return "unix://" + DefaultSocket
}

// Dial returns a connection to a daemon: "unix:///path" or "host:port". It does
// not wait for the daemon; the first call connects.
func Dial(address string) (*grpc.ClientConn, error) { return DialAs(nil, address) }

// DialAs is Dial with TLS to a host:port, if there is an identity to prove.
func DialAs(identity *mtls.Identity, address string) (*grpc.ClientConn, error) {
	if !wellFormed(address) {
		return nil, fmt.Errorf("server address %q: want unix:///path or host:port", address)
	}
	proof := insecure.NewCredentials()
	if identity != nil && !strings.HasPrefix(address, "unix://") {
		proof = identity.Credentials()
	}
	conn, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(proof),
		// Nodes are reached directly, whatever proxy the shell is set up for.
		grpc.WithNoProxy(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: reconnectDelayMax,
			},
			MinConnectTimeout: reconnectDelayMax,
		}))
	if err != nil {
		return nil, fmt.Errorf("server address %q: %w", address, err)
	}
	return conn, nil
}

// wellFormed reports whether an address is of one of the two forms. gRPC takes any other
// text for the name of a host, and says only that it cannot find it.
func wellFormed(address string) bool {
	if path, unix := strings.CutPrefix(address, "unix://"); unix {
		return filepath.IsAbs(path)
	}
	host, port, err := net.SplitHostPort(address)
	number, notNumber := strconv.ParseUint(port, 10, 16)
	return err == nil && notNumber == nil && host != "" && number != 0
}
