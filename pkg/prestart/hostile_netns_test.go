package prestart_test

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// verdict is what becomes of a frame. What does not pass is counted for a reason;
// none: it is not the guard that stops it.
type verdict struct {
	passes bool
	reason prepare.Reason
}

var passes = verdict{passes: true}

func stopped(reason prepare.Reason) verdict { return verdict{reason: reason} }

// try is a frame that somebody sends.
type try struct {
	name  string
	frame []byte
	verdict
}

// party is who a frame is from, or says it is from.
type party struct {
	mac net.HardwareAddr
	ip  netip.Addr
}

var (
	broadcast   = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	unspecified = netip.IPv4Unspecified()
	everyone    = netip.AddrFrom4([4]byte{255, 255, 255, 255})
	stranger    = party{net.HardwareAddr{2, 0, 0, 0, 0, 0x99}, netip.AddrFrom4([4]byte{10, 244, 1, 99})}
)

// Ports that nobody listens on, and those of DHCP.
const (
	anyPort, server, client = 40000, 67, 68
)

// udp is a datagram whose payload is unlike any other's, if name is.
func udp(from, to party, sport, dport uint16, name string) []byte {
	return podtest.UDPFrame(from.mac, to.mac, netip.AddrPortFrom(from.ip, sport), netip.AddrPortFrom(to.ip, dport), []byte(name))
}

// arp is an ARP message (RFC 826) from the Ethernet address outer, whose sender
// it says is from.
func arp(outer net.HardwareAddr, operation uint16, from, to party) []byte {
	dst := to.mac
	if operation == 1 {
		dst = broadcast
	}
	b := slices.Concat(dst, outer, []byte{8, 6, 0, 1, 8, 0, 6, 4})
	b = binary.BigEndian.AppendUint16(b, operation)
	return slices.Concat(b, from.mac, from.ip.AsSlice(), to.mac, to.ip.AsSlice())
}

// rarp is a reverse request (RFC 903) from the Ethernet address outer.
func rarp(outer, sender, target net.HardwareAddr, ip netip.Addr) []byte {
	head := ethernet(broadcast, outer, 0x8035, 0, 1, 8, 0, 6, 4, 0, 3)
	return slices.Concat(head, sender, ip.AsSlice(), target, ip.AsSlice())
}

// Protocols of IPv4.
const isICMP, isIGMP, isAH = 1, 2, 51

// ip4 is a packet of any protocol.
func ip4(from, to party, protocol byte, payload ...byte) []byte {
	frame := udp(from, to, 0, 0, string(make([]byte, max(0, len(payload)-8))))[:34+len(payload)]
	copy(frame[34:], payload)
	return withIP(frame, func(ip []byte) {
		ip[9] = protocol
		binary.BigEndian.PutUint16(ip[2:], uint16(20+len(payload)))
	})
}

// icmpTries are messages of routers and to them, and others.
func icmpTries(from, to party, where prepare.Direction) []try {
	message := func(kind byte, name string) []byte {
		return ip4(from, to, isICMP, append([]byte{kind, 0, 0, 0, 1, 2, 3, 4}, name+string(where)...)...)
	}
	authenticated := append([]byte{isICMP, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1}, make([]byte, 12)...)
	return []try{
		{"too big", message(3, "too big"), passes},
		{"time exceeded", message(11, "exceeded"), passes},
		{"ICMP router advertisement", message(9, "advertisement"), stopped("router-advertisement")},
		{"ICMP router advertisement in fragments", fragment(message(9, "in fragments"), 0, true), stopped("router-advertisement")},
		{"ICMP router solicitation", message(10, "solicitation"), stopped("router-solicitation")},
		{"ICMP redirect", message(5, redirect), stopped(redirect)},
		{"ICMP redirect behind an option", withOption(message(5, "option")), stopped(redirect)},
		{"a later fragment like a redirect", fragment(message(5, "later"), 1, false), passes},
		{"ICMP router advertisement that is authenticated", ip4(from, to, isAH, append(authenticated, 9, 1, 2, 3)...), stopped("other-protocol")},
		{"a later fragment that is authenticated", fragment(ip4(from, to, isAH, authenticated...), 2, false), stopped("other-protocol")},
		{"ICMP without a type", ip4(from, to, isICMP), stopped("malformed")},
	}
}

// fragmentTries are later fragments, whose payload may look like anything, and
// first ones that are too short to have ports.
func fragmentTries(from, to party) []try {
	var tries []try
	for _, ports := range [][]byte{{0, server, 0x9c, 0x40}, {0x9c, 0x40, 0, server}, {0x9c, 0x40, 0, client}, {0, server, 0, client}} {
		frame := ip4(from, to, 17, append(ports, "some of a datagram"...)...)
		tries = append(tries,
			try{"a later fragment like DHCP", fragment(frame, 3, true), passes},
			try{"a last fragment like DHCP", fragment(frame, 2, false), passes},
			try{"a second fragment like DHCP", fragment(frame, 1, false), passes},
			try{"a later fragment with an option", fragment(withOption(frame), 4, false), passes})
	}
	for length := range 4 {
		frame := ip4(from, to, 17, []byte{0x9c, 0x40, 0, server}[:length]...)
		tries = append(tries,
			try{"a first fragment without ports", fragment(frame, 0, true), stopped("malformed")},
			try{"a datagram without ports", frame, stopped("malformed")})
	}
	return tries
}

// arpTries are messages in which something is wrong.
func arpTries(outer net.HardwareAddr, from, to party) []try {
	var tries []try
	for name, change := range map[string]struct {
		at    int
		value []byte
	}{
		"hardware 6": {14, []byte{0, 6}}, "protocol IPv6": {16, []byte{0x86, 0xdd}}, "protocol 0x1234": {16, []byte{0x12, 0x34}},
		"hardware length 0": {18, []byte{0}}, "hardware length 8": {18, []byte{8}}, "protocol length 0": {19, []byte{0}}, "protocol length 16": {19, []byte{16}},
		"operation 0": {20, []byte{0, 0}}, "operation 3": {20, []byte{0, 3}}, "operation 8": {20, []byte{0, 8}}, "operation 256": {20, []byte{1, 0}},
	} {
		frame := arp(outer, 2, from, to)
		copy(frame[change.at:], change.value)
		tries = append(tries, try{"ARP with " + name, frame, stopped("malformed")})
	}
	return append(tries, try{"ARP that is cut in its last address", arp(outer, 2, from, to)[:41], stopped("malformed")})
}

// ethernet is a frame of any type.
func ethernet(dst, src net.HardwareAddr, etherType uint16, payload ...byte) []byte {
	return append(binary.BigEndian.AppendUint16(slices.Concat(dst, src), etherType), payload...)
}

// tagged puts a VLAN tag in a frame (IEEE 802.1Q).
func tagged(frame []byte, tpid, tci uint16) []byte {
	tag := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, tpid), tci)
	return slices.Concat(frame[:12], tag, frame[12:])
}

// wrapped puts the packet of a frame behind another header.
func wrapped(frame []byte, etherType uint16, header ...byte) []byte {
	return slices.Concat(ethernet(frame[:6], frame[6:12], etherType, header...), frame[14:])
}

// fragment makes of a datagram the fragment at an offset in units of 8 bytes
// (RFC 791).
func fragment(frame []byte, offset uint16, more bool) []byte {
	if more {
		offset |= 0x2000
	}
	return withIP(frame, func(ip []byte) { binary.BigEndian.PutUint16(ip[6:], offset) })
}

// withIP changes a frame's IPv4 header and makes its checksum right.
func withIP(frame []byte, change func(ip []byte)) []byte {
	frame = slices.Clone(frame)
	ip := frame[14:]
	change(ip)
	ip[10], ip[11] = 0, 0
	var sum uint32
	for i := 0; i < int(ip[0]&15)*4 && i+1 < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum))
	return frame
}

// withOption gives a datagram an IPv4 option of no meaning.
func withOption(frame []byte) []byte {
	frame = slices.Concat(frame[:34], []byte{1, 1, 1, 0}, frame[34:])
	return withIP(frame, func(ip []byte) {
		ip[0]++
		binary.BigEndian.PutUint16(ip[2:], binary.BigEndian.Uint16(ip[2:])+4)
	})
}

// tooLong says that a datagram is longer than its frame.
func tooLong(frame []byte) []byte {
	return withIP(frame, func(ip []byte) { binary.BigEndian.PutUint16(ip[2:], uint16(len(frame))) })
}

// icmp6 is a message of neighbour discovery (RFC 4861) to all nodes.
func icmp6(src net.HardwareAddr, kind byte, name string) []byte {
	header := []byte{0x60, 0, 0, 0, 0, byte(8 + len(name)), 58, 255}
	from, to := netip.MustParseAddr("fe80::99"), netip.MustParseAddr("ff02::1")
	return ethernet(net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}, src, 0x86dd,
		slices.Concat(header, from.AsSlice(), to.AsSlice(), []byte{kind, 0, 0, 0, 0, 0, 0, 0}, []byte(name))...)
}

// strange is what becomes of strangeFrames.
type strange struct{ ipv6, headless, others verdict }

// strangeFrames are frames of src that are neither IPv4 nor ARP, or hide it.
func strangeFrames(src net.HardwareAddr, plain []byte, becomes strange) []try {
	ipv6, headless, others := becomes.ipv6, becomes.headless, becomes.others
	linkLocal := func(last byte) net.HardwareAddr { return net.HardwareAddr{1, 0x80, 0xc2, 0, 0, last} }
	payload := func(name string) []byte { return append(make([]byte, 46), name...) }
	return []try{
		{"router advertisement", icmp6(src, 134, "ra"), ipv6},
		{"router solicitation", icmp6(src, 133, "rs"), ipv6},
		{"neighbour solicitation", icmp6(src, 135, "ns"), ipv6},
		{"neighbour advertisement", icmp6(src, 136, "na"), ipv6},
		{"802.1Q", tagged(plain, 0x8100, 7), others},
		{"priority tag", tagged(plain, 0x8100, 5<<13), others},
		{"802.1ad", tagged(tagged(plain, 0x8100, 7), 0x88a8, 8), others},
		{"two 802.1Q tags", tagged(tagged(plain, 0x8100, 7), 0x8100, 8), others},
		{"802.1Q with DHCP", tagged(udp(party{src, stranger.ip}, party{broadcast, everyone}, server, client, "tag"), 0x8100, 9), others},
		{"MPLS", wrapped(plain, 0x8847, 0, 1, 1, 64), others},
		{"PPPoE", wrapped(plain, 0x8864, 0x11, 0, 0, 1, 0, 62, 0, 0x21), others},
		{"IPv4 in 802.3 with SNAP", wrapped(plain, uint16(8+len(plain)-14), 0xaa, 0xaa, 3, 0, 0, 0, 8, 0), others},
		{"EtherCAT", ethernet(broadcast, src, 0x88a4, payload("ethercat")...), others},
		{"RARP", ethernet(broadcast, src, 0x8035, payload("rarp")...), others},
		{"spanning tree", ethernet(linkLocal(0), src, 38, append([]byte{0x42, 0x42, 3}, payload("stp")...)...), others},
		{"nothing but an Ethernet header", ethernet(broadcast, src, 0x0800), headless},
		{"half an IPv4 header", ethernet(broadcast, src, 0x0800, 0x45, 0, 0, 35, 0, 0, 0, 0, 64, 17), headless},
	}
}

// TestHostileGuest sends what a guest may, and what it may not, and has the
// node's side of the pod's link judge.
func TestHostileGuest(t *testing.T) {
	t.Parallel()
	overDatapaths(t, hostileGuest)
}

// overDatapaths runs a test for each datapath.
func overDatapaths(t *testing.T, test func(t *testing.T, datapath string)) {
	for _, datapath := range []string{prepare.DefaultDatapath, redirect} {
		t.Run(datapath, func(t *testing.T) {
			t.Parallel()
			test(t, datapath)
		})
	}
}

func hostileGuest(t *testing.T, datapath string) {
	p := newHostilePod(t, podtest.Flannel, prestart.Hook{Network: prepare.Options{Datapath: datapath}})
	own := p.vm
	all, gateway := party{broadcast, everyone}, party{stranger.mac, p.pod.Gateway}
	forgedMAC, forgedIP, forgedARP := stopped("forged-mac"), stopped("forged-ip"), stopped("forged-arp")
	toServer, fromServer, malformed := stopped("dhcp-client"), stopped("dhcp-server"), stopped("malformed")
	others := stopped("other-protocol")
	// A switch stops some by itself.
	noSource, pause := verdict{}, verdict{}
	if datapath == redirect {
		noSource, pause = forgedMAC, others
	}
	offer := func(name string) []byte { return udp(own, all, server, client, name) }

	tries := slices.Concat(strangeFrames(own.mac, udp(own, gateway, anyPort, anyPort, "strange"), strange{stopped("no-ipv6"), forgedIP, others}), []try{
		{"its own", udp(own, gateway, anyPort, anyPort, "own"), passes},
		{"its own, to all", udp(own, all, anyPort, anyPort, "own to all"), passes},
		{"its own with an option", withOption(udp(own, gateway, anyPort, anyPort, "option")), passes},
		{"its own first fragment", fragment(udp(own, gateway, anyPort, anyPort, "fragment"), 0, true), passes},
		{"its own last fragment", fragment(udp(own, gateway, anyPort, anyPort, "last"), 2, false), passes},
		{"its own ping", podtest.EchoFrame(own.mac, gateway.mac, own.ip, gateway.ip), passes},
		{"its own ARP request", arp(own.mac, 1, own, gateway), passes},
		{"its own ARP reply", arp(own.mac, 2, own, gateway), passes},
		{"its own announcement", arp(own.mac, 1, own, own), passes},
		{"probe for a duplicate", arp(own.mac, 1, party{own.mac, unspecified}, own), passes},

		{"another's MAC", udp(party{stranger.mac, own.ip}, gateway, anyPort, anyPort, "mac"), forgedMAC},
		{"broadcast as source", udp(party{broadcast, own.ip}, gateway, anyPort, anyPort, "bc"), noSource},
		{"multicast as source", udp(party{net.HardwareAddr{1, 0, 0x5e, 0, 0, 1}, own.ip}, gateway, anyPort, anyPort, "mc"), noSource},
		{"no MAC as source", udp(party{make(net.HardwareAddr, 6), own.ip}, gateway, anyPort, anyPort, "zero"), noSource},
		{"another's address", udp(party{own.mac, stranger.ip}, gateway, anyPort, anyPort, "ip"), forgedIP},
		{"a ping from another's address", podtest.EchoFrame(own.mac, gateway.mac, stranger.ip, gateway.ip), forgedIP},
		{"another's address in a fragment", fragment(udp(party{own.mac, stranger.ip}, gateway, anyPort, anyPort, "ipf"), 2, false), forgedIP},
		{"no address", udp(party{own.mac, unspecified}, gateway, anyPort, anyPort, "none"), forgedIP},

		{"ARP reply for the gateway", arp(own.mac, 2, party{own.mac, p.pod.Gateway}, gateway), forgedARP},
		{"announcement of another's address", arp(own.mac, 1, party{own.mac, stranger.ip}, party{own.mac, stranger.ip}), forgedARP},
		{"ARP request in another's name", arp(own.mac, 1, party{stranger.mac, own.ip}, gateway), forgedARP},
		{"ARP reply in another's name", arp(own.mac, 2, party{stranger.mac, own.ip}, gateway), forgedARP},
		{"ARP reply from another's MAC", arp(stranger.mac, 2, own, gateway), forgedMAC},
		{"half an ARP message", ethernet(broadcast, own.mac, 0x0806, 0, 1, 8, 0, 6, 4, 0, 1), malformed},
		{"ARP reply from no address", arp(own.mac, 2, party{own.mac, unspecified}, gateway), forgedARP},

		{"DHCPDISCOVER", udp(party{own.mac, unspecified}, all, client, server, "discover"), toServer},
		{"DHCPREQUEST", udp(own, gateway, client, server, "request"), toServer},
		{"DHCPOFFER", offer("offer"), fromServer},
		{"DHCPOFFER to one", udp(own, stranger, server, client, "offer to one"), fromServer},
		{"DHCPOFFER with another's address", udp(party{own.mac, p.pod.Gateway}, all, server, client, "forged offer"), forgedIP},
		{"DHCPOFFER from another port", udp(own, all, anyPort, client, "offer from another port"), fromServer},
		{"DHCPOFFER with an option in IPv4", withOption(offer("offer with option")), fromServer},
		{"first fragment of a DHCPOFFER", fragment(offer("offer in fragments"), 0, true), fromServer},
		{"DHCPOFFER longer than its frame", tooLong(offer("long offer")), malformed},
		{"DHCPOFFER of another version of IP", withIP(offer("offer of IPv6"), func(ip []byte) { ip[0] = 0x65 }), malformed},

		{"probe for another's address", arp(own.mac, 1, party{own.mac, unspecified}, stranger), forgedARP},
		{"probe for the gateway", arp(own.mac, 1, party{own.mac, unspecified}, gateway), forgedARP},

		{"LLDP", ethernet(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 0x0e}, own.mac, 0x88cc, []byte("lldp")...), others},
		{"IPv4 to LLDP's group", udp(own, party{bridgeGroup(0x0e), stranger.ip}, anyPort, anyPort, "lldp's group"), others},
		{"LACP", ethernet(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 2}, own.mac, 0x8809, []byte("lacp")...), others},
		{"802.1X", ethernet(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 3}, own.mac, 0x888e, []byte("eapol")...), others},
		{"IPv4 to 802.1X's group", udp(own, party{net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 3}, stranger.ip}, anyPort, anyPort, "group"), others},
		{"pause", ethernet(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 1}, own.mac, 0x8808, []byte("pause")...), pause},

		{"announcement of a migrated VM", rarp(own.mac, own.mac, own.mac, unspecified), passes},
		{"announcement of another", rarp(own.mac, stranger.mac, stranger.mac, unspecified), others},
		{"announcement for another", rarp(own.mac, own.mac, stranger.mac, unspecified), others},
		{"announcement with another's address", rarp(own.mac, own.mac, own.mac, stranger.ip), others},
		{"half an announcement", rarp(own.mac, own.mac, own.mac, unspecified)[:38], others},

		{"multicast report", ip4(own, all, isIGMP, 0x22, 0, 0, 0, 0, 0, 0, 0), passes},
		{"multicast report from no address", ip4(party{own.mac, unspecified}, all, isIGMP, 0x16, 0, 0, 0, 224, 0, 0, 251), passes},
		{"multicast query", ip4(own, all, isIGMP, 0x11, 100, 0, 0, 0, 0, 0, 0), stopped("multicast-router")},
		{"multicast query from no address", ip4(party{own.mac, unspecified}, all, isIGMP, 0x11, 100, 0, 0, 0, 0, 0, 0), forgedIP},
		{"multicast router's advertisement", ip4(own, all, isIGMP, 0x30, 20, 0, 0, 0, 0, 0, 0), stopped("multicast-router")},
		{"tunnel", ip4(own, gateway, 47, []byte("generic routing")...), passes},
		{"later fragment of a tunnel", fragment(ip4(own, gateway, 4, []byte("IPv4 in IPv4")...), 2, false), passes},
	}, icmpTries(own, gateway, "from_guest"), fragmentTries(own, gateway), arpTries(own.mac, own, gateway))
	p.judgeSent(t, tries, udp(own, gateway, anyPort, 40001, "marker"))

	if datapath != prepare.DefaultDatapath {
		return
	}
	learned := podtest.Learned(t, p.pod.NS, "br-eth0")
	if strings.Contains(learned, stranger.mac.String()) {
		t.Errorf("the switch learned a forged MAC:\n%s", learned)
	}
}

// TestHostilePodNetwork sends to the guest from the node.
func TestHostilePodNetwork(t *testing.T) {
	t.Parallel()
	overDatapaths(t, hostilePodNetwork)
}

func hostilePodNetwork(t *testing.T, datapath string) {
	p := newHostilePod(t, podtest.Flannel, prestart.Hook{Network: prepare.Options{Datapath: datapath}})
	ours := "br-eth0"
	if datapath == redirect {
		ours = "tap-eth0"
	}
	vm, all, gateway := p.vm, party{broadcast, everyone}, party{stranger.mac, p.pod.Gateway}
	toServer, toClient, malformed := stopped("dhcp-client"), stopped("dhcp-server"), stopped("malformed")
	others, back := stopped("other-protocol"), stopped("own-mac")
	offer := func(name string) []byte { return udp(gateway, all, server, client, name) }

	tries := slices.Concat(strangeFrames(gateway.mac, udp(gateway, vm, anyPort, anyPort, "strange"), strange{stopped("no-ipv6"), malformed, others}), []try{
		{"to the VM", udp(gateway, vm, anyPort, anyPort, "to the VM"), passes},
		{"to all", udp(gateway, all, anyPort, anyPort, "to all"), passes},
		{"to a group", udp(gateway, party{net.HardwareAddr{1, 0, 0x5e, 0, 0, 0xfb}, netip.MustParseAddr("224.0.0.251")}, 5353, 5353, "mdns"), passes},
		{"a ping", podtest.EchoFrame(gateway.mac, vm.mac, gateway.ip, vm.ip), passes},
		{"a last fragment", fragment(udp(gateway, vm, anyPort, anyPort, "last"), 2, false), passes},
		{"ARP request", arp(gateway.mac, 1, gateway, vm), passes},
		{"ARP reply", arp(gateway.mac, 2, gateway, vm), passes},

		{"to the VM's Service, returned", udp(party{vm.mac, gateway.ip}, vm, anyPort, anyPort, "Service"), passes},
		{"the VM's own broadcast", udp(vm, all, anyPort, anyPort, "hairpin"), back},
		{"DHCPOFFER", offer("offer"), toClient},
		{"DHCPACK to the VM", udp(gateway, vm, server, client, "ack"), toClient},
		{"DHCPOFFER from another port", udp(gateway, all, anyPort, client, "offer from another port"), toClient},
		{"DHCPOFFER with an option in IPv4", withOption(offer("offer with option")), toClient},
		{"first fragment of a DHCPOFFER", fragment(offer("offer in fragments"), 0, true), toClient},
		{"DHCPOFFER longer than its frame", tooLong(offer("long offer")), malformed},
		{"DHCPDISCOVER of another", udp(party{stranger.mac, unspecified}, all, client, server, "discover"), toServer},
		{"DHCPREQUEST of another", udp(stranger, vm, client, server, "request"), toServer},
		{"LLDP", ethernet(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 0x0e}, gateway.mac, 0x88cc, []byte("lldp")...), others},
		{"IPv4 to LLDP's group", udp(gateway, party{bridgeGroup(0x0e), vm.ip}, anyPort, anyPort, "lldp's group"), others},
		{"multicast query", ip4(gateway, all, isIGMP, 0x11, 100, 0, 0, 0, 0, 0, 0), passes},
		{"announcement of the VM", rarp(gateway.mac, gateway.mac, gateway.mac, unspecified), others},
		{"to a link of ours", udp(gateway, party{linkMAC(t, p.pod.NS, ours), vm.ip}, anyPort, anyPort, "switch"), verdict{}},
	}, icmpTries(gateway, vm, "to_guest"), fragmentTries(gateway, vm), arpTries(gateway.mac, gateway, vm))
	p.judgeReceived(t, tries, udp(gateway, vm, anyPort, 40001, "marker"))
}

// Without the guard everything goes that a switch lets through, the guest's
// DHCP too.
func TestGuardOff(t *testing.T) {
	t.Parallel()
	p := newHostilePod(t, podtest.Flannel, prestart.Hook{Network: prepare.Options{NoGuard: true}})
	all, gateway := party{broadcast, everyone}, party{stranger.mac, p.pod.Gateway}
	own := append(strangeFrames(p.vm.mac, udp(p.vm, gateway, anyPort, anyPort, "strange"), strange{passes, passes, passes}), []try{
		{"another's address", udp(party{p.vm.mac, stranger.ip}, gateway, anyPort, anyPort, "ip"), passes},
		{"ARP reply for the gateway", arp(p.vm.mac, 2, party{p.vm.mac, p.pod.Gateway}, gateway), passes},
		{"DHCPDISCOVER", udp(party{p.vm.mac, unspecified}, all, client, server, "discover"), passes},
		{"DHCPOFFER", udp(p.vm, all, server, client, "offer"), passes},
		{"another's MAC", udp(party{net.HardwareAddr{2, 0, 0, 0, 0, 0x98}, p.vm.ip}, all, anyPort, anyPort, "mac"), passes},
	}...)
	p.judgeSent(t, own, udp(p.vm, all, anyPort, 40001, "marker"))
	others := append(strangeFrames(gateway.mac, udp(gateway, p.vm, anyPort, anyPort, "strange"), strange{passes, passes, passes}),
		try{"DHCPOFFER", udp(gateway, all, server, client, "offer of another"), passes},
		try{"DHCPDISCOVER of another", udp(party{gateway.mac, unspecified}, all, client, server, "discover of another"), passes})
	p.judgeReceived(t, others, udp(gateway, p.vm, anyPort, 40001, "marker"))
	if out := p.pod.Run(t, "nft", "list", "ruleset"); out != "" && podtest.Datapath(t) != redirect {
		t.Errorf("there are rules without a guard:\n%s", out)
	}
}

// A network without addresses is the VM's own affair, but for its MAC.
func TestGuardWithoutAddresses(t *testing.T) {
	t.Parallel()
	p := newHostilePod(t, podtest.L2, prestart.Hook{})
	p.vm.ip = stranger.ip
	all, other := party{broadcast, everyone}, party{stranger.mac, stranger.ip}
	forged := stopped("forged-mac")
	p.judgeSent(t, append(strangeFrames(p.vm.mac, udp(p.vm, other, anyPort, anyPort, "strange"), strange{passes, passes, passes}), []try{
		{"DHCPDISCOVER", udp(party{p.vm.mac, unspecified}, all, client, server, "discover"), passes},
		{"another's MAC", udp(other, all, anyPort, anyPort, "mac"), forged},
		{"router advertisement of ICMP", ip4(p.vm, all, isICMP, 9, 1, 2, 3), passes},
		{"another's MAC to bridges", ethernet(bridgeGroup(0x0e), other.mac, 0x88cc, []byte("forged lldp")...), forged},
		{"another's MAC in ARP", arp(other.mac, 2, other, p.vm), forged},
	}...), udp(p.vm, other, anyPort, 40001, "marker"))
	p.judgeSent(t, toBridges(p.vm.mac), udp(p.vm, other, anyPort, 40001, "marker"))
	p.judgeReceived(t, toBridges(other.mac), udp(other, p.vm, anyPort, 40001, "marker"))
	p.judgeReceived(t, []try{
		{"DHCPOFFER", udp(other, all, server, client, "offer of another"), passes},
		{"router advertisement", icmp6(other.mac, 134, "ra of another"), passes},
	}, udp(other, p.vm, anyPort, 40001, "marker"))
}

// bridgeGroup is one of sixteen groups that bridges keep for themselves.
func bridgeGroup(last byte) net.HardwareAddr { return net.HardwareAddr{1, 0x80, 0xc2, 0, 0, last} }

// toBridges are frames to all of these groups. Nothing passes a pause frame on.
func toBridges(src net.HardwareAddr) []try {
	var tries []try
	for last := range byte(16) {
		to := try{fmt.Sprintf("to 01:80:c2:00:00:%02x", last), ethernet(bridgeGroup(last), src, 0x88b5, append(make([]byte, 46), last)...), passes}
		if last == 1 {
			to.verdict = verdict{}
		}
		tries = append(tries, to)
	}
	return append(tries,
		try{"LLDP", ethernet(bridgeGroup(0x0e), src, 0x88cc, []byte("lldp")...), passes},
		try{"LACP", ethernet(bridgeGroup(2), src, 0x8809, []byte("lacp")...), passes},
		try{"802.1X", ethernet(bridgeGroup(3), src, 0x888e, []byte("eapol")...), passes})
}

// A router on a network without addresses, the VM among them, gives the pod
// neither an address nor a route. By redirect the pod believes the network's routers,
// as without a VM.
func TestPodHearsNoRouter(t *testing.T) {
	t.Parallel()
	p := newHostilePod(t, podtest.L2, prestart.Hook{})
	routes := p.pod.Run(t, "ip", "-6", "route")
	other := party{stranger.mac, stranger.ip}
	p.judgeSent(t, []try{{"router", router(p.vm.mac, "2001:db8:1::"), passes}}, udp(p.vm, other, anyPort, 40001, "marker"))
	p.judgeReceived(t, []try{{"router", router(other.mac, "2001:db8:2::"), passes}}, udp(other, p.vm, anyPort, 40001, "marker"))
	if podtest.Datapath(t) == redirect {
		p.believes(t, "2001:db8:2::", "2001:db8:1::")
		return
	}
	if now := p.pod.Run(t, "ip", "-6", "route"); now != routes {
		t.Errorf("the pod's routes were\n%sand are\n%s", routes, now)
	}
	for _, link := range []string{"br-" + p.pod.Interface, "up-" + p.pod.Interface, "tap-" + p.pod.Interface, p.pod.Interface} {
		if out := p.pod.Run(t, "ip", "-6", "addr", "show", "dev", link); out != "" {
			t.Errorf("the pod has an address:\n%s", out)
		}
	}
}

// believes checks which router's prefix the pod has believed, and which not.
func (p hostilePod) believes(t *testing.T, router, none string) {
	t.Helper()
	now := p.pod.Run(t, "ip", "-6", "route") + p.pod.Run(t, "ip", "-6", "addr")
	if !strings.Contains(now, router) || strings.Contains(now, none) {
		t.Errorf("the pod believes another router than that of %s:\n%s", router, now)
	}
}

// What is sent to the groups that bridges keep for themselves does not come to the
// pod's own stack, which would answer ARP for the VM's address and believe a router.
func TestPodHearsNoBridgeGroup(t *testing.T) {
	t.Parallel()
	for _, shape := range []podtest.Shape{podtest.BridgeDual, podtest.L2} {
		t.Run(string(shape), func(t *testing.T) {
			p := newHostilePod(t, shape, prestart.Hook{})
			if shape == podtest.L2 {
				p.vm.ip = stranger.ip
			}
			tap, uplink := "tap-"+p.pod.Interface, "up-"+p.pod.Interface
			routes := p.pod.Run(t, "ip", "-6", "route")
			replies := podtest.StartCapture(t, p.pod.NS, tap, "arp")
			for last := range byte(16) {
				to := func(frame []byte) []byte { return slices.Concat(bridgeGroup(last), frame[6:]) }
				for _, frame := range [][]byte{
					router(p.vm.mac, "2001:db8:1::"),
					arp(p.vm.mac, 1, party{p.vm.mac, unspecified}, p.vm), // does anybody have the address?
				} {
					if _, err := p.tap.Write(to(frame)); err != nil {
						t.Fatal(err)
					}
				}
				if err := podtest.SendFrames(p.pod.Node, p.pod.NodeLink, to(router(stranger.mac, "2001:db8:2::"))); err != nil {
					t.Fatal(err)
				}
			}
			own := arp(p.vm.mac, 1, p.vm, party{stranger.mac, netip.AddrFrom4([4]byte{203, 0, 113, 1})})
			if _, err := p.tap.Write(own); err != nil { // it comes last
				t.Fatal(err)
			}
			replies.Wait("203.0.113.1")
			for _, frame := range replies.Frames() {
				if !bytes.Equal(frame[6:12], p.vm.mac) {
					t.Errorf("the pod answers the VM: %x", frame)
				}
			}
			if podtest.Datapath(t) == redirect {
				p.believes(t, "2001:db8:2::", "2001:db8:1::")
				return
			}
			if now := p.pod.Run(t, "ip", "-6", "route"); now != routes {
				t.Errorf("the pod's routes were\n%sand are\n%s", routes, now)
			}
			for _, link := range []string{tap, uplink} {
				if out := p.pod.Run(t, "ip", "-6", "addr", "show", "dev", link); out != "" {
					t.Errorf("the pod has an address:\n%s", out)
				}
			}
		})
	}
}

// hostilePod is a prepared pod with a guest that writes its frames itself.
type hostilePod struct {
	pod  *podtest.Pod
	hook prestart.Hook
	tap  *podtest.Tap
	vm   party
}

func newHostilePod(t *testing.T, shape podtest.Shape, h prestart.Hook) hostilePod {
	t.Helper()
	pod := podtest.NewPod(t, shape)
	hook := newHook(t, pod)
	datapath := cmp.Or(h.Network.Datapath, hook.Network.Datapath)
	hook.Network, hook.SkipCheck = h.Network, true
	hook.Network.Datapath = datapath
	hook.Interfaces = []string{pod.Interface}
	if shape == podtest.L2 { // a secondary network, beside a pod interface with an address
		pod.IP(t, "link add net0 type veth peer name net0 netns "+pod.Node.Path(), "link set net0 up", "addr add 10.9.0.7/24 dev net0")
		hook.Interfaces = []string{"net0", pod.Interface}
	}
	session := run(t, hook)
	networks := session.Interfaces()
	tap, err := podtest.OpenTap(pod.NS, networks[len(networks)-1].Tap, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tap.Close() })
	plans, err := hook.Plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := pod.Do(func() error { return plans[len(plans)-1].WaitForwarding(t.Context()) }); err != nil {
		t.Fatal(err)
	}
	return hostilePod{pod, hook, tap, party{pod.MAC, pod.IPv4.Addr()}}
}

// judgeSent sends frames as the guest and looks for them on the node's end of
// the pod's link. The marker comes last and gets there.
func (p hostilePod) judgeSent(t *testing.T, tries []try, marker []byte) {
	t.Helper()
	p.judge(t, "from_guest", tries, marker, podtest.StartCapture(t, p.pod.Node, p.pod.NodeLink, ""), func(frame []byte) error {
		_, err := p.tap.Write(frame)
		return err
	})
}

// judgeReceived sends frames from the node and looks for them on the tap.
func (p hostilePod) judgeReceived(t *testing.T, tries []try, marker []byte) {
	t.Helper()
	p.judge(t, "to_guest", tries, marker, podtest.StartCapture(t, p.pod.NS, "tap-"+p.pod.Interface, ""), func(frame []byte) error {
		return podtest.SendFrames(p.pod.Node, p.pod.NodeLink, frame)
	})
}

// judge sends frames and tells which of them do not fare as they should. Each is
// counted for its reason and for no other: what is sent of one verdict is counted
// together.
func (p hostilePod) judge(t *testing.T, where prepare.Direction, tries []try, marker []byte, capture *podtest.Capture, send func([]byte) error) {
	t.Helper()
	groups := map[prepare.Reason][]try{}
	for _, try := range tries {
		groups[try.reason] = append(groups[try.reason], try)
	}
	before := p.counters(t, where)
	for reason, group := range groups {
		for _, try := range group {
			if err := send(try.frame); err != nil {
				t.Errorf("%s: %v", try.name, err)
			}
		}
		after := p.counters(t, where)
		for counted, n := range after {
			got, want := n-before[counted], 0
			if reason == counted {
				want = len(group)
			}
			// Nobody else sends as the guest; the node's kernel does send.
			if got != uint64(want) && (where == "from_guest" || got < uint64(want)) {
				t.Errorf("%d frames were counted as %s, want %d, of:%s", got, counted, want, namesOfTries(group))
			}
		}
		before = after
	}
	if err := send(marker); err != nil {
		t.Fatal(err)
	}
	capture.Wait(".40001: UDP")
	seen := capture.Frames()
	for _, try := range tries {
		arrived := slices.ContainsFunc(seen, func(f []byte) bool { return bytes.Equal(f, try.frame) })
		if arrived != try.passes {
			t.Errorf("%s: arrived: %v, want %v\n%x", try.name, arrived, try.passes, try.frame)
		}
	}
}

func namesOfTries(tries []try) string {
	var b strings.Builder
	for _, try := range tries {
		b.WriteString("\n\t" + try.name)
	}
	return b.String()
}

// counters are what status tells of the guard.
func (p hostilePod) counters(t *testing.T, where prepare.Direction) map[prepare.Reason]uint64 {
	t.Helper()
	status, err := statusOf(t, p.hook)
	if err != nil {
		t.Fatal(err)
	}
	counters := map[prepare.Reason]uint64{}
	for _, i := range status.Interfaces {
		if i.GuardError != "" {
			t.Error(i.GuardError)
		}
		if i.Name != p.pod.Interface {
			continue
		}
		for _, c := range i.Counters {
			if c.Direction == where {
				counters[c.Reason] = c.Packets
			}
		}
	}
	return counters
}

func linkMAC(t *testing.T, ns *podtest.NS, name string) net.HardwareAddr {
	t.Helper()
	var mac net.HardwareAddr
	if err := ns.Do(func() error {
		link, err := net.InterfaceByName(name)
		if err == nil {
			mac = link.HardwareAddr
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return mac
}
