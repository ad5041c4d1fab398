package main

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A stall is charged to every request that was due meanwhile, not only to the one that met it.
func TestAnOpenLoopChargesAStallToWhatItDelayed(t *testing.T) {
	l := load{callers: 1, rate: 200, time: time.Second}
	result, err := drive(l, func(number uint64) error {
		if number == 20 {
			time.Sleep(400 * time.Millisecond)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if result.P99 < 200 {
		t.Errorf("the 99th percentile is %v ms although 80 of 200 requests were delayed by up to 400 ms", result.P99)
	}
}

func TestACloseLoopHasNoMoreRequestsUnderWayThanCallers(t *testing.T) {
	var now, most atomic.Int64
	result, err := drive(load{callers: 8, time: 200 * time.Millisecond}, func(uint64) error {
		most.Store(max(most.Load(), now.Add(1)))
		time.Sleep(time.Millisecond)
		now.Add(-1)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if most.Load() > 8 || result.Answered < 200 {
		t.Errorf("%d under way at once, %d answered", most.Load(), result.Answered)
	}
}

func TestWhatWasPublishedIsProvenAndNothingElse(t *testing.T) {
	with := settings{batchSize: 256, batchAge: time.Millisecond, interval: 100 * time.Millisecond, poll: time.Millisecond, antispam: "none"}
	log, err := openPeer(t.TempDir(), with)
	if err != nil {
		t.Fatal(err)
	}
	next := entries(512)
	first, err := log.publish(next(1))
	if err != nil {
		t.Fatal(err)
	}
	second, err := log.sequence(next(2))
	if err != nil {
		t.Fatal(err)
	}
	if err := log.prove(first); err != nil {
		t.Errorf("published, but: %v", err)
	}
	if err := log.close(); err != nil {
		t.Fatal(err)
	}
	if err := log.prove(second); err != nil {
		t.Errorf("sequenced, and the log closed, but: %v", err)
	}
	if len(first.entry) != 512 || string(first.entry) == string(next(2)) {
		t.Errorf("entries are not 512 different bytes: %q", first.entry)
	}
	other := first
	other.entry = next(3)
	if log.prove(other) == nil {
		t.Error("an entry that is not in the log was proven")
	}
	moved := second
	moved.index = first.index
	if log.prove(moved) == nil {
		t.Error("an entry was proven at an index that is not its own")
	}
}

func TestSyncsAreCountedOnce(t *testing.T) {
	trace := `101   openat(AT_FDCWD, "log/tile/0/000.p/7", O_WRONLY|O_CREAT|O_EXCL|O_SYNC|O_CLOEXEC, 0644) = 7
101   openat(AT_FDCWD, "log/tile/0", O_RDONLY|O_CLOEXEC) = 8
101   fsync(8 <unfinished ...>
102   fdatasync(9)              = 0
101   <... fsync resumed>)      = 0
103   openat(AT_FDCWD, "fsync(O_RDONLY", O_RDONLY) = -1 ENOENT (No such file or directory)
104   +++ exited with 0 +++
`
	if count, err := countSyncs(strings.NewReader(trace)); err != nil || count != 3 {
		t.Errorf("counted %d syncs (%v), of which there are 3", count, err)
	}
}

func TestTheBestSettingIsTheOneThatKeepsUpWithLeastDelay(t *testing.T) {
	slow, fast := outcome{Throughput: 500, P99: 10}, outcome{Throughput: 990, P99: 90}
	steady := outcome{Throughput: 980, P99: 20}
	if !better(fast, slow, 0) || better(slow, fast, 1000) || !better(steady, fast, 1000) || better(fast, steady, 1000) {
		t.Error("a setting that does not keep up, or a slower one, was preferred")
	}
}
