package dhcp

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// Sizes and offsets within a DHCP message (RFC 2131 §2), in bytes.
const (
	chaddrAt  = 28
	snameAt   = 44
	fileAt    = 108
	cookieAt  = 236
	optionsAt = 240

	minMessage = 300 // RFC 951; shorter ones are dropped by some
	// minDatagram is what every client takes (RFC 2131 §2), headers of IP and
	// UDP included.
	minDatagram = 576
	// maxDatagram is what we send at most, whatever the guest would take.
	maxDatagram = 1500
)

var cookie = [4]byte{99, 130, 83, 99}

// parseMessage reads of a DHCP message what a server needs, with which the result
// shares memory: not what a client has in secs, hops, sname and file.
// Options that overflow into the fields sname and file are read from there too,
// file first (RFC 2131 §4.1, RFC 3396 §5).
//
// It forgives what does no harm and some clients send: no end of the options,
// and anything behind it.
func parseMessage(b []byte) (*dhcpv4.DHCPv4, error) {
	if len(b) < optionsAt || [4]byte(b[cookieAt:]) != cookie || int(b[2]) > snameAt-chaddrAt {
		return nil, lease.DropMalformed
	}
	m := &dhcpv4.DHCPv4{
		OpCode:        dhcpv4.OpcodeType(b[0]),
		HWType:        iana.HWType(b[1]),
		TransactionID: dhcpv4.TransactionID(b[4:8]),
		Flags:         binary.BigEndian.Uint16(b[10:]),
		ClientIPAddr:  b[12:16:16],
		YourIPAddr:    b[16:20:20],
		ServerIPAddr:  b[20:24:24],
		GatewayIPAddr: b[24:28:28],
		ClientHWAddr:  b[chaddrAt : chaddrAt+int(b[2])],
		Options:       make(dhcpv4.Options),
	}
	if err := readOptions(m.Options, b[optionsAt:]); err != nil {
		return nil, err
	}
	var used byte
	if overload := m.Options[optOverload]; len(overload) == 1 {
		used = overload[0]
	}
	if used&1 != 0 {
		if err := readOptions(m.Options, b[fileAt:cookieAt]); err != nil {
			return nil, err
		}
	}
	if used&2 != 0 {
		if err := readOptions(m.Options, b[snameAt:fileAt]); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// readOptions reads the options of one field. The parts of one that comes more
// than once make one value (RFC 3396 §7).
func readOptions(options dhcpv4.Options, b []byte) error {
	for len(b) > 0 {
		code := b[0]
		if code == optEnd {
			return nil
		}
		if code == optPad {
			b = b[1:]
			continue
		}
		if len(b) < 2 || len(b)-2 < int(b[1]) {
			return lease.DropMalformed
		}
		end := 2 + int(b[1])
		value := b[2:end:end]
		if part, ok := options[code]; ok {
			value = append(part, value...)
		}
		options[code] = value
		b = b[end:]
	}
	return nil
}

// maxMessage is how many bytes a reply to req may have: what the guest says it
// takes (option 57, a datagram's size), at least what each client must take, at
// most what the link carries.
func maxMessage(req *dhcpv4.DHCPv4, mtu int) int {
	size := minDatagram
	if v := req.Options[optMaxMessageSize]; len(v) == 2 {
		size = max(size, int(binary.BigEndian.Uint16(v)))
	}
	return max(min(size, mtu, maxDatagram)-(packet.UDP4Len-packet.EthernetLen), minMessage)
}

// firstOptions go first and in this order; among them the mask goes before the
// router (RFC 2132 §3.3).
var firstOptions = [...]byte{
	optMessageType, optServerID, optLeaseTime, optRenewal, optRebinding, optClientID,
	optSubnetMask, optRoutes, optRouter,
}

// appendMessage appends m to b in at most limit bytes, and returns the codes of
// the options for which there was no room.
//
// The order of the options is the same for the same request: the first ones,
// then those of the client's list in its order, then the others by code. Where
// they do not fit, the fields file and sname take some, if they are free
// (option 52). Those longer than 255 bytes are sent in several parts (RFC 3396).
func appendMessage(b []byte, m *dhcpv4.DHCPv4, list []byte, limit int) ([]byte, []uint8) {
	at := len(b)
	b = appendHeader(b, m)
	order := inOrder(m.Options, list)

	p := packer{b: b[at:]}
	p.open(limit, false, m)
	left := p.putAll(m.Options, order)
	if len(left) > 0 && (m.BootFileName == "" || m.ServerHostName == "") {
		p = packer{b: b[at:]}
		p.open(limit, true, m)
		left = p.putAll(m.Options, order)
	}
	return append(b[:at], p.close()...), left
}

func appendHeader(b []byte, m *dhcpv4.DHCPv4) []byte {
	at := len(b)
	b = append(b, make([]byte, optionsAt)...)
	h := b[at:]
	h[0], h[1], h[2] = byte(m.OpCode), byte(m.HWType), byte(len(m.ClientHWAddr))
	copy(h[4:8], m.TransactionID[:])
	binary.BigEndian.PutUint16(h[10:], m.Flags)
	for i, ip := range [...]net.IP{m.ClientIPAddr, m.YourIPAddr, m.ServerIPAddr, m.GatewayIPAddr} {
		copy(h[12+4*i:16+4*i], ip.To4())
	}
	copy(h[chaddrAt:snameAt], m.ClientHWAddr)
	copy(h[snameAt:fileAt-1], m.ServerHostName)
	copy(h[fileAt:cookieAt-1], m.BootFileName)
	copy(h[cookieAt:], cookie[:])
	return b
}

// inOrder lists the codes of options in the order in which they are sent. Routes that
// the client does not ask for, of which there may be many, take no room from what it
// does ask for.
func inOrder(options dhcpv4.Options, list []byte) []byte {
	var buf [256]byte
	order := buf[:0]
	var pending [256]bool
	for code := range options {
		pending[code] = true
	}
	take := func(code byte) {
		if pending[code] {
			pending[code] = false
			order = append(order, code)
		}
	}
	for _, code := range firstOptions {
		if code != optRoutes || len(list) == 0 || slices.Contains(list, optRoutes) {
			take(code)
		}
	}
	for _, code := range list {
		take(code)
	}
	for code := range pending {
		take(byte(code))
	}
	return order
}

// everybody is where a reply goes that the client cannot take by itself.
var everybody = packet.UDP{DstMAC: packet.Broadcast, Dst: netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), clientPort)}

// destination is where a reply goes: RFC 2131 §4.1 for a client on our own
// link, which the guest always is (giaddr is 0).
func destination(m *dhcpv4.DHCPv4) packet.UDP {
	to := addrOf(m.ClientIPAddr)
	switch {
	case messageType(m) == dhcpv4.MessageTypeNak:
		// "the server MUST broadcast any DHCPNAK": the guest's address is wrong.
		return everybody
	case to.IsValid():
		// The client has an address configured.
	case m.IsBroadcast(), !addrOf(m.YourIPAddr).IsValid():
		// It cannot take unicast before it has one, and says so.
		return everybody
	default:
		// It can. There is no ARP: the link address is known, the IP address not in use yet.
		to = addrOf(m.YourIPAddr)
	}
	return packet.UDP{DstMAC: mac.Of(m.ClientHWAddr), Dst: netip.AddrPortFrom(to, clientPort)}
}
