package mtls

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// lookInterval is how often Run looks whether the files have changed.
const lookInterval = time.Second

// Identity is what this end proves itself by, and what it believes of others.
type Identity struct {
	files  Files
	roles  []string
	logger *slog.Logger
	// current is what new handshakes use.
	current atomic.Pointer[material]
	// seen is the state of the files when they were read last; it belongs to Open, then
	// to Run.
	seen     [3]stamp
	failures prometheus.Counter
}

// Open reads the files of an end that has one of the roles.
func Open(files Files, logger *slog.Logger, roles ...string) (*Identity, error) {
	i := &Identity{files: files, roles: roles, logger: logger, failures: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "holdfast_tls_reload_failures_total",
		Help: "How often changed files for TLS could not be used, and the ones before stayed in use.",
	})}
	i.seen = i.stamps()
	m, err := files.read(time.Now(), roles...)
	if err != nil {
		return nil, err
	}
	i.use(m)
	return i, nil
}

func (i *Identity) use(m *material) {
	i.current.Store(m)
	i.logger.Info("TLS certificate in use", "file", i.files.Cert, "serial", m.certificate.Leaf.SerialNumber.String(),
		"ends", m.ends().UTC().Format(time.RFC3339))
}

// Describe implements prometheus.Collector.
func (i *Identity) Describe(descs chan<- *prometheus.Desc) { prometheus.DescribeByCollect(i, descs) }

// Collect implements prometheus.Collector.
func (i *Identity) Collect(metrics chan<- prometheus.Metric) {
	metrics <- prometheus.MustNewConstMetric(endDesc, prometheus.GaugeValue, float64(i.current.Load().ends().Unix()))
	i.failures.Collect(metrics)
}

var endDesc = prometheus.NewDesc("holdfast_tls_certificate_end_timestamp_seconds",
	"When the certificate that new connections use stops being valid, in seconds since 1970.", nil, nil)

// Run reads the files again when they change, until ctx ends.
func (i *Identity) Run(ctx context.Context) error {
	ticker := time.NewTicker(lookInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			i.look()
		}
	}
}

// look reads the files if they are not those that were read last. A certificate that was
// written before its key fails, and is tried again when the key has come.
func (i *Identity) look() {
	// Before they are read: what changes meanwhile is read again.
	now := i.stamps()
	if now == i.seen {
		return
	}
	i.seen = now
	m, err := i.files.read(time.Now(), i.roles...)
	if err != nil {
		i.failures.Inc()
		i.logger.Error("changed files for TLS cannot be used; those read before stay in use",
			"ends", i.current.Load().ends().UTC().Format(time.RFC3339), "err", err)
		return
	}
	i.use(m)
}

// stamps are those of the files; one that is not there has the zero value.
func (i *Identity) stamps() (all [3]stamp) {
	for n, path := range []string{i.files.Cert, i.files.Key, i.files.CA} {
		if info, err := os.Stat(path); err == nil {
			all[n] = stampOf(info)
		}
	}
	return all
}

// Client is for dialling a node. It is good for the next connection only, so that the
// one after it uses what the files say then.
func (i *Identity) Client() *tls.Config {
	m := i.current.Load()
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{m.certificate},
		RootCAs:      m.authorities,
		ServerName:   Node,
	}
}

// Server is for connections from others of the roles, for as long as a listener lives.
func (i *Identity) Server(roles ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return i.accept(roles), nil
		},
	}
}

// accept is for the next connection from one of the roles.
func (i *Identity) accept(roles []string) *tls.Config {
	m := i.current.Load()
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{m.certificate},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    m.authorities,
		// Who resumed a session would not be looked at again.
		SessionTicketsDisabled: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if err := checkRole(state.PeerCertificates[0], roles); err != nil {
				return fmt.Errorf("the certificate of the other end: %w", err)
			}
			return nil
		},
	}
}
