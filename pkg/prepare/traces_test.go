package prepare

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
)

func init() { datapaths["kept"] = kept{} }

// kept is the toy as it would be if it took the pod interface's addresses and ARP, and
// left it its name.
type kept struct{ toy }

// Traces finds the tap, and the pod interface if it does no ARP.
func (k kept) Traces(s *engine.State, pod string) []string {
	out := k.toy.Traces(s, pod)
	if l := s.Link(pod); l != nil && l.Kind == "kept" && !l.ARP() {
		out = append(out, pod)
	}
	return out
}

// A pod interface that keeps its name says itself that it is prepared: its record is no
// leftover when the tap is gone, and with the tap it tells of a record that is lost.
func TestTracesOfInterfaceThatKeepsItsName(t *testing.T) {
	in := discover.Interface{
		Index: 2, Name: "eth0", Kind: "kept", Ethernet: true, ARP: true, MAC: mac.Addr{2, 0, 0, 0, 0, 1}, MTU: 1500,
		Addresses: []discover.Address{{Prefix: netip.MustParsePrefix("10.244.1.7/24")}},
	}
	plan, err := NewPlan(in, Options{Datapath: "kept", NoGuard: true})
	if err != nil {
		t.Fatal(err)
	}
	eth0 := nl.Link{Index: 2, Name: "eth0", Kind: "kept", MAC: in.MAC}
	s := &engine.State{Links: []nl.Link{eth0}, Interfaces: map[int]discover.Interface{2: {Index: 2, Name: "eth0"}}}
	if leftover, _ := plan.confirm(s); !leftover {
		t.Error("an interface as a CNI leaves it, with other addresses, has the record of another")
	}
	s.Links[0].Flags = unix.IFF_NOARP
	if leftover, err := plan.confirm(s); leftover || err != nil {
		t.Errorf("the record of a pod without its tap is left out: %v", err)
	}
	if err := unrecorded(s, "/dir", "eth0", nil); err != nil {
		t.Errorf("one trace tells of a lost record: %v", err)
	}
	s.Links = append(s.Links, nl.Link{Index: 3, Name: "tap-eth0", Kind: "tun", Tun: &nl.Tun{Tap: true}})
	if unrecorded(s, "/dir", "eth0", nil) == nil {
		t.Error("two traces do not tell of a lost record")
	}
}
