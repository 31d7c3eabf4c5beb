package clients

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest/launchtest"
)

// lease is a pod, and what a guest should make of it.
type lease struct {
	name  string
	title string
	six   bool // the guest is to have IPv6, whatever it has of IPv4
	shape podtest.Shape
	node  []string // ip(8) lines that change what the CNI left on the node
	pod   []string // and in the pod
	args  []string // of run
	given state
	renew bool // wait for that
}

const (
	flannelGateway = "10.244.1.1"
	resolvConf4    = "search default.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\nnameserver 10.96.0.11\n"
)

// given is what resolvConf4 and the command line say, and an MTU of 1450.
func given(address string, routes ...string) state {
	return state{
		Address: address, Routes: routes, MTU: 1450,
		DNS:      []string{"10.96.0.10", "10.96.0.11"},
		Search:   []string{"default.svc.cluster.local", "svc.cluster.local", "cluster.local"},
		Hostname: "vm-7",
	}
}

func leases() []lease {
	flannel := given("10.244.1.7/24", "10.244.0.0/16 via "+flannelGateway, "default via "+flannelGateway)
	many := flannel.with(func(*state) {})
	var lines []string
	for i := range 40 {
		r := fmt.Sprintf("172.20.%d.0/24 via %s", 100+i, flannelGateway)
		many.Routes = append(many.Routes[:i+1], r, many.Routes[len(many.Routes)-1])
		lines = append(lines, "route add "+r)
	}
	noGateway := []string{"route del default", "route del 10.244.0.0/16"}
	finite := []string{"--lease-time", "16s"}
	return []lease{
		{
			name: "flannel", title: "flannel: a connected network, a wider route, infinite",
			shape: podtest.Flannel, given: flannel,
		},
		{
			name: "calico", title: "Calico: an address alone, a gateway on the link that is in no network, infinite",
			shape: podtest.Calico, given: given("192.168.79.5/32", "169.254.1.1", "default via 169.254.1.1"),
		},
		{
			name: "many-routes", title: "many routes: 42, which is an option of 332 bytes",
			shape: podtest.Flannel, pod: lines, given: many,
		},
		{
			name: "no-gateway", title: "no gateway: a connected network alone",
			shape: podtest.Flannel, pod: noGateway, given: given("10.244.1.7/24", "169.254.0.1"),
		},
		{
			name: "pair", title: "/31: two addresses, of which the gateway has the odd one, infinite",
			shape: podtest.Flannel, node: []string{"addr flush dev cni0", "addr add 10.244.1.9/31 dev cni0"},
			pod: []string{
				"addr flush dev eth0", "addr add 10.244.1.8/31 dev eth0", "route add default via 10.244.1.9 dev eth0",
			},
			given: given("10.244.1.8/32", "10.244.1.9", "default via 10.244.1.9"),
		},
		{
			name: "pair-alone", title: "/31 without a gateway, renewed",
			shape: podtest.Flannel, node: []string{"addr flush dev cni0", "addr add 10.244.1.9/31 dev cni0"},
			pod:  []string{"addr flush dev eth0", "addr add 10.244.1.8/31 dev eth0"},
			args: finite, given: given("10.244.1.8/32", "10.244.1.9", "169.254.0.1"), renew: true,
		},
		{
			name: "first", title: "the first address of a network: 10.244.1.0/30, the gateway on the link",
			shape: podtest.Flannel, node: []string{"addr flush dev cni0", "addr add 10.244.1.2/30 dev cni0"},
			pod: []string{
				"addr flush dev eth0", "addr add 10.244.1.0/30 dev eth0", "route add default via 10.244.1.2 dev eth0",
			},
			given: given("10.244.1.0/32", "10.244.1.0/30", "10.244.1.2", "default via 10.244.1.2"),
		},
		{
			name: "end", title: "a gateway that has the first address of its network, 10.244.1.0/29",
			shape: podtest.Flannel, node: []string{"addr flush dev cni0", "addr add 10.244.1.0/29 dev cni0"},
			pod: []string{
				"addr flush dev eth0", "addr add 10.244.1.6/29 dev eth0", "route add default via 10.244.1.0 dev eth0",
			},
			given: given("10.244.1.6/32", "10.244.1.0", "10.244.1.0/29", "default via 10.244.1.0"),
		},
		{
			name: "finite", title: "finite: flannel's for sixteen seconds, renewed",
			shape: podtest.Flannel, args: finite, given: flannel, renew: true,
		},
		{
			name: "no-gateway-finite", title: "finite without a gateway, renewed: the kernel answers for the server identifier",
			shape: podtest.Flannel, pod: noGateway, args: finite, given: given("10.244.1.7/24", "169.254.0.1"), renew: true,
		},
		{
			name: "rebound", title: "finite with a gateway that is away: nobody is at the server identifier, so that all are asked",
			shape: podtest.Flannel, node: []string{"addr del " + flannelGateway + "/24 dev cni0"},
			// All are asked after seven eighths. What is left then is for a busy machine: once the
			// kernel has removed the address, dhclient adds it again without its routes.
			args: []string{"--lease-time", "48s"}, given: flannel, renew: true,
		},
	}
}

// everyLease is all leases.
func everyLease() []lease { return append(leases(), leases6()...) }

// seat is where a guest gets a lease: at the tap of a pod that is served.
type seat struct {
	lease
	pod     *podtest.Pod
	program *launchtest.Program
	alias   string // to which the guest gets a route; empty: none
}

// serve runs the program in a pod as the lease has it until the test's end, and
// returns once the program listens.
func (l lease) serve(t *testing.T) *seat {
	t.Helper()
	pod := podtest.NewPod(t, l.shape)
	pod.Node.IP(t, l.node...)
	pod.IP(t, l.pod...)
	resolv, text := filepath.Join(t.TempDir(), "resolv.conf"), resolvConf4
	if l.six {
		text = resolvConf6
	}
	if err := os.WriteFile(resolv, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	program := launchtest.NewProgram(t, pod)
	program.Serve(t, append([]string{"--no-check", "--resolv-conf", resolv, "--hostname", "vm-7"}, l.args...)...)
	// The node checks its link-local address anew: its link was down.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := podtest.WaitSettled(ctx, pod.Node); err != nil {
		t.Fatal(err)
	}
	at := &seat{lease: l, pod: pod, program: program}
	at.expectAlias(t)
	return at
}

// expectAlias has the guest expect a route to the address that the pod has for it, if
// the datapath gives one and no gateway leads there.
func (at *seat) expectAlias(t *testing.T) {
	t.Helper()
	var said struct{ Aliases []struct{ Pod netip.Addr } }
	at.program.Status(t, &said)
	hasDefault := slices.ContainsFunc(at.given.Routes, func(r string) bool { return strings.HasPrefix(r, toDefault) })
	for _, a := range said.Aliases {
		if a.Pod.Is6() == at.six && !hasDefault {
			at.alias = a.Pod.String()
			at.given = at.given.with(func(s *state) {
				s.Routes = append(s.Routes, at.alias)
				slices.Sort(s.Routes)
			})
		}
	}
}

// withoutAlias is a state without the route to that address, of which the
// documentation tells once for all clients.
func (at *seat) withoutAlias(s state) state {
	return s.with(func(s *state) {
		s.Routes = slices.DeleteFunc(s.Routes, func(r string) bool { return at.alias != "" && strings.HasPrefix(r+" ", at.alias+" ") })
	})
}
