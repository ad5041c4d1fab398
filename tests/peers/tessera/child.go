package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
)

// child runs the load in a new process, behind the command that is given, and reads its outcome.
func (o one) child(behind ...string) (outcome, error) {
	self, err := os.Executable()
	if err != nil {
		return outcome{}, err
	}
	text, err := stdout(append(behind, self, "--one", o.mode, "--dir", o.dir,
		"--size", fmt.Sprint(o.size), "--callers", fmt.Sprint(o.load.callers), "--rate", fmt.Sprint(o.load.rate),
		"--seconds", fmt.Sprint(o.load.time.Seconds()), "--batch-size", fmt.Sprint(o.with.batchSize),
		"--batch-age", o.with.batchAge.String(), "--checkpoint-interval", o.with.interval.String(),
		"--poll", o.with.poll.String(), "--antispam", o.with.antispam))
	if err != nil {
		return outcome{}, fmt.Errorf("%d callers, %s: %w", o.load.callers, o.mode, err)
	}
	var result outcome
	if err := json.Unmarshal(text, &result); err != nil {
		return outcome{}, fmt.Errorf("%d callers, %s: unreadable outcome %q: %w", o.load.callers, o.mode, text, err)
	}
	return result, nil
}

// again runs this program in a new process.
func again(arguments ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	_, err = stdout(append([]string{self}, arguments...))
	return err
}

// stdout returns what a command prints; its complaints are shown only if it fails.
func stdout(arguments []string) ([]byte, error) {
	var complaints bytes.Buffer
	command := exec.Command(arguments[0], arguments[1:]...)
	command.Stderr = &complaints
	text, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, bytes.TrimSpace(complaints.Bytes()))
	}
	return text, nil
}
