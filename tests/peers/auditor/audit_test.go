package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
)

// served is a log of Tessera's on disk, behind TLS.
type served struct {
	t       *testing.T
	dir     string
	signer  note.Signer
	vkey    string
	url, ca string
}

func serve(t *testing.T) *served {
	t.Helper()
	quiet()
	skey, vkey, err := note.GenerateKey(rand.Reader, "log.example.test")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	log := &served{t: t, dir: t.TempDir(), signer: signer, vkey: vkey}
	server := httptest.NewTLSServer(http.StripPrefix("/log", http.FileServer(http.Dir(log.dir))))
	t.Cleanup(server.Close)
	log.url, log.ca = server.URL+"/log", filepath.Join(t.TempDir(), "ca.pem")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(log.ca, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	return log
}

// grow appends entries that begin with the given word.
func (s *served) grow(count int, word string) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	driver, err := posix.New(ctx, posix.Config{Path: s.dir})
	if err != nil {
		s.t.Fatal(err)
	}
	options := tessera.NewAppendOptions().WithCheckpointSigner(s.signer).WithBatching(256, 20*time.Millisecond).WithCheckpointInterval(100 * time.Millisecond)
	appender, shutdown, _, err := tessera.NewAppender(ctx, driver, options)
	if err != nil {
		s.t.Fatal(err)
	}
	futures := make([]tessera.IndexFuture, count)
	for i := range futures {
		futures[i] = appender.Add(ctx, tessera.NewEntry(fmt.Appendf(nil, "%s %d", word, i)))
	}
	for _, future := range futures {
		if _, err := future(); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := shutdown(ctx); err != nil {
		s.t.Fatal(err)
	}
}

// audit returns what was printed.
func (s *served) audit(more ...string) (string, int, error) {
	var out strings.Builder
	failed, err := run(append([]string{"--url", s.url, "--ca", s.ca, "--vkey", s.vkey, "--timeout", "30s"}, more...), &out)
	return out.String(), failed, err
}

func (s *served) file(name string) string { return filepath.Join(s.t.TempDir(), name) }

func TestALogThatGrowsHonestlyIsGood(t *testing.T) {
	log := serve(t)
	saved := ""
	for round, count := range []int{1, 255, 1, 600} {
		log.grow(count, fmt.Sprint("round ", round))
		more, now := []string{"--save", log.file("checkpoint")}, ""
		if now = more[1]; saved != "" {
			more = append(more, "--from", saved)
		}
		text, failed, err := log.audit(more...)
		if err != nil || failed != 0 || !strings.Contains(text, "verdict: good") {
			t.Fatalf("round %d: %d failed, %v\n%s", round, failed, err, text)
		}
		saved = now
	}
}

// Whatever is flipped, the check that is there for it goes red.
func TestAFlippedBitIsNoticed(t *testing.T) {
	log := serve(t)
	log.grow(700, "entry")
	for _, c := range []struct{ flip, red string }{
		{"checkpoint@0", "checkpoint"},   // the origin
		{"checkpoint@18", "checkpoint"},  // the size
		{"checkpoint@40", "checkpoint"},  // the root
		{"checkpoint@130", "checkpoint"}, // the signature
		{"tile/0/000", "whole log, Tessera"},
		{"tile/0/000@0", "inclusion, Tessera"},
		{"tile/0/000@8191", "whole log, torchwood"},
		{"tile/0/001@0", "inclusion, torchwood"},
		{"tile/0/002.p/188", "whole log, Tessera"},
		{"tile/1/000.p/2", "whole log, Tessera"},
		{"tile/1/000.p/2@0", "consistency, torchwood"},
		{"tile/entries/000@5", "whole log, Tessera"},
		{"tile/entries/001@1", "whole log, Tessera"}, // a length
		{"tile/entries/002.p/188", "whole log, torchwood"},
		{"tile/entries/002.p/188@0", "whole log, Tessera"},
	} {
		text, failed, err := log.audit("--flip", c.flip, "--save", log.file("checkpoint"))
		if err != nil || failed == 0 || !strings.Contains(text, "\nFAIL  "+c.red) && !strings.HasPrefix(text, "FAIL  "+c.red) {
			t.Errorf("%s: %d failed, %v; %q should be red\n%s", c.flip, failed, err, c.red, text)
		}
	}
}

func TestAnotherHistoryUnderTheSameKeyIsNoticed(t *testing.T) {
	log := serve(t)
	log.grow(300, "seen")
	saved := log.file("checkpoint")
	if text, failed, err := log.audit("--save", saved); failed != 0 || err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for name, count := range map[string]int{"a fork of the same size": 300, "a fork that is longer": 500, "a log that shrank": 200} {
		fork := serve(t)
		fork.signer, fork.vkey = log.signer, log.vkey
		fork.grow(count, "rewritten")
		text, failed, err := fork.audit("--from", saved)
		if err != nil || failed == 0 || !strings.Contains(text, "\nFAIL  continues the saved checkpoint") {
			t.Errorf("%s: %d failed, %v\n%s", name, failed, err, text)
		}
		if text, failed, err := fork.audit(); failed != 0 || err != nil {
			t.Errorf("%s should be good as such: %v\n%s", name, err, text)
		}
	}
}

func TestAMissingFileIsNoticed(t *testing.T) {
	for _, path := range []string{"tile/0/000", "tile/1/000.p/2", "tile/entries/001", "tile/entries/002.p/88", "checkpoint"} {
		log := serve(t)
		log.grow(600, "entry")
		if err := os.Remove(filepath.Join(log.dir, path)); err != nil {
			t.Fatal(err)
		}
		if text, failed, err := log.audit(); failed == 0 || err != nil {
			t.Errorf("%s is missing: %v\n%s", path, err, text)
		}
	}
}

func TestABundleOfAnotherLengthIsNoticed(t *testing.T) {
	log := serve(t)
	log.grow(600, "entry")
	path := filepath.Join(log.dir, "tile", "entries", "001")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	last := len("entry 511") + 2
	for name, body := range map[string][]byte{"one too few": whole[:len(whole)-last], "one too many": append(whole, whole[len(whole)-last:]...)} {
		if err := os.WriteFile(path, body, 0o600); err != nil {
			t.Fatal(err)
		}
		text, failed, err := log.audit()
		if failed == 0 || err != nil || !strings.Contains(text, "FAIL  whole log, Tessera") {
			t.Errorf("%s: %d failed, %v\n%s", name, failed, err, text)
		}
	}
}

func TestALogWithoutAnyTileIsNotWaitedForEndlessly(t *testing.T) {
	log := serve(t)
	log.grow(40*256, "entry")
	if err := os.RemoveAll(filepath.Join(log.dir, "tile", "0")); err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	text, failed, err := log.audit("--timeout", "3s")
	if failed == 0 || err != nil || time.Since(started) > 10*time.Second {
		t.Errorf("%d failed after %v, %v\n%s", failed, time.Since(started), err, text)
	}
}

// A server of plain files has the right bytes and not the right headers.
func TestTheDutiesOfAServerAreChecked(t *testing.T) {
	log := serve(t)
	log.grow(300, "entry")
	files := http.FileServer(http.Dir(log.dir))
	kinds := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		w.Header().Set("Content-Type", "application/octet-stream")
		if r.URL.Path == "/checkpoint" {
			w.Header().Set("Cache-Control", "max-age=5")
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		}
		files.ServeHTTP(w, r)
	}
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		red     string
	}{
		"as it should be":   {kinds, ""},
		"no cache headers":  {files.ServeHTTP, "content types and caching"},
		"an immutable head": {func(w http.ResponseWriter, r *http.Request) { kinds(headers{w, "Cache-Control", "immutable"}, r) }, "content types and caching"},
		"a head without any": {func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/checkpoint" {
				w = headers{w, "Cache-Control", ""}
			}
			kinds(w, r)
		}, "content types and caching"},
		"tiles as text": {func(w http.ResponseWriter, r *http.Request) {
			kinds(headers{w, "Content-Type", "text/plain; charset=utf-8"}, r)
		}, "content types and caching"},
		"anything is answered": {everything(kinds, log.dir), "nothing past the checkpoint"},
	} {
		server := httptest.NewServer(c.handler)
		text, failed, err := log.audit("--url", server.URL, "--duties")
		server.Close()
		good := failed == 0 && c.red == "" || failed == 1 && c.red != "" && strings.Contains(text, "FAIL  "+c.red)
		if err != nil || !good {
			t.Errorf("%s: %d failed, %v\n%s", name, failed, err, text)
		}
	}
}

// headers forces one header.
type headers struct {
	http.ResponseWriter
	name, value string
}

func (h headers) WriteHeader(status int) {
	h.Header().Set(h.name, h.value)
	h.ResponseWriter.WriteHeader(status)
}

// everything answers what is not there with an empty file.
func everything(handler http.HandlerFunc, dir string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if _, err := os.Stat(filepath.Join(dir, r.URL.Path)); err == nil {
			handler(w, r)
		}
	}
}

func TestAnotherKeyIsRefused(t *testing.T) {
	log, other := serve(t), serve(t)
	log.grow(3, "entry")
	log.vkey = other.vkey
	if text, failed, err := log.audit(); failed != 1 || err != nil {
		t.Errorf("%d failed, %v\n%s", failed, err, text)
	}
}

// No verdict is not a good one, nor a bad one.
func TestWhatCannotBeToldIsAnError(t *testing.T) {
	log := serve(t)
	log.grow(3, "entry")
	if _, _, err := log.audit("--flip", "tile/0/077"); err == nil || !strings.Contains(err.Error(), "nothing was flipped") {
		t.Errorf("a flip that met nothing: %v", err)
	}
	if _, _, err := log.audit("--from", log.file("nothing")); err == nil || errors.Is(err, errUsage) {
		t.Errorf("a saved checkpoint that is not there: %v", err)
	}
	untrusted := *log
	untrusted.ca = log.file("other.pem")
	if err := os.WriteFile(untrusted.ca, otherAuthority(t), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, _, err := untrusted.audit(); err == nil || !strings.Contains(err.Error(), "no answer") {
		t.Errorf("an authority that is not trusted: %v\n%s", err, text)
	}
	gone := *log
	gone.url = "https://127.0.0.1:1/log"
	if text, _, err := gone.audit(); err == nil || !strings.Contains(err.Error(), "no answer") {
		t.Errorf("nobody there: %v\n%s", err, text)
	}
	for _, bad := range [][]string{{"--url", ""}, {"--vkey", "x"}, {"--flip", "checkpoint@x"}, {"--colour"}} {
		if _, _, err := log.audit(bad...); !errors.Is(err, errUsage) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// otherAuthority is a certificate that signed nothing here.
func otherAuthority(t *testing.T) []byte {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
