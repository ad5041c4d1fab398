package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"k8s.io/klog/v2"
)

// machine describes this one in a line, as `countersign bench` does.
func machine() string {
	model, memory := "unknown processor", 0
	cpuinfo, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(cpuinfo)) {
		if name, value, found := strings.Cut(line, ": "); found && strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	meminfo, _ := os.ReadFile("/proc/meminfo")
	fmt.Sscanf(string(meminfo), "MemTotal: %d", &memory)
	return fmt.Sprintf("%d x %s, %d GiB, load generator on the same machine", runtime.NumCPU(), model, memory>>20)
}

// quiet leaves errors of the library on standard error, and nothing else.
func quiet() {
	flags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(flags)
	_ = flags.Set("logtostderr", "false")
	_ = flags.Set("stderrthreshold", "ERROR")
	klog.SetOutput(io.Discard)
}
