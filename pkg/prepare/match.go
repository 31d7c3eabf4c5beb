package prepare

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// match is a part of a rule. Its expressions are those that nft(8) makes of its
// text: that puts neighbouring fields which are compared for equality into one
// comparison (payload_can_merge, src/payload.c). Debian 12's does so for
// inequality too, which then means something else, so no two neighbouring fields
// are compared for that in one rule.
type match struct {
	text  string
	exprs []expr.Any
	drops *dropKey // what a rule that ends with this is counted as
}

func ruleOf(parts ...match) rule {
	var r rule
	words := make([]string, len(parts))
	for i, m := range parts {
		words[i] = m.text
		r.exprs = append(r.exprs, m.exprs...)
		if m.drops != nil {
			r.drops = m.drops
		}
	}
	r.text = strings.Join(words, " ")
	return r
}

func iif(name string) match {
	return match{text: "iifname " + name, exprs: compareMeta(expr.MetaKeyIIFNAME, ifname(name))}
}

func oif(name string) match {
	return match{text: "oifname " + name, exprs: compareMeta(expr.MetaKeyOIFNAME, ifname(name))}
}

func etherSource(op string, mac mac.Addr) match {
	exprs := comparePayload(expr.PayloadBaseLLHeader, 6, mac[:])
	if op == "!=" {
		return match{text: "ether saddr != " + mac.String(), exprs: unequal(exprs)}
	}
	return match{text: "ether saddr " + mac.String(), exprs: exprs}
}

// etherType matches the type in the frame, which is 802.1Q's for a tagged one.
func etherType(name string) match {
	types := map[string]uint16{"ip": unix.ETH_P_IP, "ip6": unix.ETH_P_IPV6, "arp": unix.ETH_P_ARP, "0x8035": unix.ETH_P_RARP}
	return match{text: "ether type " + name, exprs: comparePayload(expr.PayloadBaseLLHeader, 12, bigEndian(types[name]))}
}

// protocols are nft(8)'s words for those of IP.
var protocols = map[string]byte{
	"icmp": unix.IPPROTO_ICMP, "igmp": unix.IPPROTO_IGMP, "tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP,
	"ah": unix.IPPROTO_AH, "ipv6-icmp": unix.IPPROTO_ICMPV6,
}

// isProtocol and notProtocol match a protocol, and any other, in all fragments.
// A packet whose IP header is wrong about version or lengths is neither, since
// the kernel looks for no protocol in it (nft_set_pktinfo_ipv4_validate,
// linux/netfilter/nf_tables_ipv4.h).
func isProtocol(name string) match {
	return match{text: "meta l4proto " + name, exprs: compareMeta(expr.MetaKeyL4PROTO, []byte{protocols[name]})}
}

func notProtocol(name string) match {
	return match{text: "meta l4proto != " + name, exprs: unequal(isProtocol(name).exprs)}
}

// portIs and portIsNot match a port of UDP, if it is in the packet at all. They
// come behind isProtocol and say nothing of later fragments, where the kernel
// reads whatever is in their place (nft_payload_fast_eval,
// net/netfilter/nf_tables_core.c).
func portIs(which string, port uint16) match {
	return match{text: fmt.Sprintf("udp %s %d", which, port), exprs: comparePort(which, port)}
}

func portIsNot(which string, port uint16) match {
	return match{text: fmt.Sprintf("udp %s != %d", which, port), exprs: unequal(comparePort(which, port))}
}

// destinationPortNotIn matches a port outside of a range.
func destinationPortNotIn(first, last uint16) match {
	return match{text: fmt.Sprintf("udp dport != %d-%d", first, last), exprs: []expr.Any{
		comparePort("dport", first)[0],
		&expr.Range{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, FromData: bigEndian(first), ToData: bigEndian(last)},
	}}
}

func comparePort(which string, port uint16) []expr.Any {
	offsets := map[string]uint32{"sport": 0, "dport": 2}
	return comparePayload(expr.PayloadBaseTransportHeader, offsets[which], bigEndian(port))
}

// typeIs and typeIsNot match the type of a message of ICMP, IGMP or ICMPv6, as
// portIs does a port.
func typeIs(protocol string, t uint8) match {
	return match{text: fmt.Sprintf("%s type %d", protocol, t), exprs: comparePayload(expr.PayloadBaseTransportHeader, 0, []byte{t})}
}

func typeIsNot(protocol string, t uint8) match {
	m := typeIs(protocol, t)
	return match{text: fmt.Sprintf("%s type != %d", protocol, t), exprs: unequal(m.exprs)}
}

func ipSource(a netip.Addr) match {
	return match{text: "ip saddr " + a.String(), exprs: comparePayload(expr.PayloadBaseNetworkHeader, 12, a.AsSlice())}
}

// fragmentOffset is where a fragment is, in the field with its flags (RFC 791).
const fragmentOffset = 0x1fff

// laterFragment matches all fragments but the first, and firstFragment the
// first, or a whole packet.
func laterFragment() match {
	return match{text: fmt.Sprintf("ip frag-off & 0x%x != 0", fragmentOffset), exprs: unequal(compareFragmentOffset())}
}

func firstFragment() match {
	return match{text: fmt.Sprintf("ip frag-off & 0x%x == 0", fragmentOffset), exprs: compareFragmentOffset()}
}

func compareFragmentOffset() []expr.Any {
	return compareMasked(&expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseNetworkHeader, Offset: 6, Len: 2},
		bigEndian(fragmentOffset), []byte{0, 0})
}

func accept() match {
	return match{text: "accept", exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}}
}

// drop drops a frame that is none of the VM's traffic, and says nothing of it.
func drop() match {
	return match{text: "drop", exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}}
}

// dropped drops a frame that goes somewhere, and counts it.
func dropped(where Direction, why Reason) match {
	return match{text: "counter drop", exprs: []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}, drops: &dropKey{where, why}}
}

func jump(chain string) match {
	return match{text: "jump " + chain, exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}}
}

func goTo(chain string) match {
	return match{text: "goto " + chain, exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}}
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

// compareMasked compares what load loads and mask leaves of it.
func compareMasked(load expr.Any, mask, value []byte) []expr.Any {
	return []expr.Any{
		load,
		&expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask))},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: value},
	}
}

// unequal turns a comparison, the last expression, into its contrary.
func unequal(exprs []expr.Any) []expr.Any {
	exprs[len(exprs)-1].(*expr.Cmp).Op = expr.CmpOpNeq
	return exprs
}

// ifname is a link's name as nftables compares it: IFNAMSIZ bytes.
func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

func bigEndian(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }

// hexOf is how nft(8) writes a value of any length.
func hexOf(parts ...[]byte) string { return fmt.Sprintf("0x%x", slices.Concat(parts...)) }
