package prepare

import "github.com/virt-launcher-net/virt-launcher-net/pkg/discover"

// Link is a link that is made, or renamed, for the VM of a pod interface.
type Link struct {
	Role string `json:"role"`
	Name string `json:"name"`
	Flag string `json:"flag,omitempty"` // of the command line, by which it can be named
}

// Links are those of the plan, from the pod network to the VM, and what has the pod
// interface's name.
func (p Plan) Links() []Link {
	return []Link{
		{"uplink", p.Bridge.Uplink, "--uplink-name"}, {"bridge", p.Bridge.Name, "--bridge-name"}, {"tap", p.Tap.Name, "--tap-name"},
		{"placeholder", p.Interface.Name, ""},
	}
}

// LinkNames are the names that the options give, by role.
func (o Options) LinkNames() map[string]string {
	return map[string]string{"uplink": o.UplinkName, "bridge": o.BridgeName, "tap": o.TapName}
}

// InPlace tells whether in is what Apply leaves in the place of a pod interface.
func InPlace(in discover.Interface) bool { return in.Kind == "bridge" }
