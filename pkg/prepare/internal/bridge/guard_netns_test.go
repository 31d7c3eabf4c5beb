package bridge

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
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
	routed := &guest.IPv6{Address: v6.Address, Router: &guest.Router{LinkLocal: netip.MustParseAddr("fe80::1"), MAC: mac.Addr{2, 0, 0, 0, 0, 1}, Gateway: netip.MustParseAddr("fd00:10:22::1")}}
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
		n.Addressed, n.Guard = name != "no IPAM", true
		n.Interface, n.Tap, n.TapMAC, n.MAC = "eth0", "tap-eth0", mac.Addr{2, 1, 1, 1, 1, 1}, mac.Addr{0x0a, 0x58, 0x0a, 0xf4, 1, 7}
		all[name] = n
	}
	return all
}

// oneTable has everything in the netdev family, as a datapath without a bridge would.
func oneTable(n guest.NIC) nft.Table {
	toGuest := guard.ToGuest(n, guard.InPlace)
	rules := append(guard.Answers(n, nft.SendTo(n.Tap)), nft.Rule{nft.Jump(guard.FromGuestChain)})
	chains := slices.Concat(guard.FromGuest(n, guard.InPlace), toGuest, []nft.Chain{{Name: "tap", Hook: "ingress", Device: n.Tap, Rules: rules}})
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
			if t := ingressTable(n, "up-eth0"); len(t.Chains) > 0 {
				tables = append(tables, t)
			}
			scripted, written := podtest.New(t), podtest.New(t)
			for _, ns := range []*podtest.NS{scripted, written} {
				ns.IP(t, "link add tap-eth0 type veth peer up-eth0")
			}
			for _, table := range tables {
				scripted.Run(t, "nft", "add table "+table.String())
				scripted.Run(t, "sh", "-e", "-c", (nft.Change{Table: table, Now: &nft.Present{}}).Text())
				inside(t, written, func() error { return nft.Write(nft.Change{Table: table}) })
				inside(t, written, func() error { return nft.Write(nft.Change{Table: table, Now: &nft.Present{}}) })
				if d := podtest.Diff(podtest.Expressions(t, written), podtest.Expressions(t, scripted)); d != "" {
					t.Errorf("nft makes of the text of %s (-written +scripted):\n%s", table, d)
				}
				if err := differs(t, written, table); err != nil {
					t.Errorf("%s as it was made %v", table, err)
				}
			}
			for _, table := range tables {
				scripted.Run(t, "sh", "-c", table.DeleteText())
				inside(t, written, func() error {
					d, err := nft.OpenDeleter()
					if err != nil {
						return err
					}
					return errors.Join(d.Delete(table), d.Delete(table), d.Close()) // gone already, the second time
				})
			}
			for _, ns := range []*podtest.NS{scripted, written} {
				if left := ns.Run(t, "nft", "list", "ruleset"); left != "" {
					t.Errorf("there is left:\n%s", left)
				}
			}
		})
	}
}

// Whatever somebody does to the tables is seen, and they can be made whole.
func TestTablesAreVerifiedRuleByRule(t *testing.T) {
	t.Parallel()
	n := nics()["both"]
	for _, table := range []nft.Table{guardTable(n, "up-eth0"), ingressTable(n, "up-eth0")} {
		t.Run(table.Family.Name, func(t *testing.T) {
			t.Parallel()
			ns := podtest.New(t)
			ns.IP(t, "link add tap-eth0 type veth peer up-eth0")
			inside(t, ns, func() error { return nft.Write(nft.Change{Table: table}) })
			id := table.String()
			list := func() string { return ns.Run(t, "nft", "list", "table", table.Family.Name, table.Name) }
			want := list()
			changes := []string{"delete table " + id, "flush table " + id, "add table " + id + " { flags dormant; }", "add chain " + id + " plain"}
			for _, c := range table.Chains {
				chain := id + " " + c.Name
				changes = append(changes, "flush chain "+chain, "insert rule "+chain+" accept", "add rule "+chain+" counter")
				if c.Hook != "" {
					changes = append(changes, "chain "+chain+" { policy drop; }", "delete chain "+chain)
				}
			}
			for i, rule := range rules(ns.Run(t, "nft", "-a", "list", "table", table.Family.Name, table.Name)) { // handles are the same each time
				if i%2 == 0 {
					changes = append(changes, "delete rule "+id+" "+rule)
				} else {
					changes = append(changes, "replace rule "+id+" "+rule+" counter accept")
				}
			}
			for _, change := range changes {
				ns.Run(t, "nft", change)
				if differs(t, ns, table) == nil {
					t.Errorf("after %s the table is as it was made", change)
				}
				inside(t, ns, func() error { return nft.Write(nft.Change{Table: table, Now: &nft.Present{}}) })
				if err := differs(t, ns, table); err != nil {
					t.Errorf("after %s, made anew, it %v", change, err)
				}
			}
			if d := podtest.Diff(want, list()); d != "" {
				t.Errorf("made anew it is another table (-first +last):\n%s", d)
			}
		})
	}
}

// rules are those of a table as nft(8) lists it, as "CHAIN handle N".
func rules(table string) (out []string) {
	chain := ""
	for line := range strings.Lines(table) {
		words := strings.Fields(line)
		switch {
		case len(words) > 1 && words[0] == "chain":
			chain = words[1]
		case strings.Contains(line, "# handle") && words[0] != "table":
			out = append(out, chain+" handle "+words[len(words)-1])
		}
	}
	return out
}

// differs says how the namespace's table is not the planned one.
func differs(t *testing.T, ns *podtest.NS, table nft.Table) (differs error) {
	t.Helper()
	inside(t, ns, func() error {
		now, err := nft.Read()
		there, is := now[table.ID()]
		differs = table.Differs(there, is, func(link string) int {
			l, unknown := net.InterfaceByName(link)
			if unknown != nil {
				err = unknown
				return 0
			}
			return l.Index
		})
		return err
	})
	return differs
}

func inside(t *testing.T, ns *podtest.NS, do func() error) {
	t.Helper()
	if err := ns.Do(do); err != nil {
		t.Fatal(err)
	}
}
