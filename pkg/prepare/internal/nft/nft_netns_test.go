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
	digest := func(r Rule, index int) string {
		var encoded attributes
		sum, err := encoded.rule(r, Netdev, func(string) int { return index })
		if err != nil {
			t.Error(err)
		}
		return sum
	}
	if digest(Rule{says, Drop}, 0) == digest(Rule{says, accepts}, 0) {
		t.Error("rules of the same text have the same digest, whatever they do")
	}
	for _, sends := range []Rule{{SendTo("tap0")}, {CopyTo("tap0"), Accept}, {ForwardTo("tap0")}} {
		if digest(sends, 7) == digest(sends, 8) {
			t.Errorf("rules that send to different links have the same digest: %s", sends.text(Netdev))
		}
	}
}

// Whatever somebody does to a table, it is seen.
func TestDiffers(t *testing.T) {
	t.Parallel()
	table := Table{Family: Netdev, Name: Prefix + "eth0", Sets: []Set{flows4, ports}, Chains: []Chain{
		{Name: "out", Hook: "egress", Device: "v0"},
		{Name: "in", Hook: "ingress", Device: "v0", Rules: []Rule{{EtherType.Is(IP), Jump("next")}, {Judged("x", Drop)}}},
		{Name: "next", Rules: []Rule{{L4Protocol.Is(TCP), Accept}, {UDPDestination.NotIn(67, 68), Accept}}},
	}}
	ns := podtest.New(t)
	ns.IP(t, "link add v0 type veth peer v1")
	const name = "netdev virt-launcher-net-eth0"
	for change, want := range map[string]string{
		"":                     "",
		"delete table " + name: "is missing",
		"add table " + name + " { flags dormant; }": "dormant",
		"add chain " + name + " another":            "4 chains, not the 3 planned",
		"flush chain " + name + " next":             "chain next has 0 rules, not the 2 planned",
		"insert rule " + name + " next accept":      "chain next has 3 rules",
		"chain " + name + " in { policy drop; }":    "chain in is at another hook than planned, or has another priority or policy",
		"flush chain " + name + " next; add rule " + name + " next drop; add rule " + name + " next drop":            "chain next has another rule 1 than the planned one, meta l4proto tcp accept",
		"delete chain " + name + " in; add chain " + name + " in { type filter hook ingress device v1 priority 0; }": "chain in is at another hook",
		"delete chain " + name + " in": "chain in is missing",
		"delete chain " + name + " out; add chain " + name + " out { type filter hook ingress device v0 priority 0; }": "chain out is at another hook",
		"add element " + name + " ports { 1 }":            "set ports has other elements than planned",
		"delete element " + name + " ports { 9000-9021 }": "set ports has other elements than planned",
		"flush set " + name + " ports":                    "set ports has other elements than planned",
		"delete set " + name + " flows4":                  "set flows4 is missing",
		"add set " + name + " more { type mark; }":        "3 sets, not the 2 planned",
		"delete set " + name + " flows4; add set " + name + " flows4 { type ipv4_addr . inet_proto . inet_service . inet_service; flags dynamic,timeout; timeout 9m; size 65535; }": "set flows4 is of another kind",
		"add element " + name + " flows4 { 192.0.2.1 . tcp . 80 . 30000 }": "",
	} {
		now := tableIn(t, ns, table)
		inside(t, ns, func() error { return Write(Change{Table: table, Now: now}) })
		if change != "" {
			ns.Run(t, "nft", change)
		}
		var err error
		inside(t, ns, func() error {
			now, e := Read()
			there, is := now[table.ID()]
			err = table.Differs(there, is, none)
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
		return errors.Join(Supported(Netdev), EgressSupported())
	})
	if left := ns.Run(t, "nft", "list", "ruleset"); left != "" {
		t.Errorf("there is left:\n%s", left)
	}
}

func none(string) int { return 0 }
