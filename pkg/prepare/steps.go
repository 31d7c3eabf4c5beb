package prepare

import (
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

// steps are changes by when they are done. Those of several plans are done step
// by step, and undone the same way: a route may need the addresses of two
// interfaces, and a gateway's own route must be there before one by it
// (fib_check_nh, net/ipv4/fib_semantics.c).
type steps [endStep + 1][]op

const (
	makeStep    = iota // what is made beside the pod's interface
	viaGoes            // neighbours, and routes by a gateway
	onLinkGoes         // routes on the link
	linkStep           // links and their addresses
	onLinkComes        // routes on the link
	viaComes           // routes by a gateway
	endStep            // neighbours, and what is deleted beside the pod's interface
)

// goes adds the change that takes a route away; what was added last goes first.
func (st *steps) goes(r discover.Route, o op) {
	step := onLinkGoes
	if r.Gateway.IsValid() {
		step = viaGoes
	}
	st[step] = slices.Insert(st[step], 0, o)
}

// comes adds the change that puts a route there.
func (st *steps) comes(r discover.Route, o ...op) {
	step := onLinkComes
	if r.Gateway.IsValid() {
		step = viaComes
	}
	st[step] = append(st[step], o...)
}

// and adds another's changes behind those of the same step.
func (st *steps) and(other steps) {
	for i := range st {
		st[i] = append(st[i], other[i]...)
	}
}

func (st *steps) ops() []op { return slices.Concat(st[:]...) }
