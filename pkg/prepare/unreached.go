package prepare

import (
	"fmt"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
)

// Unreached tells of the aliases by which the pod's containers do not reach the VM, since
// a rule or a route that somebody has made sends elsewhere what is for them, with the way
// out. It looks at the network namespace of the calling thread. That is no [Difference]:
// the VM's network is as planned.
func (p Plan) Unreached() (all []string, err error) {
	n := p.NIC()
	if len(n.Aliases) == 0 {
		return nil, nil
	}
	conn, err := nl.Open()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	links, err := conn.Links()
	if err != nil {
		return nil, err
	}
	s := engine.State{Links: links}
	tap := s.Link(n.Tap)
	if tap == nil || !tap.Up() { // that is a difference
		return nil, nil
	}
	for _, a := range n.Aliases {
		by, err := conn.LinkTo(a.VM)
		if err != nil {
			return nil, err
		}
		if by == tap.Index {
			continue
		}
		now, ip := "nowhere", "ip"
		if l := s.ByIndex(by); l != nil {
			now = "by " + l.Name
		}
		if a.VM.Is6() {
			ip = "ip -6"
		}
		all = append(all, fmt.Sprintf("%s is not reached: the pod sends what is for it %s, not by %s, as one of its rules or routes says: "+
			"%s rule add pref 1 to %[1]s lookup main; if the table main has no route to it, %[4]s route add %[1]s dev %[3]s src %[5]s", a.VM, now, tap.Name, ip, a.Pod))
	}
	return all, nil
}
