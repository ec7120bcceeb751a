package stores

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// Authority is a certificate authority of the test.
type Authority struct {
	File        string // PEM, for SSL_CERT_FILE
	Pool        *x509.CertPool
	Certificate *tls.Certificate // of localhost, 127.0.0.1 and ::1
}

// NewAuthority makes an authority, and a certificate for servers on loopback.
func NewAuthority(t TB) *Authority {
	t.Helper()
	ca, caKey, err := certificate(&x509.Certificate{Subject: pkix.Name{CommonName: "test"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, nil)
	if err != nil {
		t.Fatalf("authority: %v", err)
	}
	leaf, key, err := certificate(&x509.Certificate{Subject: pkix.Name{CommonName: "localhost"},
		DNSNames:    []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, ca, caKey)
	if err != nil {
		t.Fatalf("certificate: %v", err)
	}
	a := &Authority{File: filepath.Join(t.TempDir(), "ca.pem"), Pool: x509.NewCertPool(),
		Certificate: &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key}}
	a.Pool.AddCert(ca)
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw})
	if err := os.WriteFile(a.File, text, 0o644); err != nil {
		t.Fatalf("%v", err)
	}
	return a
}

// config is what a server of this authority needs.
func (a *Authority) config() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{*a.Certificate},
		NextProtos: []string{"http/1.1"}}
}

// Client is a client that trusts the authority.
func (a *Authority) Client() *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: a.Pool}}}
}

// certificate signs a certificate with a new key; without a parent, by itself.
func certificate(c, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (
	*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if parent == nil {
		parent, parentKey = c, key
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, parentKey)
	if err != nil {
		return nil, nil, err
	}
	made, err := x509.ParseCertificate(der)
	return made, key, err
}
