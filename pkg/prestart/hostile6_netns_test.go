package prestart_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// list is what is tried in one direction.
type list struct{ tries []try }

// pass and stop add a frame.
func (l *list) pass(name string, frame []byte) {
	l.tries = append(l.tries, try{name, frame, passes})
}

func (l *list) stop(reason prepare.Reason, name string, frame []byte) {
	l.tries = append(l.tries, try{name, frame, stopped(reason)})
}

// strange adds packets with something wrong, or with tags. What has no address
// that the guard could look at is stopped for a reason of its own.
func (l *list) strange(from, to party, headless, ipv4 prepare.Reason) {
	plain := func(name string) []byte { return udp(from, to, anyPort, anyPort, name) }
	version4 := plain("version")
	version4[head6] = 0x45
	tooLong := plain("long")
	l.stop("malformed", "IPv6 of another version", version4)
	l.stop("malformed", "IPv6 longer than its frame", lengthOf(tooLong, len(tooLong)))
	l.stop(headless, "half an IPv6 header", plain("half")[:head6+20])
	l.stop(headless, "nothing but an Ethernet header", plain("none")[:head6])
	l.stop("other-protocol", "IPv6 in 802.1Q", tagged(plain("tag"), 0x8100, 7))
	l.stop("other-protocol", "IPv6 with a priority tag", tagged(plain("priority"), 0x8100, 5<<13))
	l.stop("other-protocol", "IPv6 in 802.1ad", tagged(plain("ad"), 0x88a8, 7))
	l.stop("other-protocol", "a router advertisement in 802.1Q", tagged(icmp6(from.mac, advertiseRouter, "tagged"), 0x8100, 7))
	l.stop(ipv4, "IPv6 said to be IPv4", ethernet(to.mac, from.mac, 0x0800, plain("as IPv4")[head6:]...))
	l.stop("malformed", "an extension header that ends nowhere", lengthOf(behind(plain("cut"), destinationOptions)[:head6End+1], 1))
	l.stop("malformed", "a last fragment that could be anything", fragment6(udp(from, to, anyPort, anyPort, "nobody knows what"), 16, 25, destinationOptions))
}

// routers adds what only the pod network's routers and DHCPv6 servers send, or
// what is for them, and what hides it.
func (l *list) routers(from party) {
	message := func(kind byte, content string) []byte {
		return icmp6From(from, allNodes, kind, 255, []byte("    "), bytes.Repeat([]byte(content[:1]), 24))
	}
	l.wrapped("router-solicitation", "router solicitation", message(solicitRouter, "plain"))
	l.wrapped("router-advertisement", "router advertisement", message(advertiseRouter, "plain"))
	l.wrapped(redirect, redirect, message(redirectTo, "plain"))
	for _, d := range []struct {
		name         string
		sport, dport uint16
		reason       prepare.Reason
	}{
		{"Solicit", client6, server6, "dhcp-client"},
		{"Solicit from another port", anyPort, server6, "dhcp-client"},
		{"Advertise", server6, client6, "dhcp-server"},
		{"Reply from another port", anyPort, client6, "dhcp-server"},
	} {
		l.wrapped(d.reason, d.name, udp(from, allDHCP, d.sport, d.dport, d.name))
	}
}

// wrapped adds a packet that is stopped, also behind other headers and in
// fragments. What is in the second fragment only is stopped with the first,
// whatever the second one looks like.
func (l *list) wrapped(reason prepare.Reason, name string, frame []byte) {
	l.stop(reason, name, frame)
	l.stop("other-protocol", name+" that is authenticated", behind(frame, authentication))
	for _, extension := range []byte{hopByHop, routing, fragmentation, destinationOptions} {
		l.stop(reason, fmt.Sprintf("%s behind %d", name, extension), behind(frame, extension))
	}
	l.stop(reason, name+" behind many", behind(frame, hopByHop, destinationOptions, routing, fragmentation))
	l.stop(reason, name+" in fragments", fragment6(frame, 0, 8, frame[head6+6]))
	for _, extension := range []byte{hopByHop, routing, fragmentation, destinationOptions} {
		first := fragment6(behind(frame, extension), 0, 8, extension)
		l.stop("malformed", fmt.Sprintf("%s hidden by %d", name, extension), first)
		l.stop("malformed", fmt.Sprintf("%s hidden by %d behind another", name, extension), behind(first, destinationOptions))
	}
}

// site6 is who is around a hostile pod.
type site6 struct {
	own, linkLocal, gateway party
	router                  guest.Router
	nodeGlobal              netip.Addr // the gateway's, or another of the node's
}

func (p hostilePod) site6(t *testing.T) site6 {
	t.Helper()
	plans, err := p.hook.Plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	router := *plans[0].NIC().IPv6.Router
	s := site6{
		own: party{p.pod.MAC, p.pod.IPv6.Addr()}, linkLocal: party{p.pod.MAC, netip.MustParseAddr("fe80::1234")},
		gateway: party{router.MAC.HardwareAddr(), p.pod.IPv6Gateway}, router: router, nodeGlobal: p.pod.IPv6Gateway,
	}
	if s.nodeGlobal.IsLinkLocalUnicast() {
		s.nodeGlobal = nodeIPv6
	}
	return s
}

// its adds what the guest sends, and what it may not, from one of its addresses.
func (l *list) its(s site6, from party) {
	to, nobody := s.gateway, party{from.mac, nobody6}
	ping := icmp6From(from, to, 128, 64, []byte{0, 7, 0, 1}, make([]byte, 56))
	parts := udp(from, to, anyPort, anyPort, "in several parts")
	l.pass("a datagram", udp(from, to, anyPort, anyPort, "own"))
	l.pass("a datagram to all", udp(from, allNodes, anyPort, anyPort, "all"))
	l.pass("a datagram behind options", behind(udp(from, to, anyPort, anyPort, "options"), hopByHop, destinationOptions))
	l.stop("other-protocol", "a packet that is authenticated", behind(udp(from, to, anyPort, anyPort, "AH"), authentication))
	l.pass("a datagram's first fragment", fragment6(parts, 0, 16, isUDP))
	l.pass("a datagram's last fragment", fragment6(parts, 16, 24, isUDP))
	l.fragments(from, to)
	for kind, name := range map[byte]string{130: "multicast query", 151: "multicast router's advertisement", 153: "multicast router's end"} {
		l.stop("multicast-router", name, behind(icmp6From(from, allNodes, kind, 1, make([]byte, 24)), hopByHop))
	}
	l.pass("a ping", ping)
	l.pass("a ping's first fragment", fragment6(ping, 0, 32, isICMP6))
	l.pass("a ping's last fragment", fragment6(ping, 32, 64, isICMP6))
	l.pass("packet too big", icmp6From(from, to, 2, 64, []byte{0, 0, 5, 0}, ping[head6:]))
	l.pass("a multicast report", behind(icmp6From(from, reporters, 143, 1, make([]byte, 4)), hopByHop))

	l.pass("solicitation without an option", neighbor(from, to, solicit, to.ip))
	l.pass("solicitation", neighbor(from, group(to.ip), solicit, to.ip, option(sourceMAC, from.mac)))
	l.pass("advertisement without an option", neighbor(from, to, advertise, from.ip))
	l.pass("advertisement", neighbor(from, allNodes, advertise, from.ip, option(targetMAC, from.mac)))
	l.pass("detection of duplicates", neighbor(nobody, group(from.ip), solicit, from.ip))
	l.pass("detection of duplicates with a nonce", neighbor(nobody, group(from.ip), solicit, from.ip, option(nonce, stranger.mac)))

	for name, frame := range map[string][]byte{
		"of another's MAC":                neighbor(from, group(to.ip), solicit, to.ip, option(sourceMAC, stranger.mac)),
		"with two options":                neighbor(from, group(to.ip), solicit, to.ip, option(sourceMAC, from.mac), option(sourceMAC, stranger.mac)),
		"behind options":                  behind(neighbor(from, group(to.ip), solicit, to.ip), hopByHop),
		"in a fragment":                   behind(neighbor(from, group(to.ip), solicit, to.ip), fragmentation),
		"of a MAC, from no address":       neighbor(nobody, group(from.ip), solicit, from.ip, option(sourceMAC, stranger.mac)),
		"with a MAC after a nonce":        neighbor(nobody, group(from.ip), solicit, from.ip, option(nonce, from.mac), option(sourceMAC, stranger.mac)),
		"behind options, from no address": behind(neighbor(nobody, group(from.ip), solicit, from.ip), destinationOptions),
	} {
		l.stop("forged-nd", "solicitation "+name, frame)
	}
	for name, frame := range map[string][]byte{
		"of another's MAC":    neighbor(from, allNodes, advertise, from.ip, option(targetMAC, stranger.mac)),
		"with two options":    neighbor(from, allNodes, advertise, from.ip, option(targetMAC, from.mac), option(targetMAC, stranger.mac)),
		"with another option": neighbor(from, allNodes, advertise, from.ip, option(prefixOption, from.mac)),
		"behind options":      behind(neighbor(from, to, advertise, from.ip), destinationOptions),
		"in a fragment":       behind(neighbor(from, to, advertise, from.ip), fragmentation),
		"for the gateway":     neighbor(from, allNodes, advertise, s.nodeGlobal, option(targetMAC, from.mac)),
		"for another":         neighbor(from, allNodes, advertise, stranger6.ip, option(targetMAC, from.mac)),
	} {
		l.stop("forged-nd", "advertisement "+name, frame)
	}
	l.stop("forged-nd", "advertisement for the router", neighbor(from, allNodes, advertise, s.router.LinkLocal, option(targetMAC, from.mac)))
	l.routers(from)
}

// fragments adds later fragments that pass whatever they and their headers look
// like, and first ones that have neither ports nor a type.
func (l *list) fragments(from, to party) {
	for _, port := range []byte{client6 & 0xff, server6 & 0xff} {
		label := fragment6(udp(from, to, anyPort, anyPort, "a flow like DHCPv6"), 16, 24, isUDP)
		label[head6+2], label[head6+3] = client6>>8, port
		l.pass("a last fragment whose flow label is like a port", label)
		l.pass("a last fragment like DHCPv6", fragment6(packet6(from, to, isUDP, 64, slices.Concat(make([]byte, 16), []byte{0x9c, 0x40, client6 >> 8, port}, make([]byte, 4))), 16, 24, isUDP))
	}
	for length := range 4 {
		l.stop("malformed", "a first fragment without ports", firstFragment6(from, to, isUDP, []byte{0x9c, 0x40, 2, 0x22}[:length]...))
	}
	l.stop("malformed", "a first fragment without a type", firstFragment6(from, to, isICMP6))
}

// firstFragment6 is a first fragment with a few bytes, of more to come.
func firstFragment6(from, to party, next byte, payload ...byte) []byte {
	whole := packet6(from, to, 59, 64, append(slices.Clone(payload), make([]byte, 16)...))
	return fragment6(whole, 0, len(payload), next)
}

// others adds what the guest sends in others' names.
func (l *list) others(s site6) {
	mac, router := s.own.mac, s.router.LinkLocal
	nobody, other, asRouter := party{mac, nobody6}, party{mac, stranger6.ip}, party{mac, router}
	for name, from := range map[string]netip.Addr{
		"another's address": stranger6.ip, "the gateway's address": s.nodeGlobal, "no address": nobody6, "the loopback": netip.IPv6Loopback(),
		"a group": allNodes.ip, "another prefix of its own address": netip.MustParseAddr("fe81::2"), "IPv4": netip.MustParseAddr("::ffff:10.244.0.2"),
	} {
		l.stop("forged-ip", "a datagram from "+name, udp(party{mac, from}, stranger6, anyPort, anyPort, "forged"))
		l.stop("forged-ip", "a ping from "+name, icmp6From(party{mac, from}, stranger6, 128, 64, []byte{0, 7, 0, 1}))
		l.stop("forged-ip", "TCP from "+name, packet6(party{mac, from}, stranger6, isTCP, 64, make([]byte, 20)))
	}
	l.stop("forged-ip", "a fragment from another's address", fragment6(udp(other, s.gateway, anyPort, anyPort, "another's fragment"), 16, 26, isUDP))
	l.stop("forged-ip", "a datagram from the router's address", udp(asRouter, stranger6, anyPort, anyPort, "router"))
	l.stop("forged-ip", "a solicitation from the router's address", neighbor(asRouter, group(stranger6.ip), solicit, stranger6.ip, option(sourceMAC, mac)))
	l.stop("forged-ip", "an advertisement from the router's address", neighbor(asRouter, allNodes, advertise, router, option(targetMAC, mac)))
	l.stop("forged-ip", "a router advertisement from the router's address", icmp6From(asRouter, allNodes, advertiseRouter, 255, make([]byte, 12)))
	l.stop("forged-nd", "detection of duplicates of the router's", neighbor(nobody, group(router), solicit, router))
	l.stop("forged-nd", "detection of duplicates of the gateway's", neighbor(nobody, group(s.nodeGlobal), solicit, s.nodeGlobal))
	l.stop("forged-nd", "detection of duplicates of another's", neighbor(nobody, group(stranger6.ip), solicit, stranger6.ip))
	l.stop("forged-ip", "a solicitation in another's name", neighbor(other, group(s.gateway.ip), solicit, s.gateway.ip, option(sourceMAC, mac)))
	l.stop("forged-ip", "an advertisement in another's name", neighbor(other, allNodes, advertise, s.own.ip, option(targetMAC, mac)))
	l.stop("dhcp-server", "DHCPv6 to another port", udp(s.own, s.gateway, server6, anyPort, "odd port"))
	forged := stopped("forged-mac")
	for _, from := range []party{s.own, s.linkLocal} {
		from.mac = stranger.mac
		l.tries = append(l.tries,
			try{"another's MAC", udp(from, s.gateway, anyPort, anyPort, "mac"), forged},
			try{"advertisement from another's MAC", neighbor(from, allNodes, advertise, from.ip, option(targetMAC, from.mac)), forged},
			try{"solicitation from another's MAC", neighbor(from, group(s.gateway.ip), solicit, s.gateway.ip, option(sourceMAC, from.mac)), forged})
	}
}

// TestHostileGuestIPv6 is TestHostileGuest for IPv6.
func TestHostileGuestIPv6(t *testing.T) {
	t.Parallel()
	overDatapaths(t, hostileGuestIPv6)
}

func hostileGuestIPv6(t *testing.T, datapath string) {
	for _, shape := range []podtest.Shape{podtest.KindnetDual, podtest.CalicoDual} {
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			p := newHostilePod(t, shape, prestart.Hook{Network: prepare.Options{Datapath: datapath}})
			s, l := p.site6(t), list{}
			l.its(s, s.own)
			l.its(s, s.linkLocal)
			for _, c := range []struct{ from, of party }{{s.own, s.linkLocal}, {s.linkLocal, s.own}} {
				l.pass("advertisement of its other address", neighbor(c.from, s.gateway, advertise, c.of.ip))
				l.pass("advertisement of its other address", neighbor(c.from, s.gateway, advertise, c.of.ip, option(targetMAC, c.from.mac)))
			}
			l.others(s)
			l.strange(s.own, s.gateway, "forged-ip", "forged-ip")
			segment := packet6(s.own, s.gateway, isTCP, 64, append([]byte{0x9c, 0x40, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0x50}, make([]byte, 7)...))
			l.pass("TCP", segment)
			l.pass("TCP behind options", behind(segment, destinationOptions))
			l.pass("a multicast report from no address", behind(icmp6From(party{s.own.mac, nobody6}, reporters, 143, 1, make([]byte, 4)), hopByHop))
			p.judgeSent(t, l.tries, udp(s.own, s.gateway, anyPort, 40001, "marker"))
		})
	}
}

// TestHostilePodNetworkIPv6 is TestHostilePodNetwork for IPv6.
func TestHostilePodNetworkIPv6(t *testing.T) {
	t.Parallel()
	overDatapaths(t, hostilePodNetworkIPv6)
}

func hostilePodNetworkIPv6(t *testing.T, datapath string) {
	for _, shape := range []podtest.Shape{podtest.KindnetDual, podtest.CalicoDual} {
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			p := newHostilePod(t, shape, prestart.Hook{Network: prepare.Options{Datapath: datapath}})
			s, l := p.site6(t), list{}
			vm, from := s.own, party{s.gateway.mac, s.router.LinkLocal}
			ping := icmp6From(stranger6, vm, 128, 64, []byte{0, 7, 0, 1}, make([]byte, 56))
			l.pass("a datagram", udp(stranger6, vm, anyPort, anyPort, "to the VM"))
			l.pass("to the VM's Service, returned", udp(party{vm.mac, stranger6.ip}, vm, anyPort, anyPort, "Service"))
			l.pass("a last fragment", fragment6(udp(stranger6, vm, anyPort, anyPort, "in several parts"), 16, 24, isUDP))
			l.pass("a ping", ping)
			l.pass("a ping's first fragment", fragment6(ping, 0, 32, isICMP6))
			l.pass("a ping's last fragment", fragment6(ping, 32, 64, isICMP6))
			l.pass("packet too big", icmp6From(from, vm, 2, 64, []byte{0, 0, 5, 0}, ping[head6:]))
			l.pass("solicitation", neighbor(from, group(vm.ip), solicit, vm.ip, option(sourceMAC, from.mac)))
			l.pass("advertisement", neighbor(from, vm, advertise, from.ip, option(targetMAC, from.mac)))
			l.pass("multicast query", behind(icmp6From(from, allNodes, 130, 1, make([]byte, 24)), hopByHop))
			l.pass("TCP", packet6(stranger6, vm, isTCP, 64, append(make([]byte, 12), 0x50, 0, 0, 0, 0, 0, 0, 0)))
			l.routers(from)
			l.fragments(from, vm)
			noAddress := prepare.Reason("malformed")
			if datapath == redirect { // what is to none of the VM's addresses is the pod's
				noAddress = ""
			}
			l.strange(stranger6, vm, noAddress, noAddress)
			l.tries = append(l.tries, try{"the VM's own", udp(vm, allNodes, anyPort, anyPort, "hairpin"), stopped("own-mac")})
			p.judgeReceived(t, l.tries, udp(stranger6, vm, anyPort, 40001, "marker"))
		})
	}
}

// The kernel answers for a router that is the pod's permanent neighbor, and for nobody
// else; nobody but the VM is answered.
func TestRouterIsAnsweredFor(t *testing.T) {
	t.Parallel()
	p := newHostilePod(t, podtest.AWSIPv6, prestart.Hook{})
	s := p.site6(t)
	router := party{s.gateway.mac, s.router.LinkLocal}
	capture := podtest.StartCapture(t, p.pod.Node, p.pod.NodeLink, "")
	for _, from := range []party{s.own, s.linkLocal} {
		answer := neighbor(router, from, advertise, router.ip)
		answerMAC := neighbor(router, from, advertise, router.ip, option(targetMAC, router.mac))
		for name, c := range map[string]struct{ question, want []byte }{
			"to the group":                     {neighbor(from, group(router.ip), solicit, router.ip, option(sourceMAC, from.mac)), answerMAC},
			"to the router, with an option":    {neighbor(from, router, solicit, router.ip, option(sourceMAC, from.mac)), answerMAC},
			"to the router, without an option": {neighbor(from, router, solicit, router.ip), answer},
		} {
			fromRouter(c.want)
			p.send(t, c.question)
			if got := p.receive(t, isAdvertisement); !bytes.Equal(got, c.want) {
				t.Errorf("%s, from %s: the answer is\n%x, want\n%x", name, from.ip, got, c.want)
			}
		}
	}
	other := party{stranger.mac, netip.MustParseAddr("fe80::99")}
	passedOn := icmp6From(s.own, router, solicit, 254, make([]byte, 4), router.ip.AsSlice())
	for name, question := range map[string][]byte{
		"with hop limit 254":             passedOn,
		"from another MAC":               neighbor(other, group(router.ip), solicit, router.ip, option(sourceMAC, other.mac)),
		"from another MAC to the router": neighbor(other, router, solicit, router.ip),
		"with another's MAC":             neighbor(s.own, group(router.ip), solicit, router.ip, option(sourceMAC, other.mac)),
		"with two options":               neighbor(s.own, router, solicit, router.ip, option(sourceMAC, s.own.mac), option(sourceMAC, s.own.mac)),
		"behind options":                 behind(neighbor(s.own, router, solicit, router.ip), destinationOptions),
		"in 802.1Q":                      tagged(neighbor(s.own, router, solicit, router.ip), 0x8100, 7),
		"from no address":                neighbor(party{s.own.mac, nobody6}, group(router.ip), solicit, router.ip),
		"for another":                    neighbor(s.own, group(stranger6.ip), solicit, stranger6.ip, option(sourceMAC, s.own.mac)),
	} {
		p.send(t, question)
		// The answer to what comes next shows that there was none before.
		p.send(t, neighbor(s.linkLocal, router, solicit, router.ip))
		want := neighbor(router, s.linkLocal, advertise, router.ip)
		fromRouter(want)
		if got := p.receive(t, isAdvertisement); !bytes.Equal(got, want) {
			t.Errorf("%s: answered with\n%x", name, got)
		}
	}
	p.send(t, udp(s.own, s.gateway, anyPort, 40001, "marker"))
	capture.Wait(".40001: UDP")
	for _, frame := range capture.Frames() {
		if isNeighborMessage(frame, solicit) && bytes.Equal(frame[6:12], s.own.mac) && !bytes.Equal(frame, passedOn) && bytes.Contains(frame[head6End:], router.ip.AsSlice()) {
			t.Errorf("the node saw what is answered in the pod: %x", frame)
		}
	}
}

// fromRouter has an advertisement say that it is a router's, and makes its
// checksum right.
func fromRouter(frame []byte) {
	frame[head6End+4] |= 0x80
	made := packet6(party{frame[6:12], netip.AddrFrom16([16]byte(frame[head6+8:]))}, party{frame[:6], netip.AddrFrom16([16]byte(frame[head6+24:]))}, isICMP6, 255, frame[head6End:])
	copy(frame, made)
}

func isNeighborMessage(frame []byte, kind byte) bool {
	return len(frame) >= head6End+24 && bytes.Equal(frame[12:14], []byte{0x86, 0xdd}) && frame[head6+6] == isICMP6 && frame[head6End] == kind
}

func isAdvertisement(frame []byte) bool { return isNeighborMessage(frame, advertise) }

func (p hostilePod) send(t *testing.T, frame []byte) {
	t.Helper()
	if _, err := p.tap.Write(frame); err != nil {
		t.Fatal(err)
	}
}

// receive reads frames until one is wanted; nil: none came.
func (p hostilePod) receive(t *testing.T, wanted func([]byte) bool) []byte {
	t.Helper()
	if err := p.tap.SetReadDeadline(time.Now().Add(podtest.Patience)); err != nil {
		t.Fatal(err)
	}
	for {
		frame := make([]byte, 2048)
		n, err := p.tap.Read(frame)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			t.Fatal(err)
		}
		if wanted(frame[:n]) {
			return frame[:n]
		}
	}
}
