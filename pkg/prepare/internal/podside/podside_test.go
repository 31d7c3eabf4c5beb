package podside

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

// What the kernel makes of a link by itself is nothing that a plan would have to know.
func TestUnplanned(t *testing.T) {
	network := netip.MustParsePrefix("fe80::/64")
	now := discover.Interface{
		Addresses: []discover.Address{
			{Prefix: netip.MustParsePrefix("fe80::7/64")},
			{Prefix: netip.MustParsePrefix("2001:db8::7/64"), Flags: unix.IFA_F_MANAGETEMPADDR},
		},
		Routes: []discover.Route{{Destination: network, Protocol: unix.RTPROT_KERNEL}, {Destination: network, Protocol: unix.RTPROT_RA}},
	}
	if what := Unplanned(discover.Interface{}, now); what != "" {
		t.Errorf("it tells of the %s", what)
	}
	now.Addresses = append(now.Addresses, discover.Address{Prefix: netip.MustParsePrefix("10.0.0.7/24")})
	if what := Unplanned(discover.Interface{}, now); what != "address 10.0.0.7/24" {
		t.Errorf("it tells of %q", what)
	}
}
