package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/virt-launcher-net/virt-launcher-net/internal/cniconf"
	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/agent"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/check"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/domain"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// withHints is the error's text for who wrote the command line: the library knows
// no flags, and an error of it may be mended by one. errors.Join puts each error on
// a line of its own.
func withHints(err error, cmd *cobra.Command) string {
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	if hints := hintsFor(err, cmd); len(hints) > 0 {
		text += " (" + strings.Join(hints, "; ") + ")"
	}
	return text
}

// hintsFor names the flags that the way out of an error may be by, those that the
// command has.
func hintsFor(err error, cmd *cobra.Command) (hints []string) {
	hint := func(applies bool, flag, does string) {
		if applies && cmd.Flag(flag) != nil {
			hints = append(hints, "--"+flag+" "+does)
		}
	}
	refusedInTime := is[*control.RefusedError](err) && errors.Is(err, context.DeadlineExceeded) // the session's TimeoutError
	hint(is[*prestart.TimeoutError](err) || refusedInTime, "timeout", "waits longer")
	hint(is[*discover.NotFoundError](err) || is[*discover.IncompleteError](err) || is[*prepare.UnusableError](err), "interface", "names another interface")
	hint(is[*prestart.StartTimeoutError](err), "start-timeout", "waits longer")
	taken, isTaken := errors.AsType[*prepare.NameTakenError](err)
	if isTaken {
		hint(taken.For != "", taken.For+"-name", "chooses another name")
	}
	unusable := is[*statedir.UnusableError](err)
	if unusable && errors.Is(err, fs.ErrPermission) {
		hints = append(hints, "root may, and the user that prepared the pod")
	}
	hint(unusable, "state-dir", "names a writable state directory, in a pod one on an emptyDir volume")
	hint(isTaken || is[*prepare.UnrecordedError](err) || errors.Is(err, prestart.ErrNotPrepared) || errors.Is(err, control.ErrNobodyServes),
		"state-dir", "names another state directory")
	hint(errors.Is(err, prestart.ErrMachine), "netns", "names it")
	if errors.Is(err, fs.ErrPermission) && !unusable && os.Geteuid() != 0 {
		hints = append(hints, "this process is not root's: sudo may help")
	}
	if errors.Is(err, agent.ErrNoAgent) {
		hints = append(hints, "virt-launcher-net node starts one")
	}
	if errors.Is(err, domain.ErrNotRunning) {
		hints = append(hints, "virt-launcher-net serve serves a VM that something else runs")
	}
	if errors.Is(err, domain.ErrDisconnected) {
		hints = append(hints, "virt-launcher-net run, started again, takes it over")
	}
	if errors.Is(err, control.ErrNobodyServes) {
		hints = append(hints, "virt-launcher-net run or serve starts a server")
	}
	hint(errors.Is(err, agent.ErrNoAgent), "state-dir", "names another state directory")
	hint(errors.Is(err, cniconf.ErrNoDirectory), "cni-bin-dir", "and --cni-conf-dir name the runtime's")
	hint(errors.Is(err, cniconf.ErrPending), "cni-options", "and --chain have to be those of the installation")
	hint(errors.Is(err, cniconf.ErrNotChained), "watch", "waits until it can be")
	if errors.Is(err, prestart.ErrNoHotplug) {
		hints = append(hints, "run --hotplug keeps them")
	}
	hint(errors.Is(err, domain.ErrNotReleased), "timeout", "waits longer")
	// A VM that has the tap open keeps another from starting on it, too.
	hint(is[*prestart.CheckError](err) && !errors.Is(err, check.ErrTapInUse) && !errors.Is(err, context.Canceled), "no-check", "starts without this proof")
	hint(is[*domain.ConnectError](err), "connect", "names another libvirt")
	return hints
}

// is tells whether err is an E, or wraps one.
func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}
