package prepare

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// What no NIC can have is refused when it is planned, before anything is touched.
func TestPlanRefusesMTU(t *testing.T) {
	t.Parallel()
	pod := discover.Interface{
		Name: "eth0", Index: 2, Kind: "veth", MAC: mac.Addr{0x0a, 0x58, 0x0a, 0xf4, 1, 7}, MTU: 1500, Up: true, ARP: true, Ethernet: true,
		Addresses: []discover.Address{{Prefix: netip.MustParsePrefix("fd00::7/64")}},
	}
	for _, datapath := range bothDatapaths {
		if _, err := NewPlan(pod, Options{Datapath: datapath, MTU: 1279}); err == nil || !strings.Contains(err.Error(), "MTU 1279 is too small for IPv6") {
			t.Errorf("%s: got %v", datapath, err)
		}
		for _, o := range []Options{{MTU: 1280}, {MTU: 400, NoIPv6: true}} {
			o.Datapath = datapath
			if _, err := NewPlan(pod, o); err != nil {
				t.Errorf("%s: MTU %d: %v", datapath, o.MTU, err)
			}
		}
	}
}
