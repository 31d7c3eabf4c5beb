package engine

import (
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

// Steps are changes by when they are done. Those of several interfaces are done
// step by step, and undone the same way: the routes of one may lead by the network
// of another, and a gateway's own route must be there before one by it (fib_check_nh,
// net/ipv4/fib_semantics.c).
type Steps [End + 1][]Op

// The steps, in their order.
const (
	Make       = iota // what is made beside the pod's interface
	DropVia           // neighbors, and routes by a gateway, are deleted
	DropOnLink        // routes on the link are deleted
	Links             // links and their addresses
	AddOnLink         // routes on the link are added
	AddVia            // routes by a gateway are added
	End               // neighbors, and what is deleted beside the pod's interface
)

// Drop adds the change that takes a route away; what was added last goes first.
func (st *Steps) Drop(r discover.Route, o Op) {
	step := DropOnLink
	if r.Gateway.IsValid() {
		step = DropVia
	}
	st[step] = slices.Insert(st[step], 0, o)
}

// Add adds the change that puts a route there.
func (st *Steps) Add(r discover.Route, o Op) {
	step := AddOnLink
	if r.Gateway.IsValid() {
		step = AddVia
	}
	st[step] = append(st[step], o)
}

// Append adds another's changes behind those of the same step.
func (st *Steps) Append(other Steps) {
	for i := range st {
		st[i] = append(st[i], other[i]...)
	}
}

// Ops are all changes in their order.
func (st *Steps) Ops() []Op { return slices.Concat(st[:]...) }
