package nl

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Rule is a policy routing rule (ip-rule(8), linux/fib_rules.h).
type Rule struct {
	IPv6     bool
	Priority int
	From     netip.Prefix // only packets from here; zero: from anywhere
	Table    int          // 0: it leads to no table (blackhole, goto, …)
	// Selective is whether it asks for more than a packet's source, or does not
	// take all that it finds: a destination, a mark, a port, a user, …
	Selective bool
}

// Rules reads the rules of both families, each in the kernel's order.
func (c *Conn) Rules() ([]Rule, error) {
	var rules []Rule
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		msg := &nl.RtMsg{RtMsg: unix.RtMsg{Family: family}}
		msgs, err := c.dump(unix.RTM_GETRULE, unix.RTM_NEWRULE, msg)
		if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
			continue // a kernel without the family, or without rules
		}
		if err != nil {
			return nil, fmt.Errorf("read rules: %w", err)
		}
		rs, err := parseAll(ofFamilies(msgs, family), parseRule)
		if err != nil {
			return nil, err
		}
		rules = append(rules, rs...)
	}
	return rules, nil
}

func parseRule(m []byte) (Rule, bool, error) {
	attrs, err := attributes("rule", m, unix.SizeofRtMsg)
	if err != nil {
		return Rule{}, false, err
	}
	h := nl.DeserializeRtMsg(m) // struct fib_rule_hdr has the same layout
	r := Rule{IPv6: h.Family == unix.AF_INET6, Table: int(h.Table), Selective: h.Dst_len != 0 || h.Tos != 0 || h.Flags&unix.FIB_RULE_INVERT != 0}
	if h.Type != unix.FR_ACT_TO_TBL {
		r.Table = 0
	}
	for _, a := range attrs {
		switch attrType(a) {
		case unix.FRA_PRIORITY:
			r.Priority = int(uint32Of(a.Value))
		case unix.FRA_TABLE:
			if r.Table != 0 {
				r.Table = int(uint32Of(a.Value))
			}
		case unix.FRA_SRC:
			from, _ := netip.AddrFromSlice(a.Value)
			r.From = netip.PrefixFrom(from, int(h.Src_len))
		case unix.FRA_SUPPRESS_PREFIXLEN, unix.FRA_SUPPRESS_IFGROUP: // -1: none
			r.Selective = r.Selective || slices.ContainsFunc(a.Value, func(b byte) bool { return b != 0xff })
		case unix.FRA_PROTOCOL: // who made it
		default:
			r.Selective = true
		}
	}
	return r, true, nil
}
