package prepare

import (
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// Chains of the guard for IPv4.
const (
	fromGuestIPv4    = "from_guest_ip"
	fromGuestOwnIPv4 = "from_guest_own_ip" // from one of the VM's addresses
	fromGuestARP     = "from_guest_arp"    // well-formed
	toGuestIPv4      = "to_guest_ip"
)

const (
	dhcpServerPort = 67
	dhcpClientPort = 68
)

// Types of ICMP (RFC 792, RFC 1256).
const (
	icmpRedirect            = 5
	icmpRouterAdvertisement = 9
	icmpRouterSolicitation  = 10
)

// Types of IGMP by which a host says what it listens to (RFC 3376 section 4).
// What else there is is sent by routers: queries, DVMRP, PIM version 1 and
// multicast router discovery. A snooping bridge sends all multicasts to whoever
// sends such.
const (
	igmpV1Report = 0x12
	igmpV2Report = 0x16
	igmpV2Leave  = 0x17
	igmpV3Report = 0x22
)

var igmpHostTypes = []uint8{igmpV3Report, igmpV2Report, igmpV2Leave, igmpV1Report}

// ipv4Chains are the chains that IPv4 and ARP go to. Rules about ports and types
// come behind one for later fragments, which have none: in these the kernel would
// take for them what is in their place. What is in a later fragment can't change
// them when the packet is put together, since fragments begin at multiples of
// eight bytes. A first one that is too short to have them is malformed.
func (p Plan) ipv4Chains() []chain {
	if len(p.ipv4()) == 0 {
		return nil
	}
	return []chain{
		{name: fromGuestIPv4, rules: p.fromGuestIPv4()},
		{name: fromGuestOwnIPv4, rules: fromGuestOwnIPv4Rules()},
		{name: fromGuestARP, rules: p.fromGuestARP()},
		{name: toGuestIPv4, rules: toGuestIPv4Rules()},
	}
}

func (p Plan) fromGuestIPv4() []rule {
	var out []rule
	for _, a := range p.ipv4() {
		out = append(out, ruleOf(etherType("ip"), ipSource(a.Addr()), goTo(fromGuestOwnIPv4)))
	}
	none := ipSource(unspecified4)
	out = append(out, ruleOf(etherType("ip"), none, firstFragment(), isProtocol("udp"), portIs("dport", dhcpServerPort), dropped(FromGuest, DHCPClient)))
	// A host that has no address yet may say what it listens to (RFC 3376 section 4.2.13).
	for _, t := range igmpHostTypes {
		out = append(out, ruleOf(etherType("ip"), none, firstFragment(), isProtocol("igmp"), typeIs("igmp", t), accept()))
	}
	return append(out, ruleOf(dropped(FromGuest, ForgedIP)))
}

func fromGuestOwnIPv4Rules() []rule {
	ip, udp, igmp := etherType("ip"), isProtocol("udp"), isProtocol("igmp")
	out := []rule{
		ruleOf(ip, laterFragment(), notProtocol("ah"), accept()),
		// Most clients do not look which port a server sends from.
		ruleOf(ip, udp, destinationPortNotIn(dhcpServerPort, dhcpClientPort), portIsNot("sport", dhcpServerPort), accept()),
		ruleOf(ip, udp, portIs("sport", dhcpServerPort), dropped(FromGuest, DHCPServer)),
		ruleOf(ip, udp, portIs("dport", dhcpClientPort), dropped(FromGuest, DHCPServer)),
		ruleOf(ip, udp, portIs("dport", dhcpServerPort), dropped(FromGuest, DHCPClient)),
	}
	out = append(out, icmpRules(FromGuest)...)
	for _, t := range igmpHostTypes {
		out = append(out, ruleOf(ip, igmp, typeIs("igmp", t), accept()))
	}
	return append(out,
		ruleOf(ip, igmp, dropped(FromGuest, MulticastRouter)),
		ruleOf(ip, isProtocol("ah"), dropped(FromGuest, OtherProtocol)),
		ruleOf(ip, notProtocol("udp"), notProtocol("icmp"), accept()),
		ruleOf(dropped(FromGuest, Malformed)))
}

func toGuestIPv4Rules() []rule {
	ip, udp := etherType("ip"), isProtocol("udp")
	out := []rule{
		ruleOf(ip, laterFragment(), notProtocol("ah"), accept()),
		ruleOf(ip, udp, destinationPortNotIn(dhcpServerPort, dhcpClientPort), accept()),
		ruleOf(ip, udp, portIs("dport", dhcpServerPort), dropped(ToGuest, DHCPClient)),
		ruleOf(ip, udp, portIs("dport", dhcpClientPort), dropped(ToGuest, DHCPServer)),
	}
	return append(append(out, icmpRules(ToGuest)...),
		ruleOf(ip, isProtocol("ah"), dropped(ToGuest, OtherProtocol)),
		ruleOf(ip, notProtocol("udp"), notProtocol("icmp"), accept()),
		ruleOf(dropped(ToGuest, Malformed)))
}

// icmpRules keep off what routers tell hosts: the VM is told of its router by us.
func icmpRules(where Direction) []rule {
	ip, icmp := etherType("ip"), isProtocol("icmp")
	return []rule{
		ruleOf(ip, icmp, typeIsNot("icmp", icmpRedirect), typeIsNot("icmp", icmpRouterAdvertisement), typeIsNot("icmp", icmpRouterSolicitation), accept()),
		ruleOf(ip, icmp, typeIs("icmp", icmpRedirect), dropped(where, Redirect)),
		ruleOf(ip, icmp, typeIs("icmp", icmpRouterAdvertisement), dropped(where, RouterAdvertisement)),
		ruleOf(ip, icmp, typeIs("icmp", icmpRouterSolicitation), dropped(where, RouterSolicitation)),
	}
}

func (p Plan) fromGuestARP() []rule {
	var out []rule
	for _, a := range p.ipv4() {
		own := a.Addr().AsSlice()
		out = append(out,
			ruleOf(etherType("arp"), arpFields(
				arpField{"arp saddr ether " + p.MAC.String(), arpSenderMAC, p.MAC[:]},
				arpField{"arp saddr ip " + a.Addr().String(), arpSenderIP, own}), accept()),
			// A probe for duplicates asks from no address (RFC 5227 section 1.1). Whose
			// address it asks for would take it for taken (section 2.1.1).
			ruleOf(etherType("arp"), arpFields(
				arpField{"arp operation request", arpOperation, bigEndian(arpRequest)},
				arpField{"arp saddr ether " + p.MAC.String(), arpSenderMAC, p.MAC[:]},
				arpField{"arp saddr ip " + unspecified4.String(), arpSenderIP, unspecified4.AsSlice()}), arpFields(
				arpField{"arp daddr ip " + a.Addr().String(), arpTargetIP, own}), accept()))
	}
	return append(out, ruleOf(dropped(FromGuest, ForgedARP)))
}

// ARP operations (RFC 826), and where the fields are in a message for IPv4 on
// Ethernet.
const (
	arpRequest = 1
	arpReply   = 2

	arpOperation = 6
	arpSenderMAC = 8
	arpSenderIP  = 14
	arpTargetMAC = 18
	arpTargetIP  = 24
)

// arpField is a field of an ARP message, and what it has to be.
type arpField struct {
	text   string
	offset uint32
	value  []byte
}

// arpFields compares fields that lie one behind the other.
func arpFields(fields ...arpField) match {
	m := match{text: fields[0].text}
	value := fields[0].value
	for _, f := range fields[1:] {
		m.text += " " + f.text
		value = slices.Concat(value, f.value)
	}
	m.exprs = comparePayload(expr.PayloadBaseNetworkHeader, fields[0].offset, value)
	return m
}

// arpKind and arpLengths begin each ARP message for IPv4 on Ethernet: hardware 1,
// protocol 0x800; 6 and 4.
var arpKind, arpLengths = []byte{0, 1, 8, 0}, []byte{6, 4}

// wellFormedARP matches a request or a reply that has all of its fields: the
// kernel finds no last one in a frame that is shorter.
func wellFormedARP() match {
	operation := &expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseNetworkHeader, Offset: arpOperation, Len: 2}
	last := &expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseNetworkHeader, Offset: arpTargetIP, Len: 4}
	return match{
		text: "arp htype 1 arp ptype ip arp hlen 6 arp plen 4 arp operation 1-2 arp daddr ip >= 0.0.0.0",
		exprs: slices.Concat(comparePayload(expr.PayloadBaseNetworkHeader, 0, arpKind), comparePayload(expr.PayloadBaseNetworkHeader, 4, arpLengths), []expr.Any{
			operation,
			&expr.Cmp{Op: expr.CmpOpGte, Register: unix.NFT_REG_1, Data: bigEndian(arpRequest)},
			&expr.Cmp{Op: expr.CmpOpLte, Register: unix.NFT_REG_1, Data: bigEndian(arpReply)},
			last,
			&expr.Cmp{Op: expr.CmpOpGte, Register: unix.NFT_REG_1, Data: make([]byte, 4)},
		}),
	}
}

// announcement matches the reverse request (RFC 903) by which QEMU tells the
// network's bridges where the VM is after a migration: of its MAC, for its MAC,
// without addresses.
func announcement(mac mac.Addr) match {
	const reverseRequest = 3
	parts := [][]byte{slices.Concat(arpKind, arpLengths, bigEndian(reverseRequest)), slices.Concat(mac[:], make([]byte, 4)), slices.Concat(mac[:], make([]byte, 4))}
	m := match{text: "@nh,0,64 " + hexOf(parts[0]) + " @nh,64,80 " + hexOf(parts[1]) + " @nh,144,80 " + hexOf(parts[2])}
	for i, offset := range []uint32{0, arpSenderMAC, arpTargetMAC} {
		m.exprs = append(m.exprs, comparePayload(expr.PayloadBaseNetworkHeader, offset, parts[i])...)
	}
	return m
}
