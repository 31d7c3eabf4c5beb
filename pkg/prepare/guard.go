package prepare

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

// guard is the port guard of one pod interface: an nftables table of family
// bridge. It keeps two worlds apart: from the tap only the VM's own MAC and
// addresses leave, and DHCP, which is spoken on the tap alone, crosses in
// neither direction. Its chains stand in the order in which they are made.
type guard struct {
	table  string
	chains []chain
}

// chain is a chain; a base chain if it has a hook.
type chain struct {
	name  string
	hook  *nftables.ChainHook
	rules []rule
}

// rule is what nft(8) writes and what the kernel takes.
type rule struct {
	text  string
	exprs []expr.Any
}

// guardTable is the name of the interface's table.
func (p Plan) guardTable() string { return "virt-launcher-net-" + p.Interface.Name }

// guardOps makes the guard, or makes it anew if it is not the planned one.
func (p Plan) guardOps(s state) []op {
	g := p.guard()
	digest, there := s.tables[g.table]
	switch {
	case p.Guard && !there:
		return []op{addGuard{guard: g}}
	case p.Guard && digest != g.digest():
		return []op{addGuard{guard: g, replace: true}}
	case !p.Guard && there:
		return []op{delGuard{g}}
	}
	return nil
}

// guard builds the rules for p.
func (p Plan) guard() guard {
	tap, uplink := p.Tap.Name, p.Bridge.Uplink
	g := guard{table: p.guardTable()}
	addresses := p.Addresses()
	if len(addresses) == 0 { // a network without IPAM: the VM may have any address, but one MAC
		g.chains = []chain{{name: "forward", hook: nftables.ChainHookForward, rules: []rule{
			rules(iif(tap), etherSource("!=", p.MAC), drop()),
		}}}
		return g
	}
	g.chains = []chain{
		{name: "from_guest", rules: fromGuest(p.MAC, addresses)},
		{name: "to_guest", rules: toGuest(p.MAC)},
		{name: "forward", hook: nftables.ChainHookForward, rules: []rule{
			rules(iif(tap), jump("from_guest")),
			rules(oif(tap), jump("to_guest")),
		}},
		// The pod's own stack neither hears nor speaks on this bridge.
		{name: "input", hook: nftables.ChainHookInput, rules: []rule{
			rules(iif(tap), drop()),
			rules(iif(uplink), drop()),
		}},
		{name: "output", hook: nftables.ChainHookOutput, rules: []rule{
			rules(oif(tap), drop()),
			rules(oif(uplink), drop()),
		}},
	}
	return g
}

const (
	dhcpServerPort = 67
	dhcpClientPort = 68
)

func fromGuest(mac discover.HardwareAddr, addresses []netip.Prefix) []rule {
	out := []rule{
		rules(etherSource("!=", mac), drop()),
		rules(etherType("ip"), udpPort("dport", dhcpServerPort), drop()),
		rules(etherType("ip"), udpPort("sport", dhcpServerPort), drop()),
	}
	for _, a := range addresses {
		out = append(out,
			rules(etherType("ip"), ipSource(a.Addr()), accept()),
			rules(etherType("arp"), arpSourceMAC(mac), arpSource(a.Addr()), accept()))
	}
	// A probe for duplicates asks from no address (RFC 5227 section 1.1).
	out = append(out, rules(etherType("arp"), arpSourceMAC(mac), arpSource(netip.IPv4Unspecified()), accept()))
	return append(out, rules(drop()))
}

func toGuest(mac discover.HardwareAddr) []rule {
	return []rule{
		// A CNI's bridge in hairpin mode sends the VM's broadcasts back.
		rules(etherSource("==", mac), drop()),
		rules(etherType("ip"), udpPort("dport", dhcpServerPort), drop()),
		rules(etherType("ip"), udpPort("dport", dhcpClientPort), drop()),
		rules(etherType("ip"), accept()),
		rules(etherType("arp"), accept()),
		rules(drop()),
	}
}

// String returns the guard in nft(8)'s language.
func (g guard) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "nft add table bridge %s", g.table)
	for _, c := range g.chains {
		fmt.Fprintf(&b, "\nnft add chain bridge %s %s", g.table, c.name)
		if c.hook != nil {
			fmt.Fprintf(&b, " { type filter hook %s priority filter; policy accept; }", hookNames[*c.hook])
		}
	}
	for _, c := range g.chains {
		for _, r := range c.rules {
			fmt.Fprintf(&b, "\nnft add rule bridge %s %s %s", g.table, c.name, r.text)
		}
	}
	return b.String()
}

var hookNames = map[nftables.ChainHook]string{
	*nftables.ChainHookInput:   "input",
	*nftables.ChainHookForward: "forward",
	*nftables.ChainHookOutput:  "output",
}

// digest names the guard's content; the kernel keeps it as a comment, by which
// a later run sees whether the table is the planned one.
func (g guard) digest() string {
	sum := sha256.Sum256([]byte(g.String()))
	return hex.EncodeToString(sum[:8])
}

// match is a part of a rule.
type match struct {
	text  string
	exprs []expr.Any
}

func rules(parts ...match) rule {
	var r rule
	words := make([]string, len(parts))
	for i, m := range parts {
		words[i] = m.text
		r.exprs = append(r.exprs, m.exprs...)
	}
	r.text = strings.Join(words, " ")
	return r
}

func iif(name string) match {
	return match{"iifname " + name, compareMeta(expr.MetaKeyIIFNAME, ifname(name))}
}

func oif(name string) match {
	return match{"oifname " + name, compareMeta(expr.MetaKeyOIFNAME, ifname(name))}
}

func etherSource(op string, mac discover.HardwareAddr) match {
	exprs := comparePayload(expr.PayloadBaseLLHeader, 6, mac)
	text := "ether saddr " + mac.String()
	if op == "!=" {
		text = "ether saddr != " + mac.String()
		exprs[1].(*expr.Cmp).Op = expr.CmpOpNeq
	}
	return match{text, exprs}
}

// etherType matches the type in the frame, which is 802.1Q's for a tagged one.
func etherType(name string) match {
	types := map[string]uint16{"ip": unix.ETH_P_IP, "arp": unix.ETH_P_ARP}
	return match{"ether type " + name, comparePayload(expr.PayloadBaseLLHeader, 12, binary.BigEndian.AppendUint16(nil, types[name]))}
}

func ipSource(a netip.Addr) match {
	return match{"ip saddr " + a.String(), comparePayload(expr.PayloadBaseNetworkHeader, 12, a.AsSlice())}
}

// arpSourceMAC and arpSource match the sender of an ARP message (RFC 826).
func arpSourceMAC(mac discover.HardwareAddr) match {
	return match{"arp saddr ether " + mac.String(), comparePayload(expr.PayloadBaseNetworkHeader, 8, mac)}
}

func arpSource(a netip.Addr) match {
	return match{"arp saddr ip " + a.String(), comparePayload(expr.PayloadBaseNetworkHeader, 14, a.AsSlice())}
}

func udpPort(which string, port uint16) match {
	offsets := map[string]uint32{"sport": 0, "dport": 2}
	exprs := compareMeta(expr.MetaKeyL4PROTO, []byte{unix.IPPROTO_UDP})
	return match{
		fmt.Sprintf("udp %s %d", which, port),
		append(exprs, comparePayload(expr.PayloadBaseTransportHeader, offsets[which], binary.BigEndian.AppendUint16(nil, port))...),
	}
}

func accept() match { return verdict("accept", expr.VerdictAccept) }
func drop() match   { return verdict("drop", expr.VerdictDrop) }

func verdict(name string, kind expr.VerdictKind) match {
	return match{"counter " + name, []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: kind}}}
}

func jump(chain string) match {
	return match{"jump " + chain, []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}}
}

func compareMeta(key expr.MetaKey, value []byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: value},
	}
}

func comparePayload(base expr.PayloadBase, offset uint32, value []byte) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: unix.NFT_REG_1, Base: base, Offset: offset, Len: uint32(len(value))},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: value},
	}
}

// ifname is a link's name as nftables compares it: IFNAMSIZ bytes.
func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}
