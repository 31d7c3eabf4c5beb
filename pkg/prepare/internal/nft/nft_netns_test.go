package nft

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// What a rule does counts, not only how it is written.
func TestDigestIsOfTheExpressionsToo(t *testing.T) {
	t.Parallel()
	says := InputInterface.Is("tap0")
	accepts := Accept
	accepts.text = Drop.text
	digest := func(r Rule, index int) string { return r.digest(Netdev, r.exprs(Netdev, index)) }
	if digest(Rule{says, Drop}, 0) == digest(Rule{says, accepts}, 0) {
		t.Error("rules of the same text have the same digest, whatever they do")
	}
	sends := Rule{SendTo("tap0")}
	if digest(sends, 7) == digest(sends, 8) {
		t.Error("rules that send to different links have the same digest")
	}
}

// Whatever somebody does to a table, it is seen.
func TestDiffers(t *testing.T) {
	t.Parallel()
	table := Table{Family: Netdev, Name: Prefix + "eth0", Chains: []Chain{
		{Name: "in", Hook: "ingress", Device: "v0", Rules: []Rule{{EtherType.Is(IP), Jump("next")}, {Dropped("x")}}},
		{Name: "next", Rules: []Rule{{L4Protocol.Is(TCP), Accept}, {UDPDestination.NotIn(67, 68), Accept}}},
	}}
	ns := podtest.New(t)
	ns.IP(t, "link add v0 type veth peer v1")
	const name = "netdev virt-launcher-net-eth0"
	for change, want := range map[string]string{
		"":                     "",
		"delete table " + name: "is missing",
		"add table " + name + " { flags dormant; }": "dormant",
		"add chain " + name + " another":            "3 chains, not the 2 planned",
		"flush chain " + name + " next":             "chain next has 0 rules, not the 2 planned",
		"insert rule " + name + " next accept":      "chain next has 3 rules",
		"chain " + name + " in { policy drop; }":    "chain in is at another hook than planned, or has another priority or policy",
		"flush chain " + name + " next; add rule " + name + " next drop; add rule " + name + " next drop":            "chain next has another rule 1 than the planned one, meta l4proto tcp accept",
		"delete chain " + name + " in; add chain " + name + " in { type filter hook ingress device v1 priority 0; }": "chain in is at another hook",
		"delete chain " + name + " in": "chain in is missing",
	} {
		inside(t, ns, func() error { return table.Write(true) })
		if change != "" {
			ns.Run(t, "nft", change)
		}
		var err error
		inside(t, ns, func() error {
			now, e := Read()
			there, is := now[table.ID()]
			err = table.Differs(there, is, func(string) int { return 0 })
			return e
		})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("after %q it says %v, want %q", change, err, want)
		}
	}
}

// What the kernel has, and what no kernel has, is told apart, and asking leaves
// nothing behind.
func TestSupported(t *testing.T) {
	t.Parallel()
	ns := podtest.New(t)
	inside(t, ns, func() error {
		if err := Supported(Family{Number: 99}); !errors.Is(err, unix.EOPNOTSUPP) || !Unsupported(err) {
			t.Errorf("a family that no kernel has: %v", err)
		}
		return Supported(Netdev)
	})
	if left := ns.Run(t, "nft", "list", "ruleset"); left != "" {
		t.Errorf("there is left:\n%s", left)
	}
}
