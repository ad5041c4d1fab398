package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/transparency-dev/tessera/api/layout"
)

// duties checks what c2sp.org/tlog-tiles asks of whoever serves a log, beyond the bytes. The log must not grow
// meanwhile.
func duties(ctx context.Context, w *wire, size uint64, lines *report) {
	get := func(path string) (*http.Response, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, w.root.JoinPath(path).String(), nil)
		if err != nil {
			return nil, err
		}
		return w.client().Do(request)
	}
	served := func(path, kind, cache string) error {
		answer, err := get(path)
		if err != nil {
			return err
		}
		if answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Type") != kind {
			return fmt.Errorf("%s: status %d, content type %q; it should be 200 and %q", path, answer.StatusCode, answer.Header.Get("Content-Type"), kind)
		}
		control := answer.Header.Get("Cache-Control")
		if cached := strings.Contains(control, "immutable"); cached != (cache == "immutable") || (!cached && control == "") {
			return fmt.Errorf("%s: cache control %q; it should be %s", path, control, cache)
		}
		return nil
	}
	refused := func(path string) error {
		answer, err := get(path)
		if err != nil {
			return err
		}
		if answer.StatusCode != http.StatusNotFound {
			return fmt.Errorf("%s: status %d for what the log does not have; it should be 404", path, answer.StatusCode)
		}
		return nil
	}
	first := func(errs ...error) error {
		for _, err := range errs {
			if err != nil {
				return err
			}
		}
		return nil
	}
	const octets = "application/octet-stream"
	partial := uint8(size % layout.TileWidth)
	lines.check("content types and caching", "checkpoint short-lived, tiles and bundles immutable", first(
		served(layout.CheckpointPath, "text/plain; charset=utf-8", "short"),
		served(layout.TilePath(0, 0, uint8(min(size, layout.TileWidth)%layout.TileWidth)), octets, "immutable"),
		served(layout.EntriesPath(0, uint8(min(size, layout.TileWidth)%layout.TileWidth)), octets, "immutable")))
	beyond := []error{
		refused(layout.TilePath(0, size/layout.TileWidth+1, 0)),
		refused(layout.EntriesPath(size/layout.TileWidth+1, 0)),
		refused(layout.TilePath(9, 0, 1)),
		refused("tile/0/1"),
		refused("tile/0/000.p/256"),
	}
	if partial < 255 {
		beyond = append(beyond, refused(layout.TilePath(0, size/layout.TileWidth, partial+1)),
			refused(layout.EntriesPath(size/layout.TileWidth, partial+1)))
	}
	lines.check("nothing past the checkpoint", fmt.Sprintf("%d paths answered with 404", len(beyond)), first(beyond...))
}
