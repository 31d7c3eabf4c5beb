package bridge

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/guard"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// nics are NICs that between them have each rule there is.
func nics() map[string]guest.NIC {
	neighbor := func(a string, last byte) guest.Neighbor {
		return guest.Neighbor{Address: netip.MustParseAddr(a), MAC: mac.Addr{2, 0, 0, 0, 0, last}}
	}
	v4 := &guest.IPv4{Address: netip.MustParsePrefix("10.244.1.7/24"), Addresses: []netip.Prefix{
		netip.MustParsePrefix("10.244.1.7/24"), netip.MustParsePrefix("10.99.0.7/16"),
	}}
	v6 := &guest.IPv6{Address: netip.MustParsePrefix("fd00:10:22::7/64")}
	routed := &guest.IPv6{Address: v6.Address, Router: &guest.Router{LinkLocal: netip.MustParseAddr("fe80::1"), MAC: mac.Addr{2, 0, 0, 0, 0, 1}}}
	all := map[string]guest.NIC{
		"no IPAM":    {},
		"no address": {Addressed: true},
		"IPv4":       {IPv4: v4, Answers: []guest.Neighbor{neighbor("169.254.1.1", 1)}},
		"IPv6":       {IPv6: v6, Answers: []guest.Neighbor{neighbor("fe80::1", 1)}},
		"both": {IPv4: v4, IPv6: routed, Answers: []guest.Neighbor{
			neighbor("10.244.1.9", 9), neighbor("fd00:10:22::98", 0x98), neighbor("fe80::99", 0x99),
		}},
	}
	for name, n := range all {
		n.Addressed = name != "no IPAM"
		n.Interface, n.Tap, n.TapMAC, n.MAC = "eth0", "tap-eth0", mac.Addr{2, 1, 1, 1, 1, 1}, mac.Addr{0x0a, 0x58, 0x0a, 0xf4, 1, 7}
		all[name] = n
	}
	return all
}

// oneTable has everything in the netdev family, as a datapath without a bridge would.
func oneTable(n guest.NIC) nft.Table {
	toGuest := guard.ToGuest(n)
	rules := append(guard.Answers(n), nft.Rule{nft.Jump(guard.FromGuestChain)})
	chains := slices.Concat(guard.FromGuest(n), toGuest, []nft.Chain{{Name: "tap", Hook: "ingress", Device: n.Tap, Rules: rules}})
	if len(toGuest) > 0 {
		chains = append(chains, nft.Chain{Name: "uplink", Hook: "ingress", Device: "up-eth0", Rules: []nft.Rule{{nft.Jump(guard.ToGuestChain)}}})
	}
	return nft.Table{Family: nft.Netdev, Name: nft.Prefix + "one", Chains: chains}
}

// A shell that is given the tables' text makes the rules that the kernel is given, in
// whichever family.
func TestTextMakesTheRules(t *testing.T) {
	t.Parallel()
	for name, n := range nics() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tables := []nft.Table{guardTable(n, "up-eth0"), oneTable(n)}
			if len(n.Answers) > 0 {
				tables = append(tables, answersTable(n))
			}
			scripted, written := podtest.New(t), podtest.New(t)
			for _, ns := range []*podtest.NS{scripted, written} {
				ns.IP(t, "link add tap-eth0 type veth peer up-eth0")
			}
			index := func(string) (index int) { return linkIndex(t, written, "tap-eth0") }
			for _, table := range tables {
				for _, replace := range []bool{false, true} {
					scripted.Run(t, "sh", "-e", "-c", table.Add(replace))
					inside(t, written, func() error { return table.Write(replace) })
				}
				if d := podtest.Diff(podtest.Expressions(t, written), podtest.Expressions(t, scripted)); d != "" {
					t.Errorf("nft makes of the text of %s (-written +scripted):\n%s", table.ID(), d)
				}
				inside(t, written, func() error {
					now, err := nft.Read()
					if err != nil {
						return err
					}
					there, is := now[table.ID()]
					return table.Differs(there, is, index)
				})
			}
			for _, table := range tables {
				scripted.Run(t, "sh", "-c", table.DeleteText())
				inside(t, written, table.Delete)
				inside(t, written, table.Delete) // gone already
			}
			for _, ns := range []*podtest.NS{scripted, written} {
				if left := ns.Run(t, "nft", "list", "ruleset"); left != "" {
					t.Errorf("there is left:\n%s", left)
				}
			}
		})
	}
}

func linkIndex(t *testing.T, ns *podtest.NS, name string) (index int) {
	t.Helper()
	inside(t, ns, func() error {
		link, err := net.InterfaceByName(name)
		if err == nil {
			index = link.Index
		}
		return err
	})
	return index
}

func inside(t *testing.T, ns *podtest.NS, do func() error) {
	t.Helper()
	if err := ns.Do(do); err != nil {
		t.Fatal(err)
	}
}
