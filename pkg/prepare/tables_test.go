package prepare

import (
	"net/netip"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

func TestHasTables(t *testing.T) {
	t.Parallel()
	pod := discover.Interface{
		Name: "eth0", Index: 2, Kind: "veth", MAC: mac.Addr{2, 0, 0, 0, 0, 1}, MTU: 1500, Up: true, ARP: true, Ethernet: true,
		Addresses: []discover.Address{{Prefix: netip.MustParsePrefix("10.0.0.2/24")}},
	}
	answering := pod
	answering.Neighbors = []discover.Neighbor{{Address: netip.MustParseAddr("10.0.0.1"), MAC: mac.Addr{2, 0, 0, 0, 0, 9}}}
	has := map[bool]int{}
	for _, in := range []discover.Interface{pod, answering} {
		for _, datapath := range []string{"bridge", "redirect"} {
			for _, noGuard := range []bool{false, true} {
				p, err := NewPlan(in, Options{Datapath: datapath, NoGuard: noGuard})
				if err != nil {
					t.Fatal(err)
				}
				if n := len(p.wiring.Tables()); p.HasTables() != (n > 0) {
					t.Errorf("%s, without guard: %t, of %d neighbors: of %d tables it says %t", datapath, noGuard, len(in.Neighbors), n, p.HasTables())
				}
				has[p.HasTables()]++
			}
		}
	}
	if has[true] == 0 || has[false] == 0 {
		t.Errorf("of the plans %v have tables", has)
	}
}
