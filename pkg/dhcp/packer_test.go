package dhcp

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Each part of a long option 121 is whole routes, for clients that read it for
// itself; all of them together are the option.
func TestRoutePartsAreWhole(t *testing.T) {
	l := testLease()
	for i := range 60 {
		l.Routes = append(l.Routes, Route{Destination: netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 20, byte(i), 0}), 24), Gateway: l.Router})
	}
	value := encodeRoutes(l.Routes)
	fs := []field{{room: 308}, {room: 127}, {room: 290}}
	if !putIn(fs, optRoutes, value) {
		t.Fatal("does not fit")
	}
	var all []byte
	parts := 0
	for _, f := range fs {
		for b := f.b; len(b) > 0; b = b[2+int(b[1]):] {
			part := b[2 : 2+int(b[1])]
			var routes dhcpv4.Routes
			if err := routes.FromBytes(part); err != nil {
				t.Errorf("part %x: %v", part, err)
			}
			all = append(all, part...)
			parts++
		}
	}
	if !bytes.Equal(all, value) || parts < 3 {
		t.Errorf("%d parts are\n%x, not\n%x", parts, all, value)
	}
}
