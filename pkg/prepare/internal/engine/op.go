// Package engine changes a pod's network namespace, all or nothing. A change is a
// value; what is to be done is computed from what the kernel has now, so that it
// can be done again, in part, or backwards. A [Datapath] says which changes.
//
// It acts on the network namespace of the calling thread.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// Op is one change of a network namespace. It is data.
type Op interface {
	// String is the change in the words of ip(8), nft(8), sysctl(8) or their like, a
	// command a line; a comment where these have none.
	fmt.Stringer
	Do(*Kernel) error
	// Inverse is the change that undoes it; nil: it stays.
	Inverse() Op
}

// Supporter is an Op that may find out beforehand, changing nothing, that the kernel
// or the container lacks what it takes.
type Supporter interface{ Supported(*Kernel) error }

// ForAlias is an Op that gives the tap what one of the pod's aliases takes: it can be done
// while a VM runs, which loses nothing by it.
type ForAlias struct{ Op }

// Kernel is what ops act on: the network namespace of the thread that opened it.
type Kernel struct {
	Conn   *nl.Conn
	log    *slog.Logger
	tables *nft.Deleter // nil until a table is deleted
}

// Open opens the network namespace of the calling thread. Close it.
func Open(log *slog.Logger) (*Kernel, error) {
	conn, err := nl.Open()
	if err != nil {
		return nil, err
	}
	return &Kernel{Conn: conn, log: log}, nil
}

// Close closes its sockets.
func (k *Kernel) Close() {
	k.Conn.Close()
	if k.tables != nil {
		k.tables.Close()
	}
}

// Execute does ops in order. If one fails or ctx ends, it undoes those that are
// done, last first, so that the namespace is as before.
func (k *Kernel) Execute(ctx context.Context, ops []Op) error {
	for i, o := range ops {
		err := context.Cause(ctx)
		if err == nil {
			k.log.Debug("change", "do", words{o})
			err = o.Do(k)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("%s: %w", Headline(o), Explain(err)), k.Undo(ops[:i]))
		}
	}
	return nil
}

// words are an op's text for the log, which is made if somebody wants it: that of a
// table is long.
type words struct{ Op }

func (w words) LogValue() slog.Value { return slog.StringValue(w.String()) }

// Undo undoes ops that are done, last first.
func (k *Kernel) Undo(ops []Op) error {
	var errs []error
	for _, done := range slices.Backward(ops) {
		undo := done.Inverse()
		if undo == nil {
			continue
		}
		k.log.Debug("undo", "do", words{undo})
		if err := undo.Do(k); err != nil {
			errs = append(errs, fmt.Errorf("undo: %s: %w", Headline(undo), err))
		}
	}
	return errors.Join(errs...)
}

// Supported finds out whether the kernel and the container have what ops need. Tables
// are asked for only if tables is set: that takes some milliseconds.
func (k *Kernel) Supported(ops []Op, tables bool) error {
	for _, o := range ops {
		s, ok := o.(Supporter)
		if _, isTable := o.(AddTables); !ok || isTable && !tables {
			continue
		}
		if err := s.Supported(k); err != nil {
			return fmt.Errorf("%s: %w", Headline(o), err)
		}
	}
	return nil
}

// Headline is an op's first line.
func Headline(o Op) string {
	first, _, _ := strings.Cut(o.String(), "\n")
	return first
}

// Advised is an error that says the way out itself.
type Advised struct{ error }

// Advise is err, which says the way out itself.
func Advise(err error) error { return Advised{err} }

// Unwrap returns the error.
func (a Advised) Unwrap() error { return a.error }

// Explain adds the way out to what the kernel says.
func Explain(err error) error {
	if _, ok := errors.AsType[Advised](err); ok {
		return err
	}
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: this needs the capability NET_ADMIN in the pod's network namespace "+
			"(securityContext.capabilities.add: [NET_ADMIN])", err)
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT):
		return fmt.Errorf("%w: the node's kernel does not support this", err)
	}
	return err
}

// Ignore turns errors that mean that nothing is left to do into success.
func Ignore(err error, done ...error) error {
	for _, d := range done {
		if errors.Is(err, d) {
			return nil
		}
	}
	return err
}

// Sequence is several changes as one.
type Sequence []Op

func (s Sequence) String() string {
	lines := make([]string, len(s))
	for i, o := range s {
		lines[i] = o.String()
	}
	return strings.Join(lines, "\n")
}

// Do does all of them or none.
func (s Sequence) Do(k *Kernel) error { return k.Execute(context.Background(), s) }

// Inverse undoes them, last first.
func (s Sequence) Inverse() Op {
	var inv Sequence
	for _, o := range slices.Backward(s) {
		if undo := o.Inverse(); undo != nil {
			inv = append(inv, undo)
		}
	}
	return inv
}
