// Package certs makes authorities and certificates for clusters of tests.
package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast-io/holdfast/internal/mtls"
)

// validity is how long what a test makes is good for, and how long it has been already.
const validity = 24 * time.Hour

// Authority issues certificates.
type Authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// NewAuthority makes one. Two of them do not know each other.
func NewAuthority() (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := template("authority of a test", time.Now().Add(validity))
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	return &Authority{certificate: certificate, key: key}, err
}

func template(name string, ends time.Time) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    ends.Add(-2 * validity),
		NotAfter:     ends,
	}
}

// PEM is the authority's own certificate.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw})
}

// Request says what certificate is wanted.
type Request struct {
	// Name is its DNS name.
	Name string
	// Ends is when it stops being valid; the zero value stands for a day from now.
	Ends time.Time
	// Trusted are the authorities that its holder believes, besides the one that issues it.
	Trusted []*Authority
}

// Issue writes a certificate, its key and the authorities into a directory, each in one
// step, over those that are there.
func (a *Authority) Issue(dir string, r Request) (mtls.Files, error) {
	files := mtls.Files{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), CA: filepath.Join(dir, "ca.pem")}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return files, err
	}
	if r.Ends.IsZero() {
		r.Ends = time.Now().Add(validity)
	}
	leaf := template("an end of a test", r.Ends)
	leaf.DNSNames = []string{r.Name}
	leaf.KeyUsage = x509.KeyUsageDigitalSignature
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	der, err := x509.CreateCertificate(rand.Reader, leaf, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		return files, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return files, err
	}
	trusted := a.PEM()
	for _, other := range r.Trusted {
		trusted = append(trusted, other.PEM()...)
	}
	return files, errors.Join(
		os.MkdirAll(dir, 0o700),
		Replace(files.CA, trusted),
		Replace(files.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})),
		Replace(files.Cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
	)
}

// Replace puts a file in the place of another.
func Replace(path string, text []byte) error {
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
