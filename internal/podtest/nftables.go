package podtest

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var (
	ruleLine = regexp.MustCompile(`(?m)^(bridge|netdev|ip|ip6) virt-launcher-net-\S+ \S+|^  \[ .* \]`)
	counted  = regexp.MustCompile(`\[ counter pkts \d+ bytes \d+ \]`)
	loadLine = regexp.MustCompile(`^  \[ (.* load .*) => reg (\d+) \]$`)
	register = regexp.MustCompile(`\breg(?:_key)? ([1-9]\d*)`)
)

// Expressions are the rules of a namespace as the kernel has them, each behind its
// family, table and chain, without what they have counted: what they compare, look up and
// write, whatever register that is in. nft(8) prints some rules alike that are not.
func Expressions(t testing.TB, ns *NS) string {
	t.Helper()
	out := ns.Run(t, "nft", "--debug=netlink", "list", "ruleset")
	var b strings.Builder
	var in registers
	for _, line := range ruleLine.FindAllString(out, -1) {
		switch {
		case !strings.HasPrefix(line, " "):
			in = registers{}
		case strings.HasPrefix(line, "  [ immediate"):
			in[word(t, "1")] = "it" // if it is no verdict: nobody loads a value elsewhere
		default:
			if load := loadLine.FindStringSubmatch(line); load != nil {
				in[word(t, load[2])] = load[1]
				continue
			}
			// A mask leaves what it masks where that was.
			isKey := strings.Contains(line, "[ lookup ") || strings.Contains(line, "[ dynset ")
			line = register.ReplaceAllStringFunc(line, func(s string) string {
				first := word(t, register.FindStringSubmatch(s)[1])
				if isKey {
					return in.from(first)
				}
				return in[first]
			})
		}
		fmt.Fprintln(&b, counted.ReplaceAllString(line, "[ counter ]"))
	}
	return b.String()
}

// registers are what was loaded last to each of the kernel's registers, which have four
// bytes.
type registers [24]string

// word is the register of a number. The first four are of sixteen bytes (enum
// nft_registers, linux/netfilter/nf_tables.h).
func word(t testing.TB, number string) int {
	n, err := strconv.Atoi(number)
	if err != nil || n >= len(registers{}) {
		t.Fatalf("%q is no register: %v", number, err)
	}
	if n < 8 {
		n = 8 + 4*(n-1)
	}
	return n
}

// from is the key that begins there.
func (r registers) from(first int) string {
	var parts []string
	for _, part := range r[first:] {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, " . ")
}
