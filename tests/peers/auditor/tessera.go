package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	formats "github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/api/layout"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"
	"golang.org/x/mod/sumdb/note"
)

var hasher = rfc6962.DefaultHasher

// found is what was computed from the entries themselves: proofs are checked against it.
type found struct {
	// leaves are the hashes of the entries that are to be proven, by index; roots those of trees, by size.
	leaves map[uint64][]byte
	roots  map[uint64][]byte
}

// rehash reads every entry of the log, and has Tessera's fsck compute all tiles and the root and compare them with
// what the log serves. On the way it keeps the hashes that later proofs need; none if not every entry could be read.
func rehash(ctx context.Context, log pinned, verifier note.Verifier, size uint64, q questions) (*found, error) {
	kept := &found{leaves: make(map[uint64][]byte), roots: make(map[uint64][]byte)}
	for _, index := range q.indexes {
		kept.leaves[index] = nil
	}
	for _, p := range q.pairs {
		kept.roots[p.from], kept.roots[p.to] = nil, nil
	}
	tree := (&compact.RangeFactory{Hash: hasher.HashChildren}).NewEmptyRange(0)
	// Bundles come one at a time, in order.
	hash := func(raw []byte) ([][]byte, error) {
		var bundle api.EntryBundle
		if err := bundle.UnmarshalText(raw); err != nil {
			return nil, err
		}
		if wanted := min(layout.EntryBundleWidth, size-tree.End()); uint64(len(bundle.Entries)) != wanted {
			return nil, fmt.Errorf("the bundle from entry %d on has %d entries, not %d", tree.End(), len(bundle.Entries), wanted)
		}
		hashes := make([][]byte, 0, len(bundle.Entries))
		for _, entry := range bundle.Entries {
			leaf := hasher.HashLeaf(entry)
			if _, wanted := kept.leaves[tree.End()]; wanted {
				kept.leaves[tree.End()] = leaf
			}
			if err := tree.Append(leaf, nil); err != nil {
				return nil, err
			}
			if _, wanted := kept.roots[tree.End()]; wanted {
				root, err := tree.GetRootHash(nil)
				if err != nil {
					return nil, err
				}
				kept.roots[tree.End()] = root
			}
			hashes = append(hashes, leaf)
		}
		return hashes, nil
	}
	// Its workers stop at the first error each, and then nobody takes the rest: hence the wait of our own.
	done := make(chan error, 1)
	go func() { done <- fsck.New(verifier.Name(), verifier, log, hash, fsck.Opts{N: workers}).Check(ctx) }()
	select {
	case err := <-done:
		if tree.End() != size {
			return nil, short(errors.Join(fmt.Errorf("only %d of %d entries were read", tree.End(), size), err))
		}
		return kept, short(err)
	case <-ctx.Done():
		return nil, errors.New("not finished in time (--timeout)")
	}
}

// short keeps an error that quotes whole tiles to one line.
func short(err error) error {
	if err == nil {
		return nil
	}
	text := strings.Join(strings.Fields(err.Error()), " ")
	if len(text) > 160 {
		text = text[:160] + "…"
	}
	return errors.New(text)
}

// byTessera proves inclusion and consistency from the served tiles, against hashes computed from the entries.
func byTessera(ctx context.Context, f *client.HTTPFetcher, head *formats.Checkpoint, have *found, q questions, lines *report) {
	if have == nil {
		return
	}
	builder, err := client.NewProofBuilder(ctx, head.Size, f.ReadTile)
	for _, index := range q.indexes {
		if err != nil {
			break
		}
		var path [][]byte
		if path, err = builder.InclusionProof(ctx, index); err == nil {
			err = proof.VerifyInclusion(hasher, index, head.Size, have.leaves[index], path, head.Hash)
		}
		if err != nil {
			err = fmt.Errorf("entry %d: %w", index, err)
		}
	}
	lines.check("inclusion, Tessera", fmt.Sprintf("%d entries proven in the tree of %d", len(q.indexes), head.Size), short(err))
	err = nil
	for _, p := range q.pairs {
		if err = consistent(ctx, f, head.Size, p, have.roots[p.from], have.roots[p.to]); err != nil {
			break
		}
	}
	lines.check("consistency, Tessera", fmt.Sprintf("%d pairs of sizes proven", len(q.pairs)), short(err))
}

// consistent builds a consistency proof from the tiles of a tree of the given size, and checks it.
func consistent(ctx context.Context, f *client.HTTPFetcher, size uint64, p pair, from, to []byte) error {
	builder, err := client.NewProofBuilder(ctx, size, f.ReadTile)
	if err != nil {
		return err
	}
	path, err := builder.ConsistencyProof(ctx, p.from, p.to)
	if err == nil {
		err = proof.VerifyConsistency(hasher, p.from, p.to, path, from, to)
	}
	if err != nil {
		return fmt.Errorf("sizes %d and %d: %w", p.from, p.to, err)
	}
	return nil
}
