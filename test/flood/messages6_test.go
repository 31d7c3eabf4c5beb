package flood_test

import (
	"net/netip"
	"slices"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// messageHead is what comes before a message's options (RFC 8415 §8).
const messageHead = 4

const (
	solicit = dhcpv6.MessageTypeSolicit
	request = dhcpv6.MessageTypeRequest
	renew   = dhcpv6.MessageTypeRenew
	rebind  = dhcpv6.MessageTypeRebind
	confirm = dhcpv6.MessageTypeConfirm
	release = dhcpv6.MessageTypeRelease
	decline = dhcpv6.MessageTypeDecline
	inform  = dhcpv6.MessageTypeInformationRequest
)

// messages are all the ways to speak DHCPv6, in good frames. There is no Decline
// of the guest's own address among them: who declines waits, and is to.
func (h hostile6) messages() kinds {
	return kinds{
		"solicit":             func() []byte { return h.any(solicit, h.na()) },
		"rapid solicit":       func() []byte { return h.any(solicit, h.na(), option6(dhcpv6.OptionRapidCommit)) },
		"request":             func() []byte { return h.frame(h.request()) },
		"renew":               func() []byte { return h.ours(renew, h.na(h.address)) },
		"rebind":              func() []byte { return h.any(rebind, h.na(h.address)) },
		"confirm":             func() []byte { return h.any(confirm, h.na(h.address)) },
		"release":             func() []byte { return h.ours(release, h.na(h.address)) },
		"information-request": func() []byte { return h.any(inform) },

		"stale request":   func() []byte { return h.ours(request, h.na(h.ip())) },
		"stale renew":     func() []byte { return h.ours(renew, h.na(h.ip(), h.ip())) },
		"stale confirm":   func() []byte { return h.any(confirm, h.na(h.ip())) },
		"stale decline":   func() []byte { return h.ours(decline, h.na(h.ip())) },
		"empty confirm":   func() []byte { return h.any(confirm, h.na()) },
		"other server":    func() []byte { return h.any(request, h.na(), option6(dhcpv6.OptionServerID, h.bytes(18)...)) },
		"server too much": func() []byte { return h.ours(solicit, h.na()) },
		"other client":    func() []byte { return h.client(3 + h.random.IntN(128)) },
		"long client":     func() []byte { return h.client(131 + h.random.IntN(500)) },
		"no client":       func() []byte { m := h.request(); m.Options.Del(dhcpv6.OptionClientID); return h.frame(m) },
		"two clients":     func() []byte { return h.any(solicit, h.na(), option6(dhcpv6.OptionClientID, h.bytes(10)...)) },
		"server's type":   func() []byte { return h.ours([]dhcpv6.MessageType{2, 7, 10}[h.random.IntN(3)], h.na()) },
		"unknown type":    func() []byte { return h.any(dhcpv6.MessageType(14+h.random.IntN(242)), h.na()) },
		"relay-forward":   func() []byte { return h.relayed(dhcpv6.MessageTypeRelayForward) },
		"relay-reply":     func() []byte { return h.relayed(dhcpv6.MessageTypeRelayReply) },

		"all associations": func() []byte { return h.ours(request, h.na(), &dhcpv6.OptIATA{}, &dhcpv6.OptIAPD{}) },
		"associations":     func() []byte { return h.ours(request, slices.Repeat(dhcpv6.Options{h.na()}, h.random.IntN(60))...) },
		"addresses": func() []byte {
			return h.ours(renew, h.na(slices.Repeat([]netip.Addr{h.address}, h.random.IntN(40))...))
		},
		"codes": func() []byte {
			return h.any(solicit, h.na(), option6(dhcpv6.OptionORO, h.bytes(h.random.IntN(1000))...))
		},
		"nested": func() []byte { return h.any(solicit, nested(h.random.IntN(60))) },

		"solicit to a server": func() []byte { return h.sent(linkLocal, h.router, h.message(solicit, h.na())) },
		"request to a server": func() []byte { return h.sent(linkLocal, h.router, h.request()) },
		"inform to another":   func() []byte { return h.sent(linkLocal, h.ip(), h.message(inform)) },
		"from another port":   func() []byte { return h.datagram(uint16(h.random.IntN(1<<16)), server6, h.request().ToBytes()) },
		"to another port":     func() []byte { return h.datagram(client6, client6, h.request().ToBytes()) },
		"bad UDP length":      h.badLength,
	}
}

// message is one of the guest, who says of itself what it likes.
func (h hostile6) message(typ dhcpv6.MessageType, options ...dhcpv6.Option) *dhcpv6.Message {
	m := message6(h.mac, typ, options...)
	m.TransactionID = dhcpv6.TransactionID(h.bytes(3))
	m.Options.Add(option6(dhcpv6.OptionFQDN, h.bytes(h.random.IntN(100))...))
	m.Options.Add(option6(dhcpv6.OptionVendorClass, h.bytes(h.random.IntN(100))...))
	return m
}

// request is one for the guest's address.
func (h hostile6) request() *dhcpv6.Message {
	return h.message(request, h.server(), h.na(h.address))
}

// any is a message for whichever server in a frame, ours one for ours.
func (h hostile6) any(typ dhcpv6.MessageType, options ...dhcpv6.Option) []byte {
	return h.frame(h.message(typ, options...))
}

func (h hostile6) ours(typ dhcpv6.MessageType, options ...dhcpv6.Option) []byte {
	return h.any(typ, append([]dhcpv6.Option{h.server()}, options...)...)
}

// client is a request of who has an identifier of n bytes.
func (h hostile6) client(n int) []byte {
	m := h.request()
	m.Options.Update(option6(dhcpv6.OptionClientID, h.bytes(n)...))
	return h.frame(m)
}

func (h hostile6) relayed(typ dhcpv6.MessageType) []byte {
	m := &dhcpv6.RelayMessage{MessageType: typ, LinkAddr: h.ip().AsSlice(), PeerAddr: linkLocal.AsSlice()}
	m.AddOption(dhcpv6.OptRelayMessage(h.request()))
	return h.datagram(client6, server6, m.ToBytes())
}

func (h hostile6) server() dhcpv6.Option { return option6(dhcpv6.OptionServerID, h.serverID...) }

// na is an identity association with addresses.
func (h hostile6) na(addresses ...netip.Addr) dhcpv6.Option {
	ia := &dhcpv6.OptIANA{IaId: [4]byte(h.bytes(4))}
	for _, a := range addresses {
		ia.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: a.AsSlice()})
	}
	return ia
}

// nested is an identity association in another, n times.
func nested(n int) dhcpv6.Option {
	ia := &dhcpv6.OptIANA{}
	for range n {
		ia = &dhcpv6.OptIANA{Options: dhcpv6.IdentityOptions{Options: dhcpv6.Options{ia}}}
	}
	return ia
}

func (h hostile6) frame(m *dhcpv6.Message) []byte { return h.datagram(client6, server6, m.ToBytes()) }

func (h hostile6) datagram(from, to uint16, message []byte) []byte {
	return datagram6(h.mac, netip.AddrPortFrom(linkLocal, from), netip.AddrPortFrom(allServers, to), message)
}

func (h hostile6) sent(from, to netip.Addr, m *dhcpv6.Message) []byte {
	return datagram6(h.mac, netip.AddrPortFrom(from, client6), netip.AddrPortFrom(to, server6), m.ToBytes())
}

// badLength has a datagram say another length, with the checksum that fits.
func (h hostile6) badLength() []byte {
	udp := h.flip(h.frame(h.request())[payload6At:], 4)
	return podtest.IPv6Frame(h.mac, groupMAC(allServers), linkLocal, allServers, unix.IPPROTO_UDP, 64, udp)
}
