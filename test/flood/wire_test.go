package flood_test

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

const (
	// again is when a question is asked again: sooner than real clients do, so
	// that the time until the answer is the server's.
	again = 100 * time.Millisecond
	// giveUp is when there is no answer.
	giveUp = 30 * time.Second
)

// decent is such a guest's link-local address: what is sent there answers nothing
// of the flood's.
var decent = netip.MustParseAddr("fe80::5678")

// seat6 is a decent guest of IPv6 without a system.
type seat6 struct {
	podtest.NIC
	s *server
}

func (s *server) sit6(t *testing.T) seat6 {
	t.Helper()
	return seat6{podtest.NewNIC(t, s.pod.NS, s.tap), s}
}

// raw6 seats such a guest, which must get its lease and its router at once.
func (s *server) raw6(t *testing.T) {
	t.Helper()
	g := s.sit6(t)
	defer g.Close()
	start := time.Now()
	offer := g.ask(t, solicit, &dhcpv6.OptIANA{})
	reply := g.ask(t, request, dhcpv6.OptServerID(offer.Options.ServerID()), offer.Options.OneIANA())
	leased := time.Since(start)
	g.askRouter(t)
	advertised := time.Since(start)
	t.Logf("on the wire a lease after %v, a router after %v", leased.Round(time.Millisecond), advertised.Round(time.Millisecond))

	if got := addressIn(reply); got != s.pod.IPv6.Addr() {
		t.Errorf("the client got %v, want %v", got, s.pod.IPv6.Addr())
	}
	if leased > patience || advertised > routerPatience {
		t.Errorf("the lease took %v, the router %v", leased, advertised)
	}
}

// serverID asks for the server's identifier.
func (s *server) serverID(t *testing.T) []byte {
	t.Helper()
	g := s.sit6(t)
	defer g.Close()
	return g.ask(t, solicit, &dhcpv6.OptIANA{}).Options.ServerID().ToBytes()
}

// ask sends a DHCPv6 message and returns the answer.
func (g seat6) ask(t *testing.T, typ dhcpv6.MessageType, options ...dhcpv6.Option) (answer *dhcpv6.Message) {
	t.Helper()
	m := message6(g.s.mac, typ, options...)
	m.TransactionID = dhcpv6.TransactionID{0, 0, byte(typ)}
	frame := datagram6(g.s.mac, netip.AddrPortFrom(decent, client6), netip.AddrPortFrom(allServers, server6), m.ToBytes())
	g.exchange(t, frame, func(got []byte) bool {
		const udpAt, messageAt = payload6At, payload6At + podtest.UDPLen
		if !isIPv6(got, unix.IPPROTO_UDP) || len(got) < messageAt || binary.BigEndian.Uint16(got[udpAt+2:]) != client6 {
			return false
		}
		var err error
		answer, err = dhcpv6.MessageFromBytes(got[messageAt:])
		return err == nil && answer.TransactionID == m.TransactionID
	})
	return answer
}

// askRouter solicits an advertisement of the pod's router that sends the guest to
// DHCPv6.
func (g seat6) askRouter(t *testing.T) {
	t.Helper()
	const advertisement, flagsAt, managed = 134, payload6At + 5, 0x80 // RFC 4861 §4.2
	frame := solicitation6(g.s.mac, decent, allRouters, make([]byte, solicitationHead))
	g.exchange(t, frame, func(got []byte) bool {
		return isIPv6(got, unix.IPPROTO_ICMPV6) && len(got) > flagsAt && got[payload6At] == advertisement && got[flagsAt]&managed != 0 &&
			netip.AddrFrom16([16]byte(got[ip6At+8:])) == g.s.pod.IPv6Gateway && netip.AddrFrom16([16]byte(got[ip6At+24:])) == decent
	})
}

// exchange sends a frame, again and again, until the answer is there.
func (g seat6) exchange(t *testing.T, frame []byte, isAnswer func([]byte) bool) {
	t.Helper()
	for start := time.Now(); time.Since(start) < giveUp; {
		g.Send(frame)
		if g.Receive(again, isAnswer) != nil {
			return
		}
	}
	t.Fatalf("no answer within %v to %x\n%s", giveUp, frame, g.s.log())
}

func isIPv6(frame []byte, protocol byte) bool {
	return len(frame) > payload6At && binary.BigEndian.Uint16(frame[12:]) == unix.ETH_P_IPV6 && frame[ip6At+6] == protocol
}

// addressIn is the address that a reply gives; invalid: none.
func addressIn(reply *dhcpv6.Message) (got netip.Addr) {
	if ia := reply.Options.OneIANA(); ia != nil && ia.Options.OneAddress() != nil {
		got, _ = netip.AddrFromSlice(ia.Options.OneAddress().IPv6Addr)
	}
	return got
}
