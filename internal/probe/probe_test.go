package probe

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv6"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
)

// offer is a server's message of DHCPv4 as a frame.
func offer(change func(*packet.UDP)) []byte {
	m := &dhcpv4.DHCPv4{OpCode: dhcpv4.OpcodeBootReply, HWType: 1, ClientHWAddr: guestMAC[:]}
	m.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeOffer))
	frame := append(make([]byte, packet.UDP4Len), m.ToBytes()...)
	u := packet.UDP{DstMAC: guestMAC, Src: netip.MustParseAddrPort("10.0.0.1:67"), Dst: netip.MustParseAddrPort("10.0.0.7:68")}
	change(&u)
	packet.SealUDP4(frame, u)
	return frame
}

// advertise is a server's message of DHCPv6 as a frame.
func advertise(typ dhcpv6.MessageType, change func(*packet.UDP)) []byte {
	m := &dhcpv6.Message{MessageType: typ}
	frame := append(make([]byte, packet.UDP6Len), m.ToBytes()...)
	u := packet.UDP{DstMAC: guestMAC, Src: netip.AddrPortFrom(router, server6), Dst: netip.AddrPortFrom(guestLocal, client6)}
	change(&u)
	packet.SealUDP6(frame, u)
	return frame
}

func same(*packet.UDP) {}

func toServer(u *packet.UDP) { u.Src, u.Dst = u.Dst, u.Src }

func TestParseDHCP(t *testing.T) {
	if m, err := ParseDHCP(offer(same)); err != nil || m.MessageType() != dhcpv4.MessageTypeOffer {
		t.Errorf("got %v, %v", m, err)
	}
	for name, b := range map[string][]byte{
		"question": Discover(guestMAC, dhcpv4.TransactionID{1}), "garbage": []byte("garbage"), "cut": offer(same)[:200],
		"to a server": offer(toServer), "empty": nil,
	} {
		if _, err := ParseDHCP(b); !errors.Is(err, ErrNoAnswer) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestParseDHCPv6(t *testing.T) {
	for _, typ := range []dhcpv6.MessageType{dhcpv6.MessageTypeAdvertise, dhcpv6.MessageTypeReply} {
		if m, err := ParseDHCPv6(advertise(typ, same)); err != nil || m.MessageType != typ {
			t.Errorf("got %v, %v", m, err)
		}
	}
	for name, b := range map[string][]byte{
		"question": Solicit(guestMAC, dhcpv6.TransactionID{1}), "garbage": []byte("garbage"), "cut": Solicit(guestMAC, dhcpv6.TransactionID{1})[:70],
		"to a server": advertise(dhcpv6.MessageTypeReply, toServer), "a request": advertise(dhcpv6.MessageTypeRequest, same), "empty": nil,
	} {
		if _, err := ParseDHCPv6(b); !errors.Is(err, ErrNoAnswer) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// FuzzDHCP: whatever comes from the network, a check goes on.
func FuzzDHCP(f *testing.F) {
	f.Add(offer(same)[packet.UDP4Len:])
	f.Add(advertise(dhcpv6.MessageTypeReply, same)[packet.UDP6Len:])
	f.Add(Solicit(guestMAC, dhcpv6.TransactionID{1})[packet.UDP6Len:])
	f.Fuzz(func(_ *testing.T, b []byte) {
		four := append(offer(same)[:packet.UDP4Len], b...)
		packet.SealUDP4(four, packet.UDP{Src: netip.MustParseAddrPort("10.0.0.1:67"), Dst: netip.MustParseAddrPort("10.0.0.7:68")})
		if m, err := ParseDHCP(four); err == nil {
			_ = m.MessageType()
		}
		six := append(advertise(dhcpv6.MessageTypeReply, same)[:packet.UDP6Len], b...)
		packet.SealUDP6(six, packet.UDP{Src: netip.AddrPortFrom(router, server6), Dst: netip.AddrPortFrom(guestLocal, client6)})
		if m, err := ParseDHCPv6(six); err == nil && m.Options.OneIANA() != nil {
			_ = m.Options.OneIANA().Options.OneAddress()
		}
	})
}
