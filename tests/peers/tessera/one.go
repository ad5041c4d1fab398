package main

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// sampled is how many answers of a run are proven afterwards.
const sampled = 256

// one is a single load against the log in a directory; each runs in a process of its own, so that none inherits the
// heap, the timers or the caches of another.
type one struct {
	dir  string
	mode string
	size int
	load load
	with settings
}

// measure runs the load, then proves a sample of what was answered.
func (o one) measure() (outcome, error) {
	log, err := openPeer(o.dir, o.with)
	if err != nil {
		return outcome{}, err
	}
	request := log.publish
	if o.mode == "sequenced" {
		request = log.sequence
	}
	next, answers := entries(o.size), new(sample)
	result, err := drive(o.load, func(number uint64) error {
		answer, err := request(next(number))
		if err == nil {
			answers.offer(number, answer)
		}
		return err
	})
	if closed := log.close(); err == nil && closed != nil {
		err = fmt.Errorf("the log did not close cleanly: %w", closed)
	}
	if err != nil {
		return outcome{}, err
	}
	for _, answer := range answers.kept {
		if answer == nil {
			continue
		}
		if err := log.prove(*answer); err != nil {
			return outcome{}, err
		}
	}
	return result, nil
}

// fill appends count entries as fast as the driver takes them, in large batches.
func fill(dir string, count, size int, antispam string) error {
	with := settings{batchSize: 8192, batchAge: 20 * time.Millisecond, interval: time.Second, poll: time.Second, antispam: antispam}
	log, err := openPeer(dir, with)
	if err != nil {
		return err
	}
	next := entries(size)
	var (
		number   atomic.Uint64
		fillers  sync.WaitGroup
		failures = make(chan error, 1)
	)
	for range min(count, 2*int(with.batchSize)) {
		fillers.Go(func() {
			for n := number.Add(1) - 1; n < uint64(count); n = number.Add(1) - 1 {
				if _, err := log.sequence(next(n)); err != nil {
					select {
					case failures <- err:
					default:
					}
					return
				}
			}
		})
	}
	fillers.Wait()
	if err := log.close(); err != nil {
		return fmt.Errorf("the log did not close cleanly: %w", err)
	}
	select {
	case err := <-failures:
		return fmt.Errorf("cannot fill the log: %w", err)
	default:
		return nil
	}
}

// entries makes entries of size bytes, different for every number and every process.
func entries(size int) func(number uint64) []byte {
	var salt [16]byte
	rand.Read(salt[:])
	prefix := hex.EncodeToString(salt[:])
	return func(number uint64) []byte {
		entry := fmt.Appendf(make([]byte, 0, size), "{\"bench\":\"%s-%d\",\"pad\":\"", prefix, number)
		for len(entry) < size-2 {
			entry = append(entry, 'x')
		}
		return append(entry, "\"}"...)
	}
}

// sample keeps the newest answers.
type sample struct {
	mu sync.Mutex
	// Owned by whoever holds mu.
	kept [sampled]*receipt
}

func (s *sample) offer(number uint64, answer receipt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept[number%sampled] = &answer
}
