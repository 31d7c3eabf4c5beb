package prepare

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
)

// forgetful is the toy as it would be if it gave its tap neither owner nor label.
type forgetful struct{ toy }

// Wire forgets both.
func (f forgetful) Wire(in discover.Interface, o engine.Options) (engine.Wiring, error) {
	o.TapOwner, o.SELinuxContext = nil, ""
	return f.toy.Wire(in, o)
}

func init() { datapaths["forgetful"] = forgetful{} }

// An owner or a label of the tap is given to it by each datapath, or refused: with neither,
// the VM's process can't open the tap.
func TestTapOwnerAndLabelAreUsed(t *testing.T) {
	in := discover.Interface{Index: 2, Name: "eth0", Kind: "veth", Ethernet: true, ARP: true, Up: true, MAC: mac.Addr{2, 0, 0, 0, 0, 1}, MTU: 1500}
	for _, o := range []Options{{TapOwner: &Owner{UID: 107, GID: 108}}, {SELinuxContext: "system_u:object_r:container_t:s0"}} {
		o.NoGuard = true
		for _, path := range slices.Sorted(maps.Keys(datapaths)) {
			o.Datapath = path
			p, err := NewPlan(in, o)
			if path == "forgetful" {
				if err == nil || !strings.Contains(err.Error(), "owner or a label") {
					t.Errorf("%+v are forgotten: %v", o, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", path, err)
				continue
			}
			used := p.wiring.Options()
			if o.SELinuxContext != used.SELinuxContext || o.TapOwner != nil && *o.TapOwner != *used.TapOwner {
				t.Errorf("%s uses %+v of %+v", path, used, o)
			}
		}
	}
}
