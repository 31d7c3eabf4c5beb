package guard

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// A VM has no link-local address that is known to be another's.
func TestOthersLinkLocals(t *testing.T) {
	t.Parallel()
	at := netip.MustParseAddr
	got := othersLinkLocals(guest.NIC{
		MAC:  mac.Addr{2, 0, 0, 0, 0, 7},
		IPv6: &guest.IPv6{Router: &guest.Router{LinkLocal: at("fe80::1"), MAC: mac.Addr{2, 0, 0, 0, 0, 1}}},
		Answers: []guest.Neighbor{
			{Address: at("10.0.0.9"), MAC: mac.Addr{2, 0, 0, 0, 0, 9}},
			{Address: at("fd00:10:22::98"), MAC: mac.Addr{2, 0, 0, 0, 0, 0x98}},
			{Address: at("fd00:10:22::97"), MAC: mac.Addr{2, 0, 0, 0, 0, 7}}, // the VM's own
			{Address: at("fe80::99"), MAC: mac.Addr{2, 0, 0, 0, 0, 0x99}},
		},
	})
	want := []netip.Addr{
		at("fe80::1"), at("fe80::ff:fe00:1"), at("fe80::ff:fe00:9"), at("fe80::ff:fe00:98"), at("fe80::99"), at("fe80::ff:fe00:99"),
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
