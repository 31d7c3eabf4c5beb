// Package mac has the Ethernet address, the one type of it in this module: as
// comparable as [netip.Addr], and text in JSON.
package mac

import (
	"fmt"
	"net"
	"net/netip"
)

// Addr is an Ethernet address (IEEE 802). The zero value is none.
type Addr [6]byte

// Of returns b as an address; none if b has not the length of one.
func Of(b []byte) (a Addr) {
	if len(b) == len(a) {
		copy(a[:], b)
	}
	return a
}

// Parse reads an address such as 02:00:00:00:00:07, in the notations of
// [net.ParseMAC].
func Parse(s string) (Addr, error) {
	b, err := net.ParseMAC(s)
	if err != nil || len(b) != len(Addr{}) {
		return Addr{}, fmt.Errorf("%q is not an Ethernet address such as 02:00:00:00:00:07", s)
	}
	return Of(b), nil
}

// IsZero reports whether there is no address.
func (a Addr) IsZero() bool { return a == Addr{} }

// IsHost reports whether a host may have the address: it is neither zero nor a group.
func (a Addr) IsHost() bool { return !a.IsZero() && !a.IsGroup() }

// IsGroup reports whether a is a multicast or the broadcast address.
func (a Addr) IsGroup() bool { return a[0]&1 != 0 }

// LinkLocal returns the IPv6 link-local address that goes with a (RFC 4291 appendix A).
func (a Addr) LinkLocal() netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: a[0] ^ 2, 9: a[1], 10: a[2], 11: 0xff, 12: 0xfe, 13: a[3], 14: a[4], 15: a[5]})
}

// HardwareAddr returns a as the standard library has it; nil: none.
func (a Addr) HardwareAddr() net.HardwareAddr {
	if a.IsZero() {
		return nil
	}
	return a[:]
}

// String returns the address as 02:00:00:00:00:07; empty: none.
func (a Addr) String() string { return a.HardwareAddr().String() }

// MarshalText implements [encoding.TextMarshaler].
func (a Addr) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler]. Empty text is no address.
func (a *Addr) UnmarshalText(b []byte) (err error) {
	if len(b) == 0 {
		*a = Addr{}
		return nil
	}
	*a, err = Parse(string(b))
	return err
}
