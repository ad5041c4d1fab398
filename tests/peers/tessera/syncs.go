package main

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// syncs counts what was asked of the disk while one load ran, from the kernel: the load runs again, shorter, under
// strace, and the count is scaled to the entries of the timed run, which is not traced. The driver syncs directories
// with fsync and files by writing them once with O_SYNC; both are counted.
func syncs(o one, timed outcome) (*int, error) {
	if _, err := exec.LookPath("strace"); err != nil {
		return nil, errors.New("strace is not installed")
	}
	trace := filepath.Join(o.dir, "trace")
	defer os.Remove(trace)
	o.load.time = min(o.load.time, traceTime)
	traced, err := o.child("strace", "-f", "--seccomp-bpf", "-qq", "-e", "signal=none",
		"-e", "trace=open,openat,fsync,fdatasync,sync_file_range,syncfs,msync", "-o", trace)
	if err != nil {
		return nil, err
	}
	file, err := os.Open(trace)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	counted, err := countSyncs(file)
	if err != nil {
		return nil, err
	}
	scaled := counted * timed.Answered / max(traced.Answered, 1)
	return &scaled, nil
}

// countSyncs counts the sync calls in strace's output. A call that another thread interrupts is printed in two lines,
// of which the second ("<... fsync resumed>") does not count.
func countSyncs(trace io.Reader) (int, error) {
	count := 0
	lines := bufio.NewScanner(trace)
	for lines.Scan() {
		_, call, _ := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		name, arguments, _ := strings.Cut(strings.TrimSpace(call), "(")
		switch name {
		case "fsync", "fdatasync", "sync_file_range", "syncfs", "msync":
			count++
		case "open", "openat":
			if strings.Contains(arguments, "O_SYNC") || strings.Contains(arguments, "O_DSYNC") {
				count++
			}
		}
	}
	return count, lines.Err()
}
