package prepare

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// rulesets are pods whose tables are all that there are: the port guard of both
// families, and the answers for neighbours.
func rulesets(t *testing.T, test func(t *testing.T, pod *podtest.Pod, tables []string)) {
	for shape, tables := range map[podtest.Shape][]string{
		podtest.CalicoDual: {"bridge virt-launcher-net-eth0"},
		podtest.AWS:        {"bridge virt-launcher-net-eth0", "netdev virt-launcher-net-eth0"},
		podtest.L2:         {"bridge virt-launcher-net-eth0"},
	} {
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			test(t, podtest.NewPod(t, shape), tables)
		})
	}
}

// handles lists the rules of a table, as "CHAIN handle N", and its chains.
func handles(t *testing.T, pod *podtest.NS, table string) (rules, chains []string) {
	t.Helper()
	chain := ""
	for line := range strings.Lines(pod.Run(t, "nft", append([]string{"-a", "list", "table"}, strings.Fields(table)...)...)) {
		words := strings.Fields(line)
		switch {
		case len(words) > 1 && words[0] == "chain":
			chain = words[1]
			chains = append(chains, chain)
		case strings.Contains(line, "# handle") && words[0] != "table":
			rules = append(rules, chain+" handle "+words[len(words)-1])
		}
	}
	return rules, chains
}

// Whatever somebody does to the tables, the next prepare sees it, says nothing of
// a pod that is prepared already, and makes them whole.
func TestTablesAreVerifiedRuleByRule(t *testing.T) {
	t.Parallel()
	rulesets(t, func(t *testing.T, pod *podtest.Pod, tables []string) {
		dir := t.TempDir()
		prepared := func() {
			t.Helper()
			in(t, pod.NS, func() error { return prepareAll(t.Context(), dir, "eth0") })
		}
		check := func() (err error) {
			in(t, pod.NS, func() error {
				plans, e := ReadPlans(discard, dir)
				if e == nil {
					err = plans[0].CheckTables()
				}
				return e
			})
			return err
		}
		prepared()
		list := func() (text string) { // in this order; the kernel's is that in which they were made
			for _, table := range tables {
				text += plain(pod.Run(t, "nft", append([]string{"list", "table"}, strings.Fields(table)...)...))
			}
			return text
		}
		want := list()
		if err := check(); err != nil {
			t.Fatal(err)
		}
		damage := func(lines ...string) {
			t.Helper()
			for _, line := range lines {
				pod.Run(t, "nft", line)
			}
			err := check()
			if _, is := errors.AsType[*TableError](err); !is {
				t.Errorf("after %s the check says %v", strings.Join(lines, "; "), err)
			}
			prepared()
			if err := check(); err != nil {
				t.Errorf("after %s and prepare: %v", strings.Join(lines, "; "), err)
			}
			if d := podtest.Diff(want, list()); d != "" {
				t.Errorf("after %s and prepare:\n%s", strings.Join(lines, "; "), d)
			}
		}
		for _, table := range tables {
			family, hook := strings.Fields(table)[0], "hook prerouting priority -200"
			if family == "netdev" {
				hook = "hook ingress device tap-eth0 priority 0"
			}
			damage("delete table " + table)
			damage("add table " + table + " { flags dormant; }")
			damage("add chain " + table + " another { type filter " + hook + "; policy accept; }")
			damage("add chain " + table + " plain")
			damage("flush table " + table)
			_, chains := handles(t, pod.NS, table)
			for _, chain := range chains {
				damage("flush chain " + table + " " + chain)
				damage("insert rule " + table + " " + chain + " accept")
				damage("add rule " + table + " " + chain + " counter")
				if out := pod.Run(t, "nft", "list", "chain", family, strings.Fields(table)[1], chain); strings.Contains(out, "policy accept") {
					damage("chain " + table + " " + chain + " { policy drop; }")
					damage("delete chain " + table + " " + chain)
				}
			}
			rules, _ := handles(t, pod.NS, table)
			for i := range rules {
				now, _ := handles(t, pod.NS, table) // new ones since the last repair
				damage("delete rule " + table + " " + now[i])
				now, _ = handles(t, pod.NS, table)
				damage(fmt.Sprintf("replace rule %s %s counter accept", table, now[i]))
			}
		}
		in(t, pod.NS, func() error { return restoreOnly(context.Background(), dir) })
		if left := pod.Run(t, "nft", "list", "ruleset"); strings.Contains(left, "virt-launcher-net") {
			t.Errorf("after restore there is\n%s", left)
		}
	})
}

// plain is a ruleset without what counts.
func plain(ruleset string) string {
	var lines []string
	for line := range strings.Lines(ruleset) {
		words := strings.Fields(line)
		for i, w := range words {
			if (w == "packets" || w == "bytes") && i+1 < len(words) {
				words[i+1] = "0"
			}
		}
		lines = append(lines, strings.Join(words, " "))
	}
	return strings.Join(lines, "\n")
}

// What a rule does counts, not only how it is written.
func TestDigestIsOfTheExpressionsToo(t *testing.T) {
	t.Parallel()
	a := ruleOf(iif("tap0"), drop())
	b := a
	b.exprs = ruleOf(iif("tap0"), accept()).exprs
	if a.digest(bridgeFamily, 0) == b.digest(bridgeFamily, 0) {
		t.Error("rules of the same text have the same digest, whatever they do")
	}
	c := a
	c.sendTo = "tap0"
	if c.digest(netdevFamily, 7) == c.digest(netdevFamily, 8) {
		t.Error("rules that send to different devices have the same digest")
	}
}
