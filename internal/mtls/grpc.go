package mtls

import (
	"context"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// Credentials are for gRPC, on both sides. As a server they let the roles in, and leave a
// unix socket as it is: there the file system says who may.
func (i *Identity) Credentials(roles ...string) credentials.TransportCredentials {
	return grpcCredentials{TransportCredentials: credentials.NewTLS(i.Client()), identity: i, roles: roles}
}

// grpcCredentials make the credentials of each connection from the files as they are then.
// The embedded ones say what protocol that is.
type grpcCredentials struct {
	credentials.TransportCredentials
	identity *Identity
	roles    []string
}

// ClientHandshake implements credentials.TransportCredentials.
func (c grpcCredentials) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return credentials.NewTLS(c.identity.Client()).ClientHandshake(ctx, authority, raw)
}

// ServerHandshake implements credentials.TransportCredentials.
func (c grpcCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if raw.LocalAddr().Network() == "unix" {
		return insecure.NewCredentials().ServerHandshake(raw)
	}
	conn, info, err := credentials.NewTLS(c.identity.accept(c.roles)).ServerHandshake(raw)
	if err != nil {
		c.identity.logger.Warn("refused a control connection", "from", raw.RemoteAddr().String(), "err", err)
	}
	return conn, info, err
}

// Clone implements credentials.TransportCredentials.
func (c grpcCredentials) Clone() credentials.TransportCredentials { return c }
