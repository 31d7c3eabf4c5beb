package prestart_test

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// verdict is what becomes of a frame. A rule is written as the guard's counters
// have it, its chain in front; none: the bridge itself decides.
type verdict struct {
	passes bool
	rule   string
}

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

// strangeFrames are frames of src that are neither IPv4 nor ARP, or hide it.
func strangeFrames(src net.HardwareAddr, plain []byte, others verdict) []try {
	linkLocal := func(last byte) net.HardwareAddr { return net.HardwareAddr{1, 0x80, 0xc2, 0, 0, last} }
	payload := func(name string) []byte { return append(make([]byte, 46), name...) }
	return []try{
		{"router advertisement", icmp6(src, 134, "ra"), others},
		{"router solicitation", icmp6(src, 133, "rs"), others},
		{"neighbour solicitation", icmp6(src, 135, "ns"), others},
		{"neighbour advertisement", icmp6(src, 136, "na"), others},
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
		{"nothing but an Ethernet header", ethernet(broadcast, src, 0x0800), others},
		{"half an IPv4 header", ethernet(broadcast, src, 0x0800, 0x45, 0, 0, 35, 0, 0, 0, 0, 64, 17), others},
	}
}

// TestHostileGuest sends what a guest may, and what it may not, and has the
// node's side of the pod's link judge.
func TestHostileGuest(t *testing.T) {
	t.Parallel()
	p := newHostilePod(t, podtest.Flannel, prestart.Hook{})
	own, mac, ip := p.vm, p.vm.mac.String(), p.vm.ip.String()
	all, gateway := party{broadcast, everyone}, party{stranger.mac, p.pod.Gateway}
	forged := verdict{rule: "from_guest: ether saddr != " + mac + " counter drop"}
	toServer := verdict{rule: "from_guest: ether type ip udp dport 67 counter drop"}
	fromServer := verdict{rule: "from_guest: ether type ip udp sport 67 counter drop"}
	toClient := verdict{rule: "from_guest: ether type ip udp dport 68 counter drop"}
	ownIP := verdict{true, "from_guest: ether type ip meta l4proto udp ip saddr " + ip + " counter accept"}
	otherIP := verdict{true, "from_guest: ether type ip meta l4proto != udp ip saddr " + ip + " counter accept"}
	ownARP := verdict{true, "from_guest: ether type arp arp saddr ether " + mac + " arp saddr ip " + ip + " counter accept"}
	probe := verdict{true, "from_guest: ether type arp arp operation request arp saddr ether " + mac + " arp saddr ip 0.0.0.0 counter accept"}
	others := verdict{rule: "from_guest: counter drop"}
	intoPod := verdict{rule: "input: iifname tap-eth0 counter drop"}
	offer := func(name string) []byte { return udp(own, all, server, client, name) }

	tries := slices.Concat(strangeFrames(own.mac, udp(own, gateway, anyPort, anyPort, "strange"), others), []try{
		{"its own", udp(own, gateway, anyPort, anyPort, "own"), ownIP},
		{"its own, to all", udp(own, all, anyPort, anyPort, "own to all"), ownIP},
		{"its own with an option", withOption(udp(own, gateway, anyPort, anyPort, "option")), ownIP},
		{"its own first fragment", fragment(udp(own, gateway, anyPort, anyPort, "fragment"), 0, true), ownIP},
		{"its own last fragment", fragment(udp(own, gateway, anyPort, anyPort, "last"), 2, false), ownIP},
		{"its own ping", podtest.EchoFrame(own.mac, gateway.mac, own.ip, gateway.ip), otherIP},
		{"its own ARP request", arp(own.mac, 1, own, gateway), ownARP},
		{"its own ARP reply", arp(own.mac, 2, own, gateway), ownARP},
		{"its own announcement", arp(own.mac, 1, own, own), ownARP},
		{"probe for a duplicate", arp(own.mac, 1, party{own.mac, unspecified}, own), probe},

		{"another's MAC", udp(party{stranger.mac, own.ip}, gateway, anyPort, anyPort, "mac"), forged},
		{"broadcast as source", udp(party{broadcast, own.ip}, gateway, anyPort, anyPort, "bc"), verdict{}},
		{"multicast as source", udp(party{net.HardwareAddr{1, 0, 0x5e, 0, 0, 1}, own.ip}, gateway, anyPort, anyPort, "mc"), verdict{}},
		{"no MAC as source", udp(party{make(net.HardwareAddr, 6), own.ip}, gateway, anyPort, anyPort, "zero"), verdict{}},
		{"another's address", udp(party{own.mac, stranger.ip}, gateway, anyPort, anyPort, "ip"), others},
		{"a ping from another's address", podtest.EchoFrame(own.mac, gateway.mac, stranger.ip, gateway.ip), others},
		{"another's address in a fragment", fragment(udp(party{own.mac, stranger.ip}, gateway, anyPort, anyPort, "ipf"), 2, false), others},
		{"no address", udp(party{own.mac, unspecified}, gateway, anyPort, anyPort, "none"), others},

		{"ARP reply for the gateway", arp(own.mac, 2, party{own.mac, p.pod.Gateway}, gateway), others},
		{"announcement of another's address", arp(own.mac, 1, party{own.mac, stranger.ip}, party{own.mac, stranger.ip}), others},
		{"ARP request in another's name", arp(own.mac, 1, party{stranger.mac, own.ip}, gateway), others},
		{"ARP reply in another's name", arp(own.mac, 2, party{stranger.mac, own.ip}, gateway), others},
		{"ARP reply from another's MAC", arp(stranger.mac, 2, own, gateway), forged},
		{"half an ARP message", ethernet(broadcast, own.mac, 0x0806, 0, 1, 8, 0, 6, 4, 0, 1), others},
		{"ARP reply from no address", arp(own.mac, 2, party{own.mac, unspecified}, gateway), others},

		{"DHCPDISCOVER", udp(party{own.mac, unspecified}, all, client, server, "discover"), toServer},
		{"DHCPREQUEST", udp(own, gateway, client, server, "request"), toServer},
		{"DHCPOFFER", offer("offer"), fromServer},
		{"DHCPOFFER to one", udp(own, stranger, server, client, "offer to one"), fromServer},
		{"DHCPOFFER with another's address", udp(party{own.mac, p.pod.Gateway}, all, server, client, "forged offer"), fromServer},
		{"DHCPOFFER from another port", udp(own, all, anyPort, client, "offer from another port"), toClient},
		{"DHCPOFFER with an option in IPv4", withOption(offer("offer with option")), fromServer},
		{"first fragment of a DHCPOFFER", fragment(offer("offer in fragments"), 0, true), fromServer},
		{"DHCPOFFER longer than its frame", tooLong(offer("long offer")), others},
		{"DHCPOFFER of another version of IP", withIP(offer("offer of IPv6"), func(ip []byte) { ip[0] = 0x65 }), others},

		{"LLDP", ethernet(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 0x0e}, own.mac, 0x88cc, []byte("lldp")...), intoPod},
		{"LACP", ethernet(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 2}, own.mac, 0x8809, []byte("lacp")...), intoPod},
		{"802.1X", ethernet(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 3}, own.mac, 0x888e, []byte("eapol")...), intoPod},
		{"IPv4 to a bridge's group", udp(own, party{net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 3}, stranger.ip}, anyPort, anyPort, "group"), intoPod},
		{"pause", ethernet(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 1}, own.mac, 0x8808, []byte("pause")...), verdict{}},
	})
	p.judgeSent(t, tries, udp(own, gateway, anyPort, 40001, "marker"), ownIP.rule)

	fdb := p.pod.Pod.Run(t, "bridge", "fdb", "show", "br", "br-eth0")
	if strings.Contains(fdb, stranger.mac.String()) {
		t.Errorf("the bridge learned a forged MAC:\n%s", fdb)
	}
}

// TestHostilePodNetwork sends to the guest from the node.
func TestHostilePodNetwork(t *testing.T) {
	t.Parallel()
	p := newHostilePod(t, podtest.Flannel, prestart.Hook{})
	vm, all, gateway := p.vm, party{broadcast, everyone}, party{stranger.mac, p.pod.Gateway}
	toServer := verdict{rule: "to_guest: ether type ip udp dport 67 counter drop"}
	toClient := verdict{rule: "to_guest: ether type ip udp dport 68 counter drop"}
	anyIP := verdict{true, "to_guest: ether type ip meta l4proto udp counter accept"}
	otherIP := verdict{true, "to_guest: ether type ip meta l4proto != udp counter accept"}
	anyARP := verdict{true, "to_guest: ether type arp counter accept"}
	back := verdict{rule: "to_guest: ether saddr " + vm.mac.String() + " counter drop"}
	others := verdict{rule: "to_guest: counter drop"}
	intoPod := verdict{rule: "input: iifname up-eth0 counter drop"}
	offer := func(name string) []byte { return udp(gateway, all, server, client, name) }

	tries := slices.Concat(strangeFrames(gateway.mac, udp(gateway, vm, anyPort, anyPort, "strange"), others), []try{
		{"to the VM", udp(gateway, vm, anyPort, anyPort, "to the VM"), anyIP},
		{"to all", udp(gateway, all, anyPort, anyPort, "to all"), anyIP},
		{"to a group", udp(gateway, party{net.HardwareAddr{1, 0, 0x5e, 0, 0, 0xfb}, netip.MustParseAddr("224.0.0.251")}, 5353, 5353, "mdns"), anyIP},
		{"a ping", podtest.EchoFrame(gateway.mac, vm.mac, gateway.ip, vm.ip), otherIP},
		{"a last fragment", fragment(udp(gateway, vm, anyPort, anyPort, "last"), 2, false), anyIP},
		{"ARP request", arp(gateway.mac, 1, gateway, vm), anyARP},
		{"ARP reply", arp(gateway.mac, 2, gateway, vm), anyARP},

		{"the VM's own broadcast", udp(vm, all, anyPort, anyPort, "hairpin"), back},
		{"DHCPOFFER", offer("offer"), toClient},
		{"DHCPACK to the VM", udp(gateway, vm, server, client, "ack"), toClient},
		{"DHCPOFFER from another port", udp(gateway, all, anyPort, client, "offer from another port"), toClient},
		{"DHCPOFFER with an option in IPv4", withOption(offer("offer with option")), toClient},
		{"first fragment of a DHCPOFFER", fragment(offer("offer in fragments"), 0, true), toClient},
		{"DHCPOFFER longer than its frame", tooLong(offer("long offer")), others},
		{"DHCPDISCOVER of another", udp(party{stranger.mac, unspecified}, all, client, server, "discover"), toServer},
		{"DHCPREQUEST of another", udp(stranger, vm, client, server, "request"), toServer},
		{"LLDP", ethernet(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 0x0e}, gateway.mac, 0x88cc, []byte("lldp")...), intoPod},
		{"to the bridge", udp(gateway, party{linkMAC(t, p.pod.Pod, "br-eth0"), vm.ip}, anyPort, anyPort, "bridge"), intoPod},
	})
	p.judgeReceived(t, tries, udp(gateway, vm, anyPort, 40001, "marker"), anyIP.rule)
}

// Without the guard everything goes that a bridge lets through, the guest's
// DHCP too.
func TestGuardOff(t *testing.T) {
	t.Parallel()
	p := newHostilePod(t, podtest.Flannel, prestart.Hook{Network: prepare.Options{NoGuard: true}})
	all, gateway, passes := party{broadcast, everyone}, party{stranger.mac, p.pod.Gateway}, verdict{passes: true}
	own := append(strangeFrames(p.vm.mac, udp(p.vm, gateway, anyPort, anyPort, "strange"), passes), []try{
		{"another's address", udp(party{p.vm.mac, stranger.ip}, gateway, anyPort, anyPort, "ip"), passes},
		{"ARP reply for the gateway", arp(p.vm.mac, 2, party{p.vm.mac, p.pod.Gateway}, gateway), passes},
		{"DHCPDISCOVER", udp(party{p.vm.mac, unspecified}, all, client, server, "discover"), passes},
		{"DHCPOFFER", udp(p.vm, all, server, client, "offer"), passes},
		{"another's MAC", udp(party{net.HardwareAddr{2, 0, 0, 0, 0, 0x98}, p.vm.ip}, all, anyPort, anyPort, "mac"), passes},
	}...)
	p.judgeSent(t, own, udp(p.vm, all, anyPort, 40001, "marker"), "")
	others := append(strangeFrames(gateway.mac, udp(gateway, p.vm, anyPort, anyPort, "strange"), passes),
		try{"DHCPOFFER", udp(gateway, all, server, client, "offer of another"), passes},
		try{"DHCPDISCOVER of another", udp(party{gateway.mac, unspecified}, all, client, server, "discover of another"), passes})
	p.judgeReceived(t, others, udp(gateway, p.vm, anyPort, 40001, "marker"), "")
	if out := p.pod.Pod.Run(t, "nft", "list", "ruleset"); out != "" {
		t.Errorf("there are rules without a guard:\n%s", out)
	}
}

// A network without addresses is the VM's own affair, but for its MAC.
func TestGuardWithoutAddresses(t *testing.T) {
	t.Parallel()
	p := newHostilePod(t, podtest.L2, prestart.Hook{})
	p.vm.ip = stranger.ip
	all, other, passes := party{broadcast, everyone}, party{stranger.mac, stranger.ip}, verdict{passes: true}
	forged := verdict{rule: "prerouting: iifname tap-eth0 ether saddr != " + p.vm.mac.String() + " counter drop"}
	p.judgeSent(t, append(strangeFrames(p.vm.mac, udp(p.vm, other, anyPort, anyPort, "strange"), passes), []try{
		{"DHCPDISCOVER", udp(party{p.vm.mac, unspecified}, all, client, server, "discover"), passes},
		{"another's MAC", udp(other, all, anyPort, anyPort, "mac"), forged},
		{"another's MAC in ARP", arp(other.mac, 2, other, p.vm), forged},
	}...), udp(p.vm, other, anyPort, 40001, "marker"), "")
	p.judgeReceived(t, []try{
		{"DHCPOFFER", udp(other, all, server, client, "offer of another"), passes},
		{"router advertisement", icmp6(other.mac, 134, "ra of another"), passes},
	}, udp(other, p.vm, anyPort, 40001, "marker"), "")
}

// A router on a network without addresses, the VM among them, gives the pod
// neither an address nor a route.
func TestPodHearsNoRouter(t *testing.T) {
	t.Parallel()
	p := newHostilePod(t, podtest.L2, prestart.Hook{})
	routes := p.pod.Pod.Run(t, "ip", "-6", "route")
	other := party{stranger.mac, stranger.ip}
	p.judgeSent(t, []try{{"router", router(p.vm.mac, "2001:db8:1::"), verdict{passes: true}}}, udp(p.vm, other, anyPort, 40001, "marker"), "")
	p.judgeReceived(t, []try{{"router", router(other.mac, "2001:db8:2::"), verdict{passes: true}}}, udp(other, p.vm, anyPort, 40001, "marker"), "")
	if now := p.pod.Pod.Run(t, "ip", "-6", "route"); now != routes {
		t.Errorf("the pod's routes were\n%sand are\n%s", routes, now)
	}
	for _, link := range []string{"br-" + p.pod.Interface, "up-" + p.pod.Interface, "tap-" + p.pod.Interface, p.pod.Interface} {
		if out := p.pod.Pod.Run(t, "ip", "-6", "addr", "show", "dev", link); out != "" {
			t.Errorf("the pod has an address:\n%s", out)
		}
	}
}

// hostilePod is a prepared pod with a guest that writes its frames itself.
type hostilePod struct {
	pod  *podtest.Pod
	hook prestart.Hook
	seat *podtest.Tap
	vm   party
}

func newHostilePod(t *testing.T, shape podtest.Shape, h prestart.Hook) hostilePod {
	t.Helper()
	pod := podtest.NewPod(t, shape)
	hook := newHook(t, pod)
	hook.Network, hook.SkipCheck = h.Network, true
	hook.Interfaces = []string{pod.Interface}
	if shape == podtest.L2 { // a secondary network, beside a pod interface with an address
		pod.Pod.IP(t, "link add net0 type veth peer name net0 netns "+pod.Node.Path(), "link set net0 up", "addr add 10.9.0.7/24 dev net0")
		hook.Interfaces = []string{"net0", pod.Interface}
	}
	session := run(t, hook)
	networks := session.Networks()
	seat, err := podtest.OpenTap(pod.Pod, networks[len(networks)-1].Tap, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = seat.Close() })
	plans, err := hook.Plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := pod.Pod.Do(func() error { return plans[len(plans)-1].WaitForwarding(t.Context()) }); err != nil {
		t.Fatal(err)
	}
	return hostilePod{pod, hook, seat, party{pod.MAC, pod.IP.Addr()}}
}

// judgeSent sends frames as the guest and looks for them on the node's end of
// the pod's link. The marker comes last and gets there, by a rule.
func (p hostilePod) judgeSent(t *testing.T, tries []try, marker []byte, rule string) {
	t.Helper()
	p.judge(t, tries, marker, rule, podtest.StartCapture(t, p.pod.Node, p.pod.NodeLink, ""), func(frame []byte) error {
		_, err := p.seat.Write(frame)
		return err
	})
}

// judgeReceived sends frames from the node and looks for them on the tap.
func (p hostilePod) judgeReceived(t *testing.T, tries []try, marker []byte, rule string) {
	t.Helper()
	p.judge(t, tries, marker, rule, podtest.StartCapture(t, p.pod.Pod, "tap-"+p.pod.Interface, ""), func(frame []byte) error {
		return podtest.SendFrames(p.pod.Node, p.pod.NodeLink, frame)
	})
}

func (p hostilePod) judge(t *testing.T, tries []try, marker []byte, rule string, capture *podtest.Capture, send func([]byte) error) {
	t.Helper()
	before := p.counters(t)
	want := map[string]uint64{rule: 1}
	for _, try := range append(tries, try{"marker", marker, verdict{true, rule}}) {
		if err := send(try.frame); err != nil {
			t.Errorf("%s: %v", try.name, err)
		}
		if try.name != "marker" {
			want[try.rule]++
		}
	}
	capture.Wait(".40001: UDP")
	seen := capture.Frames()
	for _, try := range tries {
		arrived := slices.ContainsFunc(seen, func(f []byte) bool { return bytes.Equal(f, try.frame) })
		if arrived != try.passes {
			t.Errorf("%s: arrived: %v, want %v\n%x", try.name, arrived, try.passes, try.frame)
		}
	}
	after := p.counters(t)
	for rule, n := range want {
		got := after[rule] - before[rule]
		// Nobody else sends as the guest; the node's kernel does send.
		if exact := strings.HasPrefix(rule, "from_guest"); rule != "" && (got < n || exact && got > n) {
			t.Errorf("%q counted %d frames, want %d", rule, got, n)
		}
	}
}

// counters are what status tells of the guard.
func (p hostilePod) counters(t *testing.T) map[string]uint64 {
	t.Helper()
	status, err := p.hook.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	counters := map[string]uint64{}
	for _, i := range status.Interfaces {
		if i.GuardError != "" {
			t.Error(i.GuardError)
		}
		if i.Name != p.pod.Interface {
			continue
		}
		for _, c := range i.Counters {
			counters[c.Chain+": "+c.Rule] = c.Packets
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
