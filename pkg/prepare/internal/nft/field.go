package nft

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// What the kernel knows of a frame: the links that it comes from and leaves by, ….
var (
	InputInterface  = meta[string]("iifname", expr.MetaKeyIIFNAME)
	OutputInterface = meta[string]("oifname", expr.MetaKeyOIFNAME)

	// EtherProtocol is the type of a frame, which the kernel knows where there is no
	// Ethernet header yet too, as at an egress hook.
	EtherProtocol = meta[Type]("meta protocol", expr.MetaKeyPROTOCOL)
	// PacketType is whom a frame is for, by its destination MAC.
	PacketType = meta[Packet]("meta pkttype", expr.MetaKeyPKTTYPE)
	// FrameMark is a number that a frame has inside this kernel.
	FrameMark = meta[Mark]("meta mark", expr.MetaKeyMARK)

	onEthernet = Part{text: says("meta iiftype ether"), exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFTYPE, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: binary.NativeEndian.AppendUint16(nil, unix.ARPHRD_ETHER)},
	}}
)

// Fields of Ethernet. The type of a tagged frame is 802.1Q's.
var (
	EtherDestination = payload[mac.Addr]("ether daddr", expr.PayloadBaseLLHeader, 0)
	EtherSource      = payload[mac.Addr]("ether saddr", expr.PayloadBaseLLHeader, 6)
	EtherType        = payload[Type]("ether type", expr.PayloadBaseLLHeader, 12)
	VLANID           = payload[uint16]("@ll,112,16", expr.PayloadBaseLLHeader, 14).Masked(0xfff) // of the first tag
)

// Fields of ARP for IPv4 on Ethernet (RFC 826).
var (
	ARPHardware       = payload[uint16]("arp htype", expr.PayloadBaseNetworkHeader, 0)
	ARPProtocol       = payload[Type]("arp ptype", expr.PayloadBaseNetworkHeader, 2)
	ARPHardwareLength = payload[uint8]("arp hlen", expr.PayloadBaseNetworkHeader, 4)
	ARPProtocolLength = payload[uint8]("arp plen", expr.PayloadBaseNetworkHeader, 5)
	ARPOperation      = payload[Operation]("arp operation", expr.PayloadBaseNetworkHeader, 6)
	ARPSenderMAC      = payload[mac.Addr]("arp saddr ether", expr.PayloadBaseNetworkHeader, 8)
	ARPSenderIP       = payload[netip.Addr]("arp saddr ip", expr.PayloadBaseNetworkHeader, 14)
	ARPTargetMAC      = payload[mac.Addr]("arp daddr ether", expr.PayloadBaseNetworkHeader, 18)
	ARPTargetIP       = payload[netip.Addr]("arp daddr ip", expr.PayloadBaseNetworkHeader, 24)
)

// Fields of IP. A packet whose header is wrong about version or lengths has no
// L4Protocol, since the kernel looks for none (nft_set_pktinfo_ipv4_validate,
// linux/netfilter/nf_tables_ipv4.h); each fragment has one. The fragment's of IPv6
// are in no packet without its header.
var (
	L4Protocol = meta[Protocol]("meta l4proto", expr.MetaKeyL4PROTO)

	IPProtocol       = payload[Protocol]("ip protocol", expr.PayloadBaseNetworkHeader, 9)
	IPSource         = summed(payload[netip.Addr]("ip saddr", expr.PayloadBaseNetworkHeader, 12))
	IPDestination    = summed(payload[netip.Addr]("ip daddr", expr.PayloadBaseNetworkHeader, 16))
	IPFragmentOffset = payload[uint16]("ip frag-off", expr.PayloadBaseNetworkHeader, 6).Masked(0x1fff) // without flags (RFC 791)
	IPID             = payload[uint16]("ip id", expr.PayloadBaseNetworkHeader, 4)
	// IPBegun matches the first of several fragments.
	IPBegun = payload[uint16]("ip frag-off", expr.PayloadBaseNetworkHeader, 6).Masked(0x3fff).Is(0x2000)
	// IPWhole matches a packet that is no fragment. The kernel masks four bytes,
	// the identification too, much faster than two (nft_bitwise_fast_ops, net/netfilter/nft_bitwise.c).
	IPWhole = payload[uint32]("@nh,32,32", expr.PayloadBaseNetworkHeader, 4).Masked(0x3fff).Is(0)

	IP6Length             = payload[uint16]("ip6 length", expr.PayloadBaseNetworkHeader, 4)
	IP6NextHeader         = payload[Protocol]("ip6 nexthdr", expr.PayloadBaseNetworkHeader, 6)
	IP6HopLimit           = payload[uint8]("ip6 hoplimit", expr.PayloadBaseNetworkHeader, 7)
	IP6Source             = summed(payload[netip.Addr]("ip6 saddr", expr.PayloadBaseNetworkHeader, 8))
	IP6Destination        = summed(payload[netip.Addr]("ip6 daddr", expr.PayloadBaseNetworkHeader, 24))
	IP6FragmentID         = fragment[uint32]("frag id", 4, nil)
	IP6FragmentNextHeader = fragment[uint8]("frag nexthdr", 0, nil)
	IP6FragmentOffset     = fragment[uint16]("frag frag-off", 2, []byte{0xff, 0xf8})
)

// Fields of what IP carries. They are compared behind L4Protocol. In later fragments,
// which have none, the kernel reads whatever is in their place
// (nft_payload_fast_eval, net/netfilter/nf_tables_core.c).
var (
	SourcePort      = payload[uint16]("th sport", expr.PayloadBaseTransportHeader, 0) // of TCP, UDP and others
	DestinationPort = payload[uint16]("th dport", expr.PayloadBaseTransportHeader, 2)
	TCPFlags        = payload[Flags]("tcp flags", expr.PayloadBaseTransportHeader, 13)

	// TCPUnderWay matches a segment that neither opens nor ends a connection: none of SYN, FIN
	// and RST. TCPOpens matches one that opens one. Four bytes are masked, as for IPWhole.
	TCPUnderWay = tcpWords.Masked(uint32(SYN|FIN|RST) << 16).Is(0)
	TCPOpens    = tcpWords.Masked(uint32(SYN|ACK) << 16).Is(uint32(SYN) << 16)
	tcpWords    = payload[uint32]("@th,96,32", expr.PayloadBaseTransportHeader, 12) // with the flags

	UDPSource      = payload[uint16]("udp sport", expr.PayloadBaseTransportHeader, 0)
	UDPDestination = payload[uint16]("udp dport", expr.PayloadBaseTransportHeader, 2)
	ICMPType       = payload[uint8]("icmp type", expr.PayloadBaseTransportHeader, 0)
	ICMPCode       = payload[uint8]("icmp code", expr.PayloadBaseTransportHeader, 1)
	IGMPType       = payload[uint8]("igmp type", expr.PayloadBaseTransportHeader, 0)
	ICMPv6Type     = payload[uint8]("icmpv6 type", expr.PayloadBaseTransportHeader, 0)
	ICMPv6Code     = payload[uint8]("icmpv6 code", expr.PayloadBaseTransportHeader, 1)
)

// Network is bytes of the network header for which nft(8) of Debian 12 has no name.
func Network(offset uint32) Field[[]byte] {
	return payload[[]byte]("", expr.PayloadBaseNetworkHeader, offset)
}

// Transport is such bytes of what IP carries.
func Transport(offset uint32) Field[[]byte] {
	return payload[[]byte]("", expr.PayloadBaseTransportHeader, offset)
}

// Type is that of an Ethernet frame.
type Type uint16

// Types.
const (
	IP   Type = unix.ETH_P_IP
	IP6  Type = unix.ETH_P_IPV6
	ARP  Type = unix.ETH_P_ARP
	RARP Type = unix.ETH_P_RARP

	VLAN        Type = unix.ETH_P_8021Q
	ServiceVLAN Type = unix.ETH_P_8021AD
)

func (t Type) String() string {
	return cmp.Or(map[Type]string{IP: "ip", IP6: "ip6", ARP: "arp"}[t], fmt.Sprintf("%#04x", uint16(t)))
}

// Protocol is what IP carries.
type Protocol uint8

// Protocols.
const (
	ICMP   Protocol = unix.IPPROTO_ICMP
	IGMP   Protocol = unix.IPPROTO_IGMP
	TCP    Protocol = unix.IPPROTO_TCP
	UDP    Protocol = unix.IPPROTO_UDP
	AH     Protocol = unix.IPPROTO_AH
	ICMPv6 Protocol = unix.IPPROTO_ICMPV6
)

func (p Protocol) String() string {
	names := map[Protocol]string{ICMP: "icmp", IGMP: "igmp", TCP: "tcp", UDP: "udp", AH: "ah", ICMPv6: "ipv6-icmp"}
	return cmp.Or(names[p], fmt.Sprint(uint8(p)))
}

// Operation is what an ARP message does.
type Operation uint16

// Operations.
const (
	Request Operation = 1
	Reply   Operation = 2
)

func (o Operation) String() string {
	return cmp.Or(map[Operation]string{Request: "request", Reply: "reply"}[o], fmt.Sprint(uint16(o)))
}

// Packet is whom a frame is for, as the kernel sees it.
type Packet uint8

// Packet types.
const (
	ToHost    Packet = unix.PACKET_HOST
	Broadcast Packet = unix.PACKET_BROADCAST
	Multicast Packet = unix.PACKET_MULTICAST
	ToOther   Packet = unix.PACKET_OTHERHOST
)

func (p Packet) String() string {
	names := map[Packet]string{ToHost: "host", Broadcast: "broadcast", Multicast: "multicast", ToOther: "other"}
	return cmp.Or(names[p], fmt.Sprint(uint8(p)))
}

// Mark is a frame's mark.
type Mark uint32

func (m Mark) String() string { return fmt.Sprintf("%#08x", uint32(m)) }

// Flags are those of TCP.
type Flags uint8

// Flags.
const (
	FIN Flags = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
)

func (f Flags) String() string {
	var names []string
	for i, name := range []string{"fin", "syn", "rst", "psh", "ack", "urg"} {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	switch len(names) {
	case 0:
		return "0x0"
	case 1:
		return names[0]
	}
	return "(" + strings.Join(names, "|") + ")"
}

// summed is an address that checksums are made of.
func summed(f Field[netip.Addr]) Field[netip.Addr] {
	f.summed = true
	return f
}

func payload[V any](name string, base expr.PayloadBase, offset uint32) Field[V] {
	return Field[V]{name: name, load: func(length int) expr.Any {
		return &expr.Payload{DestRegister: unix.NFT_REG_1, Base: base, Offset: offset, Len: uint32(length)}
	}}
}

func meta[V any](name string, key expr.MetaKey) Field[V] {
	return Field[V]{name: name, load: func(int) expr.Any { return &expr.Meta{Key: key, Register: unix.NFT_REG_1} }}
}

// fragment is a field of IPv6's fragment header (RFC 8200 section 4.5).
func fragment[V any](name string, offset uint32, mask []byte) Field[V] {
	return Field[V]{name: name, mask: mask, load: func(length int) expr.Any {
		return &expr.Exthdr{DestRegister: unix.NFT_REG_1, Op: expr.ExthdrOpIpv6, Type: unix.IPPROTO_FRAGMENT, Offset: offset, Len: uint32(length)}
	}}
}
