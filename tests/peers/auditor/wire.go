package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"k8s.io/klog/v2"
)

// bodyLimit is more than the largest entry bundle, 256 entries of 65,535 bytes with their lengths.
const bodyLimit = 17 << 20

// wire carries every request of both libraries: it trusts the given authority, bounds what is read, counts, and flips
// a bit on request.
type wire struct {
	root      *url.URL
	transport *http.Transport
	flip      *flip
	requests  atomic.Uint64
	bytes     atomic.Uint64
	// broken is the newest failure to get an answer at all.
	broken atomic.Pointer[error]
}

// flip changes one bit of each answer for one path.
type flip struct {
	path string
	// offset is the byte; -1: the one in the middle.
	offset int
	count  atomic.Uint64
}

// connect makes all connections to this address, whatever the URL's host says: the log is asked by its own name, which no
// name server knows.
func (w *wire) connect(address string) {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	w.transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, network, address)
	}
}

func newWire(rawURL, caFile, flipped string) (*wire, error) {
	root, err := url.Parse(strings.TrimSuffix(rawURL, "/") + "/")
	if err != nil || (root.Scheme != "https" && root.Scheme != "http") || root.Host == "" {
		return nil, fmt.Errorf("%w: --url %q is not an http(s) URL", errUsage, rawURL)
	}
	transport := &http.Transport{
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: workers,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("--ca: %w", err)
		}
		transport.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%w: --ca %s has no PEM certificate", errUsage, caFile)
		}
	}
	w := &wire{root: root, transport: transport}
	if flipped != "" {
		path, at, given := strings.Cut(flipped, "@")
		w.flip = &flip{path: root.Path + path, offset: -1}
		if given {
			if w.flip.offset, err = strconv.Atoi(at); err != nil || w.flip.offset < 0 {
				return nil, fmt.Errorf("%w: --flip is PATH or PATH@OFFSET, not %q", errUsage, flipped)
			}
		}
	}
	return w, nil
}

func (w *wire) client() *http.Client { return &http.Client{Transport: w, Timeout: 30 * time.Second} }

// RoundTrip implements [http.RoundTripper].
func (w *wire) RoundTrip(request *http.Request) (*http.Response, error) {
	w.requests.Add(1)
	answer, err := w.transport.RoundTrip(request)
	if err != nil {
		w.broken.Store(&err)
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, bodyLimit+1))
	if err != nil {
		return nil, err
	}
	if len(body) > bodyLimit {
		return nil, errors.New("more than any tile or entry bundle can be")
	}
	w.bytes.Add(uint64(len(body)))
	if w.flip != nil && request.URL.Path == w.flip.path && answer.StatusCode == http.StatusOK {
		w.flip.apply(body)
	}
	answer.Body = io.NopCloser(bytes.NewReader(body))
	return answer, nil
}

func (f *flip) apply(body []byte) {
	at := f.offset
	if at < 0 {
		at = len(body) / 2
	}
	if at < len(body) {
		body[at] ^= 1
		f.count.Add(1)
	}
}

// quiet leaves errors of Tessera on standard error, and nothing else.
func quiet() {
	flags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(flags)
	_ = flags.Set("logtostderr", "false")
	_ = flags.Set("stderrthreshold", "FATAL")
	klog.SetOutput(io.Discard)
}
