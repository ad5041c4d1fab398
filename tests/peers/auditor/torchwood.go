package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"filippo.io/torchwood"
	formats "github.com/transparency-dev/formats/log"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// byTorchwood makes the checks again with the other libraries, from the signature on.
func byTorchwood(ctx context.Context, w *wire, verifier note.Verifier, raw []byte, old *formats.Checkpoint, have *found, q questions, lines *report) {
	tree, err := openTree(raw, verifier)
	if !lines.check("checkpoint, torchwood", fmt.Sprintf("size %d, root %v", tree.N, tree.Hash), err) {
		return
	}
	fetcher, err := torchwood.NewTileFetcher(w.root.String(), torchwood.WithHTTPClient(w.client()), torchwood.WithConcurrencyLimit(workers))
	if err != nil {
		lines.check("whole log, torchwood", "", err)
		return
	}
	reader, err := torchwood.NewClient(fetcher)
	if err != nil {
		lines.check("whole log, torchwood", "", err)
		return
	}
	lines.check("whole log, torchwood", fmt.Sprintf("%d entries match authenticated tiles", tree.N), everyEntry(ctx, reader, tree))
	err = nil
	for _, index := range q.indexes {
		// Checks the proof itself.
		if _, _, err = reader.Entry(ctx, tree, int64(index)); err != nil {
			err = fmt.Errorf("entry %d: %w", index, err)
			break
		}
	}
	lines.check("inclusion, torchwood", fmt.Sprintf("%d entries proven in the tree of %d", len(q.indexes), tree.N), short(err))
	hashes := torchwood.TileHashReaderWithContext(ctx, tree, fetcher)
	if have != nil {
		err = nil
		for _, p := range q.pairs {
			if err = prefix(hashes, p, tlog.Hash(have.roots[p.from]), tlog.Hash(have.roots[p.to])); err != nil {
				break
			}
		}
		lines.check("consistency, torchwood", fmt.Sprintf("%d pairs of sizes proven", len(q.pairs)), short(err))
	}
	if old != nil && 0 < old.Size && old.Size <= uint64(tree.N) {
		err := prefix(hashes, pair{old.Size, uint64(tree.N)}, tlog.Hash(old.Hash), tree.Hash)
		lines.check("continues, torchwood", fmt.Sprintf("from size %d", old.Size), short(err))
	}
}

// openTree verifies a signed checkpoint.
func openTree(raw []byte, verifier note.Verifier) (tlog.Tree, error) {
	signed, err := note.Open(raw, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	head, err := torchwood.ParseCheckpoint(signed.Text)
	if err != nil {
		return tlog.Tree{}, err
	}
	if head.Origin != verifier.Name() {
		return tlog.Tree{}, fmt.Errorf("the origin is %q, and the key's name %q", head.Origin, verifier.Name())
	}
	return head.Tree, nil
}

// everyEntry reads the whole log; the iterator leaves out a partial bundle at the end the first time.
func everyEntry(ctx context.Context, reader *torchwood.Client, tree tlog.Tree) error {
	next := int64(0)
	for range 2 {
		for index, entry := range reader.Entries(ctx, tree, next) {
			if index != next || entry == nil {
				return fmt.Errorf("entry %d was read where %d was due", index, next)
			}
			next++
		}
		if err := reader.Err(); err != nil {
			return short(err)
		}
	}
	if next != tree.N {
		return fmt.Errorf("only %d of %d entries were read", next, tree.N)
	}
	return nil
}

// prefix builds and checks a consistency proof.
func prefix(hashes tlog.HashReader, p pair, from, to tlog.Hash) error {
	path, err := tlog.ProveTree(int64(p.to), int64(p.from), hashes)
	if err == nil {
		err = tlog.CheckTree(path, int64(p.to), to, int64(p.from), from)
	}
	if err != nil {
		return fmt.Errorf("sizes %d and %d: %w", p.from, p.to, err)
	}
	if p.from == p.to && !bytes.Equal(from[:], to[:]) {
		return errors.New("two roots for one size")
	}
	return nil
}
