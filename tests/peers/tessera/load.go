package main

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// load says how hard to push.
type load struct {
	callers int
	// rate is requests a second; 0: as fast as the callers go.
	rate float64
	time time.Duration
}

// outcome is what one load came to.
type outcome struct {
	// Answered counts requests that were answered; Errors those that failed.
	Answered   int     `json:"answered"`
	Errors     int     `json:"errors"`
	Throughput float64 `json:"throughput_per_s"`
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
	P999       float64 `json:"p999_ms"`
}

// drive runs one load; call(n) makes the n-th request and returns when it was answered.
//
// The same loop as `countersign bench`: callers take numbers, number n is due at n/rate whether or not earlier ones
// were answered, and its latency counts from then, so that a stall is charged to every request that it delayed.
func drive(l load, call func(number uint64) error) (outcome, error) {
	var (
		next, errors atomic.Uint64
		firstError   atomic.Pointer[error]
		callers      sync.WaitGroup
	)
	latencies := make([][]time.Duration, l.callers)
	started := time.Now()
	for caller := range l.callers {
		callers.Go(func() {
			for time.Since(started) < l.time {
				number, due := next.Add(1)-1, time.Now()
				if l.rate > 0 {
					due = started.Add(time.Duration(float64(number) / l.rate * float64(time.Second)))
				}
				if due.Sub(started) > l.time {
					return
				}
				time.Sleep(time.Until(due))
				if err := call(number); err != nil {
					errors.Add(1)
					firstError.CompareAndSwap(nil, &err)
					continue
				}
				latencies[caller] = append(latencies[caller], time.Since(due))
			}
		})
	}
	callers.Wait()
	elapsed := time.Since(started)
	all := slices.Concat(latencies...)
	if len(all) == 0 {
		if err := firstError.Load(); err != nil {
			return outcome{}, fmt.Errorf("no request succeeded: %w", *err)
		}
		return outcome{}, fmt.Errorf("no request was due within %v; raise --rate or --seconds", l.time)
	}
	slices.Sort(all)
	return outcome{
		Answered:   len(all),
		Errors:     int(errors.Load()),
		Throughput: round(float64(len(all)) / elapsed.Seconds()),
		P50:        percentile(all, 500),
		P99:        percentile(all, 990),
		P999:       percentile(all, 999),
	}, nil
}

// percentile returns milliseconds.
func percentile(sorted []time.Duration, perMille int) float64 {
	at := min(len(sorted)*perMille/1000, len(sorted)-1)
	return round(sorted[at].Seconds() * 1000)
}

func round(value float64) float64 { return math.Round(value*1000) / 1000 }
