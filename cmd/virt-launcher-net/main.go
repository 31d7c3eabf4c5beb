// Command virt-launcher-net gives a VM in a Kubernetes pod the pod's network.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	_ "github.com/virt-launcher-net/virt-launcher-net/internal/maxprocs" // but see honorProcessors
	"github.com/virt-launcher-net/virt-launcher-net/pkg/cniplugin"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// version is set when the program is built (-X main.version=…).
var version = "devel"

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	if os.Args[0] == prepare.TapMaker {
		os.Exit(prepare.MakeTap(os.Args[1:]))
	}
	honorProcessors()
	ctx, stop := signal.NotifyContext(context.Background(), endSignals()...)
	// A second signal ends the program at once, except where a verb wants
	// to hear of it.
	context.AfterFunc(ctx, stop)
	if os.Getenv(cniplugin.Command) != "" {
		os.Exit(cniplugin.Main(ctx))
	}
	os.Exit(execute(ctx, os.Args[1:], os.Stdin, os.Stdout, &logWriter{file: os.Stderr}))
}

// honorProcessors has the Go runtime use as many processors as the environment says, if
// that says a number.
func honorProcessors() {
	if n, err := strconv.Atoi(os.Getenv("GOMAXPROCS")); err == nil {
		runtime.GOMAXPROCS(n)
	}
}

// endSignals are those that ask the program to end. A terminal that closes is
// one, unless nohup(1) said to stay.
func endSignals() []os.Signal {
	signals := []os.Signal{unix.SIGINT, unix.SIGTERM}
	if !signal.Ignored(unix.SIGHUP) {
		signals = append(signals, unix.SIGHUP)
	}
	return signals
}

// execute runs one command line and returns its exit code.
func execute(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	cmd := newRoot(args) //nolint:contextcheck // the verbs get it from ExecuteContext
	cmd.SetArgs(args)
	cmd.SetIn(stdin)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	addStrict(cmd)
	executed, err := cmd.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	text := withHints(err, executed)
	if format := cmd.PersistentFlags().Lookup("log-format").Value.String(); format == "json" {
		slog.New(slog.NewJSONHandler(stderr, nil)).Error("failed", "error", text)
	} else {
		fmt.Fprintf(stderr, "virt-launcher-net: %s\n", printable([]byte(text)))
	}
	if usage := (usageError{}); errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailed
}

// usageError is a mistake in the command line.
type usageError struct{ cause error }

func (e usageError) Error() string { return e.cause.Error() + " (see --help)" }
func (e usageError) Unwrap() error { return e.cause }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}
