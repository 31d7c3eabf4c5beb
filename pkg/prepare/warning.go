package prepare

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Warnings tell what will go wrong later, though the interface can be prepared,
// with the way out. None: nothing is known. restored is whether the interface is
// put back before the CNI asks for it.
func (p Plan) Warnings(restored bool) []string {
	var out []string
	if !p.Shared() && p.Interface.GivenBack() && !restored {
		out = append(out, p.Interface.Name+" looks like a device of the node (host-device, SR-IOV): while it is prepared the CNI can't take it back "+
			"and the pod can't be deleted; restore it before, for example when the server ends, or use the datapath redirect")
	}
	for _, a := range p.Interface.Addresses {
		if !p.Shared() && a.Prefix.Addr().Is4() && a.Flags&unix.IFA_F_PERMANENT == 0 {
			out = append(out, fmt.Sprintf("the address %s on %s expires: the DHCP client that renews it in the pod can't once the VM has it; "+
				"give the pod a fixed address (IPAM host-local, static), or no address, so that the VM asks that network's DHCP server itself, or use the datapath redirect", a.Prefix, p.Interface.Name))
		}
	}
	if local := p.Interface.LocalPorts; p.Interface.NoEgress && p.Shared() && p.wired().Options().VMPorts.IsZero() && local[1] >= guestPorts {
		out = append(out, fmt.Sprintf("before Linux 5.16 the pod's containers share "+p.Interface.Name+" with the VM by ports alone, and those of their own connections, %d to %d, "+
			"are what guests use, too: the VM gets the answers, and such connections of the pod fail; give the pod a range of its own: "+
			`securityContext.sysctls: [{name: net.ipv4.ip_local_port_range, value: "28672 32767"}]`, local[0], local[1]))
	}
	if p.NIC().IPv4 != nil && p.NIC().MTU < minReply {
		out = append(out, fmt.Sprintf("the MTU of %s, %d, is too small for DHCP replies, which have at least %d bytes: the check of run fails; "+
			"use a larger MTU, or give the VM its address by other means and run without the check", p.Interface.Name, p.NIC().MTU, minReply))
	}
	return out
}

// Shared tells whether the pod keeps the interface, beside the VM: no other link has its
// name meanwhile.
func (p Plan) Shared() bool {
	return !slices.ContainsFunc(p.Links(), func(l Link) bool { return l.Name == p.Interface.Name })
}

// FiltersGroups tells whether the pod interface may let through only the multicast groups
// that the pod has joined, and not the VM's: the pod keeps it, and it is not one of a pair
// of links, which let all through. Who serves the VM has it receive all groups.
func (p Plan) FiltersGroups() bool {
	return p.Shared() && p.Interface.Kind != "veth" && p.Interface.Kind != "netkit"
}

// guestPorts are the first of those that guests take for their connections.
const guestPorts = 32768

// minReply is the least length of a DHCP reply: 300 bytes of BOOTP (RFC 951) with
// their IP and UDP headers.
const minReply = 300 + 20 + 8
