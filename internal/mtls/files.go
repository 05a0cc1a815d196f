package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/pflag"

	"github.com/holdfast-io/holdfast/internal/block"
)

// The roles, as DNS names in certificates.
const (
	Node   = "holdfast-node"
	Client = "holdfast-client"
)

// Files are where the certificate, its key and the authority lie, in PEM. The first may
// have intermediate certificates after its own; the last may have several authorities,
// such as the old and the new one while one replaces the other.
type Files struct{ Cert, Key, CA string }

// AddFlags adds the three flags that name the files, the same for every program.
func (f *Files) AddFlags(flags *pflag.FlagSet, role string) {
	flags.StringVar(&f.Cert, "tls-cert", "", "file with the certificate of this end of TLS (PEM), for the DNS name "+role+"; with --tls-key and --tls-ca")
	flags.StringVar(&f.Key, "tls-key", "", "file with the key of that certificate (PEM)")
	flags.StringVar(&f.CA, "tls-ca", "", "file with the authority, or authorities, that issue the certificates of the cluster (PEM)")
}

// Given reports whether TLS is asked for.
func (f Files) Given() bool { return f != Files{} }

// Validate wants all three or none.
func (f Files) Validate() error {
	if !f.Given() {
		return nil
	}
	for _, one := range []struct{ flag, path string }{{"--tls-cert", f.Cert}, {"--tls-key", f.Key}, {"--tls-ca", f.CA}} {
		if one.path == "" {
			return fmt.Errorf("%s is missing: give --tls-cert, --tls-key and --tls-ca, or none of them", one.flag)
		}
	}
	return nil
}

// material is what one reading of the files came to.
type material struct {
	certificate tls.Certificate
	authorities *x509.CertPool
}

// ends is when the certificate stops being valid.
func (m *material) ends() time.Time { return m.certificate.Leaf.NotAfter }

// read reads the files, and checks that another end with the same authority would
// accept the certificate for one of the roles.
func (f Files) read(now time.Time, roles ...string) (*material, error) {
	text, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, fmt.Errorf("--tls-ca: %w: give a file that can be read", err)
	}
	m := &material{authorities: x509.NewCertPool()}
	if !m.authorities.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("--tls-ca %s: no certificate in it: give the authority's in PEM: %w", f.CA, block.ErrInvalid)
	}
	if m.certificate, err = tls.LoadX509KeyPair(f.Cert, f.Key); err != nil {
		return nil, fmt.Errorf("--tls-cert %s, --tls-key %s: %w: give a certificate and its own key, in PEM", f.Cert, f.Key, err)
	}
	if err := m.check(now, roles); err != nil {
		return nil, fmt.Errorf("--tls-cert %s: %w", f.Cert, err)
	}
	return m, nil
}

func (m *material) check(now time.Time, roles []string) error {
	leaf := m.certificate.Leaf
	if now.After(leaf.NotAfter) || now.Before(leaf.NotBefore) {
		return fmt.Errorf("valid from %s to %s only: have another one issued: %w",
			leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339), block.ErrInvalid)
	}
	if err := checkRole(leaf, roles); err != nil {
		return err
	}
	intermediates := x509.NewCertPool()
	for _, der := range m.certificate.Certificate[1:] {
		between, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		intermediates.AddCert(between)
	}
	for _, u := range usages(roles) {
		if _, err := leaf.Verify(x509.VerifyOptions{
			Roots: m.authorities, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{u.use},
		}); err != nil {
			return fmt.Errorf("other ends would refuse it: %w: have it issued by the authority of --tls-ca, for %s", err, u.name)
		}
	}
	return nil
}

// usage is a use of a certificate, and what people call it.
type usage struct {
	use  x509.ExtKeyUsage
	name string
}

// usages are those that the holder makes of a certificate: everybody dials, and a node
// is dialled as well.
func usages(roles []string) []usage {
	all := []usage{{x509.ExtKeyUsageClientAuth, "client authentication"}}
	if slices.Equal(roles, []string{Node}) {
		all = append(all, usage{x509.ExtKeyUsageServerAuth, "server authentication"})
	}
	return all
}

// checkRole wants one of the roles among the names of a certificate.
func checkRole(leaf *x509.Certificate, roles []string) error {
	var err error
	for _, role := range roles {
		if err = leaf.VerifyHostname(role); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%w: a certificate of that end must have this DNS name", err)
}
