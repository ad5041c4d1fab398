// Tessera's POSIX driver under the load of `countersign bench log`: the same callers, sizes and arrival times, on the
// same disk, so that the two tables can be read side by side.
//
// Two figures, since the two logs promise different things. "published" is what countersign answers with: the entry
// is durable, integrated and covered by a published checkpoint, so that its inclusion proof can be built (Tessera's
// PublicationAwaiter; building the proof is not charged, although countersign's answers contain it). "sequenced" is
// Tessera's own promise: the index is durable (its future has resolved), and a checkpoint follows later.
//
// Tessera gets its best: the shortest checkpoint interval that the driver allows, no garbage collection during a run,
// and before each load short trial runs that choose the batch age for it. Every load runs in a process of its own.
//
// Not a test of Tessera: its files are checked only as far as a sample of the answers is proven after each run.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Bounds of the runs that choose settings, and of those under strace, which only count.
const (
	trialTime = time.Second
	traceTime = 2 * time.Second
)

// figures is the file that is written.
type figures struct {
	Name    string `json:"name"`
	Machine string `json:"machine"`
	Runs    []row  `json:"runs"`
}

// row is one line of the table. Fsyncs is absent where they could not be counted.
type row struct {
	Label      string  `json:"label"`
	Throughput float64 `json:"throughput_per_s"`
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
	P999       float64 `json:"p999_ms"`
	Fsyncs     *int    `json:"fsyncs"`
	errors     int
}

type plan struct {
	dir, out string
	callers  []int
	sizes    []int
	modes    []string
	rate     float64
	half     bool
	prefill  int
	seconds  float64
	// ages are the batch ages to choose from; one: no trials.
	ages []time.Duration
	with settings
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	flags := flag.NewFlagSet("tessera", flag.ExitOnError)
	dir := flags.String("dir", "", "a directory for the log, on the disk to be measured; made if missing")
	out := flags.String("out", "", "write the figures to this file, as JSON")
	callers := flags.String("callers", "1,16,256,4096", "how many callers, separated by commas")
	sizes := flags.String("size", "512,1536", "bytes of an entry, separated by commas")
	modes := flags.String("mode", "published,sequenced", "what callers wait for, separated by commas")
	rate := flags.Float64("rate", 0, "requests a second, in an open loop; 0: a closed loop")
	half := flags.Bool("half", true, "after each closed loop, an open one at half of what it reached")
	seconds := flags.Float64("seconds", 5, "how long each load runs")
	prefill := flags.Int("prefill", 0, "entries in the log before the first load")
	size := flags.Uint("batch-size", 0, "Tessera's batch size; 0: the number of callers, at least 256, at most 4096")
	ages := flags.String("batch-age", "5ms,25ms,100ms", "Tessera's batch age, separated by commas; the best for each load is chosen")
	interval := flags.Duration("checkpoint-interval", 100*time.Millisecond, "100 ms is the least that the driver takes")
	poll := flags.Duration("poll", 5*time.Millisecond, "how often the awaiter reads the checkpoint")
	antispam := flags.String("antispam", "none", "deduplication: none, memory or badger")
	only := flags.Bool("fill", false, "make a log of --prefill entries, print its verifier key, and measure nothing")
	single := flags.String("one", "", "internal: run one load of this mode and print its outcome")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	quiet()
	if *dir == "" {
		return errors.New("say where with --dir DIR; it should be on the disk that is to be measured")
	}
	p := plan{dir: *dir, out: *out, modes: strings.Split(*modes, ","), rate: *rate, half: *half, prefill: *prefill, seconds: *seconds,
		with: settings{batchSize: *size, interval: *interval, poll: *poll, antispam: *antispam}}
	for _, text := range strings.Split(*ages, ",") {
		age, err := time.ParseDuration(text)
		if err != nil || age <= 0 {
			return fmt.Errorf("--batch-age takes times above 0 separated by commas, not %q", text)
		}
		p.ages = append(p.ages, age)
	}
	var err error
	if p.callers, err = numbers("--callers", *callers); err != nil {
		return err
	}
	if p.sizes, err = numbers("--size", *sizes); err != nil {
		return err
	}
	switch {
	case *single != "":
		result, err := p.single(*dir, *single, p.sizes[0], p.callers[0]).measure()
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(result)
	case *only:
		if err := fill(*dir, *prefill, p.sizes[0], *antispam); err != nil {
			return err
		}
		vkey, err := os.ReadFile(filepath.Join(*dir, "log.vkey"))
		fmt.Print(string(vkey))
		return err
	default:
		return p.run()
	}
}

func numbers(name, list string) ([]int, error) {
	var parsed []int
	for _, text := range strings.Split(list, ",") {
		number, err := strconv.Atoi(text)
		if err != nil || number < 1 {
			return nil, fmt.Errorf("%s takes numbers above 0 separated by commas, not %q", name, text)
		}
		parsed = append(parsed, number)
	}
	return parsed, nil
}

// single is one load, with the first batch age to choose from.
func (p plan) single(dir, mode string, size, callers int) one {
	with := p.with
	with.batchAge = p.ages[0]
	if with.batchSize == 0 {
		with.batchSize = uint(min(max(callers, 256), 4096))
	}
	time := time.Duration(p.seconds * float64(time.Second))
	return one{dir: dir, mode: mode, size: size, with: with, load: load{callers: callers, rate: p.rate, time: time}}
}

// run measures everything that was asked for, prints the table and writes the JSON.
func (p plan) run() error {
	fmt.Printf("Tessera's POSIX driver: checkpoint interval %v, awaiter poll %v, antispam %s; %d entries before the first load\n",
		p.with.interval, p.with.poll, p.with.antispam, p.prefill)
	fmt.Printf("%-46s %12s %10s %10s %10s %9s %7s\n", "log-peer", "per second", "p50 ms", "p99 ms", "p99.9 ms", "fsyncs", "errors")
	var rows []row
	for _, size := range p.sizes {
		dir := filepath.Join(p.dir, fmt.Sprint(size))
		if p.prefill > 0 {
			if err := again("--fill", "--dir", dir, "--prefill", fmt.Sprint(p.prefill), "--size", fmt.Sprint(size), "--antispam", p.with.antispam); err != nil {
				return err
			}
		}
		for _, mode := range p.modes {
			for _, callers := range p.callers {
				found, err := p.loads(p.single(dir, mode, size, callers))
				if err != nil {
					return err
				}
				rows = append(rows, found...)
			}
		}
	}
	if p.out == "" {
		return nil
	}
	text, err := json.MarshalIndent(figures{Name: "log-peer", Machine: machine(), Runs: rows}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(p.out, append(text, '\n'), 0o644); err != nil {
		return err
	}
	fmt.Printf("written to %s\n", p.out)
	return nil
}

// loads runs the closed loop and the open one at half of it, or the open one at the rate that was asked for.
func (p plan) loads(o one) ([]row, error) {
	first, err := p.load(o)
	if err != nil || !p.half || o.load.rate > 0 {
		return []row{first}, err
	}
	o.load.rate = first.Throughput / 2
	second, err := p.load(o)
	return []row{first, second}, err
}

func (p plan) load(o one) (row, error) {
	o, err := p.choose(o)
	if err != nil {
		return row{}, err
	}
	result, err := o.child()
	if err != nil {
		return row{}, err
	}
	counted, err := syncs(o, result)
	if err != nil {
		fmt.Fprintf(os.Stderr, "syncs of the next row could not be counted: %v\n", err)
	}
	kind := "closed loop"
	if o.load.rate > 0 {
		kind = fmt.Sprintf("open loop, %.0f/s", o.load.rate)
	}
	r := row{
		Label:      fmt.Sprintf("%d B, %d callers, %s, %s", o.size, o.load.callers, o.mode, kind),
		Throughput: result.Throughput, P50: result.P50, P99: result.P99, P999: result.P999, Fsyncs: counted, errors: result.Errors,
	}
	fsyncs := "unknown"
	if counted != nil {
		fsyncs = fmt.Sprint(*counted)
	}
	fmt.Printf("%-46s %12.0f %10.3f %10.3f %10.3f %9s %7d  batches of %d, %v\n",
		r.Label, r.Throughput, r.P50, r.P99, r.P999, fsyncs, r.errors, o.with.batchSize, o.with.batchAge)
	if r.errors > 0 {
		r.Label += fmt.Sprintf(", %d errors", r.errors)
	}
	return r, nil
}

// choose tries each batch age for a moment and takes the one that suits this load best.
func (p plan) choose(o one) (one, error) {
	if len(p.ages) == 1 {
		return o, nil
	}
	best, found := o, outcome{}
	for _, age := range p.ages {
		trial := o
		trial.with.batchAge, trial.load.time = age, min(o.load.time, trialTime)
		result, err := trial.child()
		if err != nil {
			return one{}, err
		}
		if found.Answered == 0 || better(result, found, o.load.rate) {
			best.with.batchAge, found = age, result
		}
	}
	return best, nil
}

// better says whether a beats b: by throughput in a closed loop and where either does not keep up with the rate, and
// else by its 99th percentile.
func better(a, b outcome, rate float64) bool {
	if rate > 0 && min(a.Throughput, b.Throughput) > rate*0.9 {
		return a.P99 < b.P99
	}
	return a.Throughput > b.Throughput
}
