package podtest

import (
	"regexp"
	"strings"
	"testing"
)

var ruleLine = regexp.MustCompile(`(?m)^(bridge|netdev|ip|ip6) virt-launcher-net-\S+ \S+|^  \[ .* \]`)

var counted = regexp.MustCompile(`\[ counter pkts \d+ bytes \d+ \]`)

// Expressions are the rules of a namespace as the kernel has them, each behind its
// family, table and chain, without what they have counted. nft(8) prints some rules
// alike that are not.
func Expressions(t testing.TB, ns *NS) string {
	t.Helper()
	out := ns.Run(t, "nft", "--debug=netlink", "list", "ruleset")
	return counted.ReplaceAllString(strings.Join(append(ruleLine.FindAllString(out, -1), ""), "\n"), "[ counter ]")
}
