package prepare

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

// Chains that judge what the guest sends.
const (
	guardFirstChain = "from_guest"
	guardOnlyChain  = "prerouting"
)

// guard is the port guard: it keeps two worlds apart. From the tap only the
// VM's own MAC and addresses leave, and DHCP, which is spoken on the tap alone,
// crosses in neither direction. What the VM sends is judged before the bridge
// learns from it, so that forged MACs do not fill the bridge's table.
func (p Plan) guard() table {
	tap, uplink := p.Tap.Name, p.Bridge.Uplink
	g := table{family: bridgeFamily, name: tablePrefix + p.Interface.Name}
	// The pod's own stack neither hears nor speaks on this bridge. It would make
	// itself an address of any router's prefix (RFC 4862 section 5.5.3), the
	// VM's among them.
	pod := []chain{
		{name: "input", hook: "input", rules: []rule{
			ruleOf(iif(tap), drop()),
			ruleOf(iif(uplink), drop()),
		}},
		{name: "output", hook: "output", rules: []rule{
			ruleOf(oif(tap), drop()),
			ruleOf(oif(uplink), drop()),
		}},
	}
	// A network without IPAM: the VM may have any address, but one MAC.
	if !p.Interface.Addressed() {
		g.chains = append([]chain{{name: guardOnlyChain, hook: "prerouting", rules: []rule{
			ruleOf(iif(tap), etherSource("!=", p.MAC), drop()),
		}}}, pod...)
		return g
	}
	g.chains = append([]chain{
		{name: guardFirstChain, rules: slices.Concat(fromGuest(p.MAC, p.ipv4()), p.ipv6FromGuest(), []rule{ruleOf(drop())})},
		{name: "to_guest", rules: slices.Concat(toGuest(p.MAC), p.ipv6ToGuest(), []rule{ruleOf(drop())})},
		{name: "prerouting", hook: "prerouting", rules: []rule{ruleOf(iif(tap), jump(guardFirstChain))}},
		{name: "forward", hook: "forward", rules: []rule{ruleOf(oif(tap), jump("to_guest"))}},
	}, pod...)
	return g
}

const (
	dhcpServerPort = 67
	dhcpClientPort = 68
)

// fromGuest and toGuest let IPv4 other than UDP go first, which is most of what
// there is. Both kinds are named: a frame whose IPv4 header is wrong about
// version or lengths is neither, since the kernel looks for no protocol in it
// (nft_set_pktinfo_ipv4_validate, linux/netfilter/nf_tables_ipv4.h). Rules about
// ports do not see such a frame, while a DHCP client on a packet socket might.
func fromGuest(mac discover.HardwareAddr, addresses []netip.Prefix) []rule {
	out := []rule{ruleOf(etherSource("!=", mac), drop())}
	for _, a := range addresses {
		out = append(out, ruleOf(etherType("ip"), isUDP("!="), ipSource(a.Addr()), accept()))
	}
	out = append(out,
		ruleOf(etherType("ip"), udpPort("dport", dhcpServerPort), drop()),
		ruleOf(etherType("ip"), udpPort("sport", dhcpServerPort), drop()),
		// Most clients do not look which port a server sends from.
		ruleOf(etherType("ip"), udpPort("dport", dhcpClientPort), drop()))
	for _, a := range addresses {
		out = append(out,
			ruleOf(etherType("ip"), isUDP("=="), ipSource(a.Addr()), accept()),
			ruleOf(etherType("arp"), arpSourceMAC(mac), arpSource(a.Addr()), accept()))
	}
	if len(addresses) > 0 {
		// A probe for duplicates asks from no address (RFC 5227 section 1.1).
		out = append(out, ruleOf(etherType("arp"), isARPRequest(), arpSourceMAC(mac), arpSource(netip.IPv4Unspecified()), accept()))
	}
	return out
}

func toGuest(mac discover.HardwareAddr) []rule {
	return []rule{
		// A CNI's bridge in hairpin mode sends the VM's broadcasts back.
		ruleOf(etherSource("==", mac), drop()),
		ruleOf(etherType("ip"), isUDP("!="), accept()),
		ruleOf(etherType("ip"), udpPort("dport", dhcpServerPort), drop()),
		ruleOf(etherType("ip"), udpPort("dport", dhcpClientPort), drop()),
		ruleOf(etherType("ip"), isUDP("=="), accept()),
		ruleOf(etherType("arp"), accept()),
	}
}

// match is a part of a rule.
type match struct {
	text  string
	exprs []expr.Any
}

func ruleOf(parts ...match) rule {
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
	types := map[string]uint16{"ip": unix.ETH_P_IP, "ip6": unix.ETH_P_IPV6, "arp": unix.ETH_P_ARP}
	return match{"ether type " + name, comparePayload(expr.PayloadBaseLLHeader, 12, binary.BigEndian.AppendUint16(nil, types[name]))}
}

// isUDP matches UDP and, with "!=", whatever else is in IPv4, each in all
// fragments.
func isUDP(op string) match {
	exprs := compareMeta(expr.MetaKeyL4PROTO, []byte{unix.IPPROTO_UDP})
	text := "meta l4proto udp"
	if op == "!=" {
		text = "meta l4proto != udp"
		exprs[1].(*expr.Cmp).Op = expr.CmpOpNeq
	}
	return match{text, exprs}
}

func ipSource(a netip.Addr) match {
	return match{"ip saddr " + a.String(), comparePayload(expr.PayloadBaseNetworkHeader, 12, a.AsSlice())}
}

// ARP operations (RFC 826).
const (
	arpRequest = 1
	arpReply   = 2
)

func isARPRequest() match {
	return match{"arp operation request", comparePayload(expr.PayloadBaseNetworkHeader, 6, binary.BigEndian.AppendUint16(nil, arpRequest))}
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
