package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"

	formats "github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/tessera/client"
	"golang.org/x/mod/sumdb/note"
)

// audit makes every check, each on its own line; it gives up early only without a checkpoint, or without entries to
// compare with.
func audit(ctx context.Context, s settings, verifier note.Verifier, w *wire, lines *report) error {
	fetcher, err := client.NewHTTPFetcher(w.root, w.client())
	if err != nil {
		return err
	}
	head, raw, _, err := client.FetchCheckpoint(ctx, fetcher.ReadCheckpoint, verifier, verifier.Name())
	if broken := w.broken.Load(); broken != nil {
		return fmt.Errorf("no answer from %s: %w", w.root, *broken)
	}
	if !lines.check("checkpoint", describe(head), err) {
		return nil
	}
	old, err := saved(s.from, verifier)
	if err != nil {
		return err
	}
	questions := ask(head.Size, old, s)
	found, err := rehash(ctx, pinned{fetcher, raw}, verifier, head.Size, questions)
	held := fmt.Sprintf("%d entries hashed again; every tile and the root follow from them", head.Size)
	lines.check("whole log, Tessera", held, err)
	if old != nil {
		lines.check("continues the saved checkpoint", describe(old), short(continues(ctx, fetcher, old, head)))
	}
	byTessera(ctx, fetcher, head, found, questions, lines)
	byTorchwood(ctx, w, verifier, raw, old, found, questions, lines)
	if s.duties {
		duties(ctx, w, head.Size, lines)
	}
	if s.save != "" && lines.failed == 0 {
		if err := os.WriteFile(s.save, raw, 0o644); err != nil {
			return fmt.Errorf("--save: %w", err)
		}
	}
	return nil
}

func describe(head *formats.Checkpoint) string {
	if head == nil {
		return ""
	}
	return fmt.Sprintf("%s, size %d, root %x", head.Origin, head.Size, head.Hash)
}

// saved reads the checkpoint of an earlier audit; nil if there is none to compare with.
func saved(path string, verifier note.Verifier) (*formats.Checkpoint, error) {
	if path == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--from: %w", err)
	}
	old, _, _, err := formats.ParseCheckpoint(raw, verifier.Name(), verifier)
	if err != nil {
		return nil, fmt.Errorf("--from %s is not a checkpoint that this key signed: %w", path, err)
	}
	return old, nil
}

// continues says whether the log of head begins with that of old.
func continues(ctx context.Context, f *client.HTTPFetcher, old, head *formats.Checkpoint) error {
	if old.Size > head.Size {
		return fmt.Errorf("the log shrank: it had %d entries, and has %d", old.Size, head.Size)
	}
	if old.Size == head.Size && !bytes.Equal(old.Hash, head.Hash) {
		return fmt.Errorf("two roots were signed for size %d: %x and %x", head.Size, old.Hash, head.Hash)
	}
	return consistent(ctx, f, head.Size, pair{old.Size, head.Size}, old.Hash, head.Hash)
}

// pinned serves the checkpoint that was verified, though the log may grow meanwhile.
type pinned struct {
	*client.HTTPFetcher
	raw []byte
}

func (p pinned) ReadCheckpoint(context.Context) ([]byte, error) { return p.raw, nil }

// pair is two sizes of the log, the smaller first.
type pair struct{ from, to uint64 }

// questions is what is to be proven.
type questions struct {
	indexes []uint64
	pairs   []pair
}

// ask chooses entries and pairs of sizes, each once: those at the edges of tiles, and random ones.
func ask(size uint64, old *formats.Checkpoint, s settings) questions {
	random := rand.New(rand.NewPCG(s.seed, size))
	indexes, pairs := map[uint64]bool{}, map[pair]bool{}
	index := func(i uint64) {
		if i < size {
			indexes[i] = true
		}
	}
	between := func(from, to uint64) {
		if 0 < from && from <= to && to <= size {
			pairs[pair{from, to}] = true
		}
	}
	whole := size / 256 * 256
	for _, i := range []uint64{0, 1, 255, 256, 65535, 65536, whole - 1, whole, size - 1} {
		index(i)
	}
	for _, p := range []pair{{1, size}, {255, 256}, {256, 257}, {65536, size}, {whole, size}, {size - 1, size}, {size, size}} {
		between(p.from, p.to)
	}
	if old != nil {
		between(old.Size, size)
	}
	for range s.inclusions {
		index(random.Uint64N(max(size, 1)))
	}
	for range s.pairs {
		a, b := random.Uint64N(size+1), random.Uint64N(size+1)
		between(min(a, b), max(a, b))
	}
	return questions{
		indexes: slices.Sorted(maps.Keys(indexes)),
		pairs:   slices.SortedFunc(maps.Keys(pairs), func(a, b pair) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to)) }),
	}
}
