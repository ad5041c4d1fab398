package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	formats "github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/storage/posix"
	badger "github.com/transparency-dev/tessera/storage/posix/antispam"
	"golang.org/x/mod/sumdb/note"
)

// origin is the log's name. The key stands beside the log and not in it, so that the log can be served as it is.
const origin = "peer.example.test"

// settings are Tessera's own knobs.
type settings struct {
	batchSize uint
	batchAge  time.Duration
	interval  time.Duration
	poll      time.Duration
	antispam  string
}

// peer is a Tessera log on disk that this process may append to.
type peer struct {
	appender *tessera.Appender
	awaiter  *tessera.PublicationAwaiter
	reader   tessera.LogReader
	verifier note.Verifier
	close    func() error
}

// openPeer opens the log in dir, and makes one there if there is none.
func openPeer(dir string, with settings) (*peer, error) {
	signer, verifier, err := keys(dir)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	driver, err := posix.New(ctx, posix.Config{Path: filepath.Join(dir, "log")})
	if err != nil {
		cancel()
		return nil, fmt.Errorf("cannot open the POSIX driver: %w", err)
	}
	options := tessera.NewAppendOptions().
		WithCheckpointSigner(signer).
		WithBatching(with.batchSize, with.batchAge).
		WithCheckpointInterval(with.interval)
	switch with.antispam {
	case "none":
	case "memory":
		options = options.WithAntispam(tessera.DefaultAntispamInMemorySize, nil)
	case "badger":
		// Badger's own thresholds push back below 4,096 callers; what is measured here is the log, not the refusals.
		store, err := badger.NewAntispam(ctx, filepath.Join(dir, "antispam"), badger.AntispamOpts{PushbackThreshold: 1 << 20})
		if err != nil {
			cancel()
			return nil, fmt.Errorf("cannot open the antispam index: %w", err)
		}
		options = options.WithAntispam(tessera.DefaultAntispamInMemorySize, store)
	default:
		cancel()
		return nil, fmt.Errorf("--antispam is none, memory or badger, not %q", with.antispam)
	}
	appender, shutdown, reader, err := tessera.NewAppender(ctx, driver, options)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("cannot open the log in %s: %w", dir, err)
	}
	return &peer{
		appender: appender,
		awaiter:  tessera.NewPublicationAwaiter(ctx, reader.ReadCheckpoint, with.poll),
		reader:   reader,
		verifier: verifier,
		// A clean shutdown publishes whatever was sequenced.
		close: func() error { defer cancel(); return shutdown(ctx) },
	}, nil
}

// keys returns the log's signer and verifier, and makes them for a new log: DIR/log.key, DIR/log.vkey.
func keys(dir string) (note.Signer, note.Verifier, error) {
	private, public := filepath.Join(dir, "log.key"), filepath.Join(dir, "log.vkey")
	skey, err := os.ReadFile(private)
	if errors.Is(err, fs.ErrNotExist) {
		var vkey, fresh string
		if fresh, vkey, err = note.GenerateKey(rand.Reader, origin); err != nil {
			return nil, nil, fmt.Errorf("cannot make a key: %w", err)
		}
		if err = os.MkdirAll(filepath.Join(dir, "log"), 0o755); err != nil {
			return nil, nil, err
		}
		if err = os.WriteFile(public, []byte(vkey+"\n"), 0o644); err != nil {
			return nil, nil, err
		}
		skey, err = []byte(fresh), os.WriteFile(private, []byte(fresh), 0o600)
	}
	if err != nil {
		return nil, nil, err
	}
	vkey, err := os.ReadFile(public)
	if err != nil {
		return nil, nil, err
	}
	signer, err := note.NewSigner(strings.TrimSpace(string(skey)))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", private, err)
	}
	verifier, err := note.NewVerifier(strings.TrimSpace(string(vkey)))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", public, err)
	}
	return signer, verifier, nil
}

// receipt is what a caller holds once its request was answered.
type receipt struct {
	entry []byte
	index uint64
	// checkpoint commits to the entry; nil after [peer.sequence].
	checkpoint []byte
}

// sequence appends and waits until the entry's index is durable; with this driver it is then integrated as well.
func (p *peer) sequence(entry []byte) (receipt, error) {
	index, err := p.appender.Add(context.Background(), tessera.NewEntry(entry))()
	return receipt{entry: entry, index: index.Index}, err
}

// publish appends and waits until a published checkpoint commits to the entry: from then on everybody can build its
// inclusion proof. Building one is not charged.
func (p *peer) publish(entry []byte) (receipt, error) {
	ctx := context.Background()
	index, checkpoint, err := p.awaiter.Await(ctx, p.appender.Add(ctx, tessera.NewEntry(entry)))
	return receipt{entry: entry, index: index.Index, checkpoint: checkpoint}, err
}

// prove builds the inclusion proof of a receipt from the log's tiles and checks it: what was timed must be true.
func (p *peer) prove(r receipt) error {
	ctx := context.Background()
	if r.checkpoint == nil {
		newest, err := p.reader.ReadCheckpoint(ctx)
		if err != nil {
			return fmt.Errorf("no checkpoint: %w", err)
		}
		r.checkpoint = newest
	}
	head, _, _, err := formats.ParseCheckpoint(r.checkpoint, origin, p.verifier)
	if err != nil {
		return fmt.Errorf("entry %d was answered with a bad checkpoint: %w", r.index, err)
	}
	builder, err := client.NewProofBuilder(ctx, head.Size, p.reader.ReadTile)
	if err != nil {
		return err
	}
	path, err := builder.InclusionProof(ctx, r.index)
	if err != nil {
		return fmt.Errorf("entry %d cannot be proven in a tree of %d: %w", r.index, head.Size, err)
	}
	leaf := rfc6962.DefaultHasher.HashLeaf(r.entry)
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, r.index, head.Size, leaf, path, head.Hash); err != nil {
		return fmt.Errorf("entry %d is not in the tree of %d: %w", r.index, head.Size, err)
	}
	return nil
}
