package dhcp6

import (
	"encoding/binary"
	"net"
	"slices"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
)

// Limits of what a message may ask for: more than a client has a use for, and
// so few that the answer always fits.
const (
	maxIAs       = 8
	maxAddresses = 16
	maxCodes     = 256
)

// Lengths of a DUID in bytes: the type and 1 to 128 (RFC 8415 §11.1).
const minDUID, maxDUID = 3, 130

// Lengths in bytes.
const (
	messageHead = 4 // RFC 8415 §8
	optionHead  = 4
	iaHead      = 12 // §21.4
	iataHead    = 4  // §21.5
	iaAddrHead  = 24 // §21.6
)

// parseMessage reads a DHCPv6 message, with which the result shares memory. Only
// what a server needs is looked into; all other options stay as they came, so
// that none of them can do harm. It is DropMalformed if it is cut short.
func parseMessage(b []byte) (*dhcpv6.Message, error) {
	if len(b) < messageHead {
		return nil, lease.DropMalformed
	}
	switch dhcpv6.MessageType(b[0]) {
	case dhcpv6.MessageTypeRelayForward, dhcpv6.MessageTypeRelayReply:
		return nil, lease.DropRelayed
	}
	m := &dhcpv6.Message{MessageType: dhcpv6.MessageType(b[0]), TransactionID: dhcpv6.TransactionID(b[1:4])}
	var p parser
	if err := p.options(b[messageHead:], p.option, &m.Options.Options); err != nil {
		return nil, err
	}
	return m, nil
}

// parser reads options of one message, and counts what is limited.
type parser struct {
	clientIDs, serverIDs, ias, addresses, codes int
}

type readOption func(code dhcpv6.OptionCode, value []byte) (dhcpv6.Option, error)

func (p *parser) options(b []byte, read readOption, out *dhcpv6.Options) error {
	for len(b) > 0 {
		if len(b) < optionHead {
			return lease.DropMalformed
		}
		code, end := dhcpv6.OptionCode(binary.BigEndian.Uint16(b)), optionHead+int(binary.BigEndian.Uint16(b[2:]))
		if end > len(b) {
			return lease.DropMalformed
		}
		o, err := read(code, b[optionHead:end:end])
		if err != nil {
			return err
		}
		out.Add(o)
		b = b[end:]
	}
	return nil
}

// option reads one that is not within another.
func (p *parser) option(code dhcpv6.OptionCode, v []byte) (dhcpv6.Option, error) {
	switch code {
	case dhcpv6.OptionClientID:
		return asItCame(code, v), checkDUID(v, &p.clientIDs)
	case dhcpv6.OptionServerID:
		return asItCame(code, v), checkDUID(v, &p.serverIDs)
	case dhcpv6.OptionIANA:
		ia := &dhcpv6.OptIANA{}
		return ia, p.identity(v, iaHead, &ia.IaId, &ia.Options.Options)
	case dhcpv6.OptionIATA:
		ia := &dhcpv6.OptIATA{}
		return ia, p.identity(v, iataHead, &ia.IaId, &ia.Options.Options)
	case dhcpv6.OptionIAPD:
		ia := &dhcpv6.OptIAPD{}
		// What it wishes for does not matter. ISC's client, once it is refused a prefix of a
		// length, sends that cut short.
		return ia, p.identity(v[:min(len(v), iaHead)], iaHead, &ia.IaId, &ia.Options.Options)
	case dhcpv6.OptionORO:
		return p.requested(v)
	}
	return asItCame(code, v), nil
}

func asItCame(code dhcpv6.OptionCode, v []byte) dhcpv6.Option {
	return &dhcpv6.OptionGeneric{OptionCode: code, OptionData: v}
}

// checkDUID counts a DUID, of which a message has one. Servers must not look into it
// (RFC 8415 §11).
func checkDUID(v []byte, n *int) error {
	if *n++; *n > 1 || len(v) < minDUID || len(v) > maxDUID {
		return lease.DropMalformed
	}
	return nil
}

// identity reads an identity association, but for its times: the server sets them.
func (p *parser) identity(v []byte, head int, id *[4]byte, out *dhcpv6.Options) error {
	if p.ias++; p.ias > maxIAs || len(v) < head {
		return lease.DropMalformed
	}
	*id = [4]byte(v)
	return p.options(v[head:], p.address, out)
}

// address reads an option within an identity association; an address's lifetimes are
// the server's to set.
func (p *parser) address(code dhcpv6.OptionCode, v []byte) (dhcpv6.Option, error) {
	if code != dhcpv6.OptionIAAddr {
		return asItCame(code, v), nil
	}
	if p.addresses++; p.addresses > maxAddresses || len(v) < iaAddrHead {
		return nil, lease.DropMalformed
	}
	return &dhcpv6.OptIAAddress{IPv6Addr: net.IP(v[:net.IPv6len:net.IPv6len])}, nil
}

// requested reads an option request option. A list that goes on without end, or
// ends within a code, is DropMalformed.
func (p *parser) requested(v []byte) (dhcpv6.Option, error) {
	var codes dhcpv6.OptionCodes
	if p.codes += len(v) / 2; p.codes > maxCodes || codes.FromBytes(v) != nil {
		return nil, lease.DropMalformed
	}
	return dhcpv6.OptRequestedOption(codes...), nil
}

// appendMessage appends m to b in at most limit bytes, options in their order.
// Those that are mere settings are left out where they do not fit; their codes
// are returned.
func appendMessage(b []byte, m *dhcpv6.Message, limit int) ([]byte, []dhcpv6.OptionCode) {
	at := len(b)
	var left []dhcpv6.OptionCode
	b = append(b, byte(m.MessageType))
	b = append(b, m.TransactionID[:]...)
	for _, o := range m.Options.Options {
		v := o.ToBytes()
		if !slices.Contains(answers, o.Code()) && len(b)-at+optionHead+len(v) > limit {
			left = append(left, o.Code())
			continue
		}
		b = binary.BigEndian.AppendUint16(b, uint16(o.Code()))
		b = binary.BigEndian.AppendUint16(b, uint16(len(v)))
		b = append(b, v...)
	}
	return b, left
}
