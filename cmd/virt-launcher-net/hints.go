package main

import (
	"errors"
	"strings"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/domain"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// withHints is the error's text for who wrote the command line: the library knows
// no flags, and an error of it may be mended by one. errors.Join puts each error on
// a line of its own.
func withHints(err error) string {
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	if hints := hintsFor(err); len(hints) > 0 {
		text += " (" + strings.Join(hints, "; ") + ")"
	}
	return text
}

// hintsFor names the flags that the way out of an error may be by.
func hintsFor(err error) (hints []string) {
	var (
		timeout    *prestart.TimeoutError
		missing    *discover.NotFoundError
		without    *discover.IncompleteError
		unusable   *prepare.UnusableError
		taken      *prepare.NameTakenError
		unrecorded *prepare.UnrecordedError
		check      *prestart.CheckError
		connect    *domain.ConnectError
	)
	if errors.As(err, &timeout) {
		hints = append(hints, "--timeout waits longer")
	}
	if errors.As(err, &missing) || errors.As(err, &without) || errors.As(err, &unusable) {
		hints = append(hints, "--interface names another interface")
	}
	if errors.As(err, &taken) && taken.For != "" {
		hints = append(hints, "--"+taken.For+"-name chooses another name")
	}
	if errors.As(err, &unrecorded) || errors.As(err, &taken) || errors.Is(err, prestart.ErrNotPrepared) || errors.Is(err, control.ErrNobodyServes) {
		hints = append(hints, "--state-dir names another state directory")
	}
	if errors.As(err, &check) {
		hints = append(hints, "--no-check starts without this proof")
	}
	if errors.As(err, &connect) {
		hints = append(hints, "--connect names another libvirt")
	}
	return hints
}
