package nft

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// What a kernel does not know of a table is named, and nothing is made; a link that is
// missing is not taken for it.
func TestLacking(t *testing.T) {
	t.Parallel()
	ns := podtest.New(t)
	ns.IP(t, "link add v0 type veth peer v1")
	before := podtest.TakeSnapshot(t, ns)
	flow := []Operand{IPSource, L4Protocol, SourcePort, DestinationPort}
	table := func(device string, more ...Rule) Table {
		return Table{Family: Netdev, Name: Prefix + "v0", Purpose: "the table of the test", Without: ", or use another", Sets: []Set{flows4}, Chains: []Chain{
			{Name: "in", Hook: "ingress", Device: device, Rules: append([]Rule{
				{EtherType.Is(IP), InSet(flows4, flow...), UpdateSet(flows4, 0, flow...), GoTo("out")},
				{EtherType.Is(IP), IPDestination.Is(netip.MustParseAddr("10.0.0.1")), Dropped("x")},
			}, more...)},
			{Name: "out", Rules: []Rule{{FrameMark.Set(1), ForwardTo("v1")}}},
		}}
	}
	unheardOf := Rule{Part{text: "unheard of", exprs: []expr.Any{&expr.Match{Name: "unheard-of", Info: &xt.Unknown{}}}}}
	inside(t, ns, func() error {
		err := Write(Change{Table: table("v0", unheardOf)})
		lacking, ok := errors.AsType[*LackingError](err)
		if !ok || lacking.What != "expression match in nftables" || lacking.Without != ", or use another" || !errors.Is(err, unix.ENOENT) {
			t.Errorf("an expression that no kernel has: %v", err)
		}
		// Kernels before 6.16 refuse this.
		if err, ok := errors.AsType[*LackingError](Write(Change{Table: table("v2")})); ok {
			t.Errorf("a link that is missing: %v", err)
		}
		return table("v2").Delete()
	})
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, ns)); d != "" {
		t.Errorf("asking changed:\n%s", d)
	}
	inside(t, ns, func() error {
		if what := table("v0").lacking(); what != "" {
			t.Errorf("a kernel that makes the table has no %s", what)
		}
		return Write(Change{Table: table("v0")})
	})
}
