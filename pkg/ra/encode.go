package ra

import (
	"encoding/binary"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
)

// Options besides the router's MAC (RFC 4861 §4.6, RFC 4191 §2.3, RFC 8106 §5).
const (
	optPrefix = 3
	optMTU    = 5
	optRoute  = 24
	optDNS    = 25
	optSearch = 31
)

// Flags.
const (
	flagManaged = 0x80
	flagOther   = 0x40
	flagOnLink  = 0x80
)

// infinity is the lifetime of one without an end.
const infinity = math.MaxUint32

const (
	// maxMessage is how long an ICMPv6 message can be on every link.
	maxMessage = minMTU - 40
	// maxSearch is how long one search list is before the rest goes into another
	// option. It fits a message.
	maxSearch = 512
	headLen   = 16
)

// encode returns the ICMPv6 messages that say it all, whose checksums are still
// zero, and a note for each thing that was left out, as Normalize has it. It is
// one message, unless that were too long for a link: then each has the header,
// and some of the options (RFC 4861 §6.2.3). It fails if the advertisement is
// not valid.
func (a Advertisement) encode() ([][]byte, []string, error) {
	a, left := a.Normalize()
	if err := a.Validate(); err != nil {
		return nil, nil, err
	}
	head := a.head()
	messages := [][]byte{head}
	for _, option := range a.options() {
		last := &messages[len(messages)-1]
		if len(*last)+len(option) > maxMessage {
			messages = append(messages, head)
			last = &messages[len(messages)-1]
		}
		*last = append(*last, option...)
	}
	return messages, left, nil
}

// head is the message's header (RFC 4861 §4.2), which each has. It has no option with the
// router's MAC: the guest asks for that, and so learns of another one.
func (a Advertisement) head() []byte {
	b := make([]byte, headLen)
	b[0] = packet.RouterAdvertisement
	if a.Managed {
		b[5] |= flagManaged
	}
	if a.Other {
		b[5] |= flagOther
	}
	binary.BigEndian.PutUint16(b[6:], uint16(a.RouterLifetime/time.Second))
	return slices.Clip(b) // so that nobody appends in place
}

// options are those that go into one of the messages, in order.
func (a Advertisement) options() (out [][]byte) {
	if a.MTU > 0 {
		out = append(out, binary.BigEndian.AppendUint32([]byte{optMTU, 1, 0, 0}, uint32(a.MTU)))
	}
	for _, p := range a.Prefixes {
		out = append(out, prefixOption(p))
	}
	for _, r := range a.Routes {
		out = append(out, routeOption(r))
	}
	if len(a.DNS) > 0 {
		out = append(out, dnsOption(a.DNS))
	}
	for names := a.Search; len(names) > 0; {
		var option []byte
		option, names = searchOption(names)
		out = append(out, option)
	}
	return out
}

func prefixOption(p netip.Prefix) []byte {
	b := []byte{optPrefix, 4, byte(p.Bits()), flagOnLink}
	b = binary.BigEndian.AppendUint32(b, infinity) // valid
	b = binary.BigEndian.AppendUint32(b, infinity) // preferred
	b = append(b, 0, 0, 0, 0)
	return append(b, p.Addr().AsSlice()...)
}

// routeOption has as much of the destination as it needs (RFC 4191 §2.3), and the
// medium preference.
func routeOption(r netip.Prefix) []byte {
	words := (r.Bits() + 63) / 64
	b := []byte{optRoute, byte(1 + words), byte(r.Bits()), 0}
	b = binary.BigEndian.AppendUint32(b, infinity)
	return append(b, r.Addr().AsSlice()[:8*words]...)
}

func dnsOption(servers []netip.Addr) []byte {
	b := []byte{optDNS, byte(1 + 2*len(servers)), 0, 0}
	b = binary.BigEndian.AppendUint32(b, infinity)
	for _, server := range servers {
		b = append(b, server.AsSlice()...)
	}
	return b
}

// searchOption returns an option with the first names, as many as it takes, and the
// others. Names are written in full, zeros follow the last (RFC 8106 §5.2).
func searchOption(names []string) ([]byte, []string) {
	b := binary.BigEndian.AppendUint32([]byte{optSearch, 0, 0, 0}, infinity)
	for len(names) > 0 && len(b)+len(names[0])+2 <= maxSearch {
		for label := range strings.SplitSeq(names[0], ".") {
			b = append(b, byte(len(label)))
			b = append(b, label...)
		}
		b = append(b, 0)
		names = names[1:]
	}
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	b[1] = byte(len(b) / 8)
	return b, names
}
