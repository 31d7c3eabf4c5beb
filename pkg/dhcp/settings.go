package dhcp

import (
	"cmp"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/internal/normalize"
)

// settingsOf encodes the options of a lease: first what follows from its
// fields, then what was set by hand in their place.
func settingsOf(l Lease) settings {
	s := make(settings, 0, 20+len(l.Options))
	s.add(optLeaseTime, granted, binary.BigEndian.AppendUint32(nil, l.seconds()))
	if l.Duration != 0 {
		// T1 and T2 of RFC 2131 §4.4.5: half and seven eighths of the time.
		s.add(optRenewal, granted, binary.BigEndian.AppendUint32(nil, l.seconds()/2))
		s.add(optRebinding, granted, binary.BigEndian.AppendUint32(nil, uint32(uint64(l.seconds())*7/8)))
	}
	s.add(optSubnetMask, always, net.CIDRMask(l.Address.Bits(), 32))
	s.add(optRoutes, always, encodeRoutes(l.Routes))
	s.add(optRouter, unrouted, l.Router.AsSlice())
	s.add(optDNS, wanted, normalize.Wire(l.DNS))
	s.add(optHostname, wanted, []byte(l.Hostname))
	if len(l.Search) > 0 {
		s.add(optDomainName, wanted, []byte(l.Search[0]))
	}
	s.add(optSearch, wanted, encodeSearch(l.Search))
	if l.MTU > 0 {
		s.add(optMTU, wanted, binary.BigEndian.AppendUint16(nil, uint16(l.MTU)))
	}
	s.add(optNTP, wanted, normalize.Wire(l.NTP))
	s.add(optTFTPServer, always, []byte(l.TFTPServer))
	s.add(optTFTPAddresses, asked, tftpAddr(l))
	for _, o := range l.Options {
		s.set(o)
	}
	if s.index(optRoutesMS) < 0 {
		s.add(optRoutesMS, asked, s.value(optRoutes))
	}
	return s
}

type settings []setting

// add adds an option unless it has no value.
func (s *settings) add(code uint8, when when, value []byte) {
	if len(value) > 0 {
		*s = append(*s, setting{Option{code, value}, when})
	}
}

// set puts an option in the place of another of its code; one without a value stays.
func (s *settings) set(o Option) {
	if i := s.index(o.Code); i >= 0 {
		*s = slices.Delete(*s, i, i+1)
	}
	*s = append(*s, setting{o, always})
}

func (s settings) index(code uint8) int {
	for i := range s {
		if s[i].Code == code {
			return i
		}
	}
	return -1
}

// value is an option's; nil: it is not sent.
func (s settings) value(code uint8) []byte {
	if i := s.index(code); i >= 0 && len(s[i].Value) > 0 {
		return s[i].Value
	}
	return nil
}

// tftpAddr is the TFTP server if it was given as an IPv4 address, else nil.
func tftpAddr(l Lease) []byte {
	if a, _ := netip.ParseAddr(l.TFTPServer); a.Is4() { // a name is the zero address
		return a.AsSlice()
	}
	return nil
}

// encodeRoutes writes option 121 (RFC 3442).
func encodeRoutes(routes []Route) (out []byte) {
	for _, r := range routes {
		bits, to := r.Destination.Bits(), r.Destination.Masked().Addr().As4()
		via := cmp.Or(r.Gateway, netip.IPv4Unspecified()).As4()
		out = append(append(out, byte(bits)), to[:(bits+7)/8]...)
		out = append(out, via[:]...)
	}
	return out
}
