// An auditor that shares no code with the log it looks at: it fetches a C2SP tlog-tiles log over HTTP and checks it
// with two sets of libraries that others wrote, Tessera's (client, fsck, transparency-dev/merkle, formats) and Go's own
// (filippo.io/torchwood over golang.org/x/mod/sumdb). What is here is plumbing: flags, transport, which proofs to ask for.
//
//	auditor --url https://localhost:8443 --ca tls-ca.pem --vkey "$(cat log.vkey)" [--from older.checkpoint]
//
// Checked: the checkpoint's signature; every entry hashed again, every tile of every level and the root computed from
// those hashes; inclusion of a sample of entries; consistency of a sample of pairs of sizes, whose roots were computed
// from the entries; consistency with a checkpoint that an earlier run saved. Not checked: what the entries mean, and
// whether others were shown the same checkpoint.
//
// Exit codes: 0 all held, 1 something did not, 2 could not tell, 64 wrong usage.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// workers is how many requests are under way at once.
const workers = 16

var errUsage = errors.New("wrong usage")

type settings struct {
	url, connect, ca, vkey, from, save, flip string
	inclusions, pairs                        int
	seed                                     uint64
	duties                                   bool
	timeout                                  time.Duration
}

func main() {
	failed, err := run(os.Args[1:], os.Stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(64)
	case err != nil:
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(2)
	case failed > 0:
		os.Exit(1)
	}
}

func parse(arguments []string) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("auditor", flag.ContinueOnError)
	flags.StringVar(&s.url, "url", "", "where the log is served; /checkpoint and /tile/… are below it")
	flags.StringVar(&s.ca, "ca", "", "a PEM file with the authorities to trust for TLS; the system's unless given")
	flags.StringVar(&s.connect, "connect", "", "HOST:PORT to connect to instead of what the URL says")
	flags.StringVar(&s.vkey, "vkey", "", "the log's verifier key, name+id+key")
	flags.StringVar(&s.from, "from", "", "a checkpoint that was saved earlier: the log must be a continuation of it")
	flags.StringVar(&s.save, "save", "", "save the checkpoint to this file if everything held")
	flags.IntVar(&s.inclusions, "inclusions", 256, "how many random entries to prove, besides those at edges")
	flags.IntVar(&s.pairs, "pairs", 64, "how many random pairs of sizes to prove, besides those at edges")
	flags.Uint64Var(&s.seed, "seed", rand.Uint64(), "chooses the random entries and pairs")
	flags.BoolVar(&s.duties, "duties", false, "also check content types, cache headers and refusals, as C2SP asks of servers")
	flags.StringVar(&s.flip, "flip", "", "PATH[@OFFSET]: flip a bit in what is served at PATH, to see that it is noticed")
	flags.DurationVar(&s.timeout, "timeout", 5*time.Minute, "how long all of it may take")
	if err := flags.Parse(arguments); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return s, err
		}
		return s, fmt.Errorf("%w: %w", errUsage, err)
	}
	if s.url == "" || s.vkey == "" || flags.NArg() > 0 {
		return s, fmt.Errorf("%w: --url and --vkey are needed, and nothing but flags is read", errUsage)
	}
	return s, nil
}

// run audits and returns how many checks failed. An error means that there is no verdict.
func run(arguments []string, out io.Writer) (int, error) {
	s, err := parse(arguments)
	if err != nil {
		return 0, err
	}
	verifier, err := note.NewVerifier(s.vkey)
	if err != nil {
		return 0, fmt.Errorf("%w: --vkey %q: %w", errUsage, s.vkey, err)
	}
	wire, err := newWire(s.url, s.ca, s.flip)
	if err != nil {
		return 0, err
	}
	if s.connect != "" {
		wire.connect(s.connect)
	}
	quiet()
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	started := time.Now()
	lines := &report{out: out, last: started}
	if err := audit(ctx, s, verifier, wire, lines); err != nil {
		return 0, err
	}
	if wire.flip != nil && wire.flip.count.Load() == 0 {
		return 0, fmt.Errorf("nothing was flipped: %s was not served, or has fewer bytes", s.flip)
	}
	fmt.Fprintf(out, "      %d requests, %.1f MB, %.1f s, seed %d\n",
		wire.requests.Load(), float64(wire.bytes.Load())/1e6, time.Since(started).Seconds(), s.seed)
	if lines.failed > 0 {
		fmt.Fprintf(out, "verdict: NOT GOOD, %d of %d checks failed\n", lines.failed, lines.count)
	} else {
		fmt.Fprintf(out, "verdict: good, all %d checks held\n", lines.count)
	}
	return lines.failed, nil
}

// report prints one line for each check.
type report struct {
	out           io.Writer
	count, failed int
	last          time.Time
}

// check says how one check came out, and whether it held.
func (r *report) check(name, held string, err error) bool {
	r.count++
	took := time.Since(r.last).Seconds()
	r.last = time.Now()
	if err != nil {
		r.failed++
		fmt.Fprintf(r.out, "FAIL  %-30s %6.2f s  %v\n", name, took, err)
		return false
	}
	fmt.Fprintf(r.out, "ok    %-30s %6.2f s  %s\n", name, took, held)
	return true
}
