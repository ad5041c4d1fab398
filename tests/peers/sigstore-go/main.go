// Sigstore-go signs at a service and verifies what others signed there, from the files that the service hands out.
//
//	sigstore-go sign   --signing-config F --trusted-root F --bundle OUT (--file F | --statement F)
//	                   (--token-file F | --algorithm NAME --public-key OUT)
//	sigstore-go verify --trusted-root F --bundle F (--identity I --issuer U | --key PEM) (--file F | --subject FILE_OR_DIGEST)
//	sigstore-go time   --signing-config F --entries N     writes entries into the log, prints milliseconds, one a line
//
// Exit codes: 0 yes or done, 1 no or failed, with one line that says why; 64 wrong usage.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

const usageCode = 64

var errUsage = errors.New("wrong usage")

type options struct {
	signingConfig, trustedRoot, tokenFile, bundle   string
	file, statement, subject, identity, issuer, key string
	algorithm, publicKey                            string
	entries                                         int
}

func parse(arguments []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("sigstore-go", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	for name, value := range map[string]*string{
		"signing-config": &o.signingConfig, "trusted-root": &o.trustedRoot, "token-file": &o.tokenFile,
		"bundle": &o.bundle, "file": &o.file, "statement": &o.statement, "subject": &o.subject,
		"identity": &o.identity, "issuer": &o.issuer, "key": &o.key,
		"algorithm": &o.algorithm, "public-key": &o.publicKey,
	} {
		flags.StringVar(value, name, "", "")
	}
	flags.IntVar(&o.entries, "entries", 20, "")
	if err := flags.Parse(arguments); err != nil {
		return o, fmt.Errorf("%w: %w", errUsage, err)
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("%w: %q is no option", errUsage, flags.Arg(0))
	}
	return o, nil
}

func run(arguments []string) error {
	commands := map[string]func(options) error{"sign": signBundle, "verify": verifyBundle, "time": timeEntries}
	if len(arguments) == 0 || commands[arguments[0]] == nil {
		return fmt.Errorf("%w: sigstore-go sign|verify|time OPTION...", errUsage)
	}
	o, err := parse(arguments[1:])
	if err != nil {
		return err
	}
	return commands[arguments[0]](o)
}

func main() {
	err := run(os.Args[1:])
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, err)
	if errors.Is(err, errUsage) {
		os.Exit(usageCode)
	}
	os.Exit(1)
}
