// Package prepare rewires a pod's network namespace for a VM: it plans what to
// change (pure), makes it so, all or nothing, and can put everything back as
// the CNI left it.
//
// Like pkg/discover it acts on the network namespace of the calling thread.
package prepare

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// Plan says how one pod interface is rewired, and what it was before. It is
// plain data, the same for the same interface and options.
type Plan struct {
	Datapath  string             `json:"datapath"`  // "bridge"
	Interface discover.Interface `json:"interface"` // as the CNI left it

	MAC   mac.Addr `json:"mac"` // the VM's
	MTU   int      `json:"mtu"` // the VM's, the tap's
	Tap   Tap      `json:"tap"`
	Guard bool     `json:"guard"`
	IPv6  *IPv6    `json:"ipv6,omitempty"` // nil: the VM gets none

	Bridge Bridge `json:"bridge"`
}

// Tap is the VM's end of the network.
type Tap struct {
	Name   string   `json:"name"`
	MAC    mac.Addr `json:"mac"` // of the device in the pod, not the VM's
	Queues int      `json:"queues"`
	Owner  *Owner   `json:"owner,omitempty"`
}

// IPv6 is what the VM gets of the pod's IPv6.
type IPv6 struct {
	Address netip.Prefix `json:"address"`
	// Router leads to the pod's gateway; nil: the pod has none.
	Router *Router `json:"router,omitempty"`
}

// Router is whom the VM's IPv6 routes lead to, which IPv6 knows by a link-local
// address only (RFC 4861 section 6.1.2).
type Router struct {
	LinkLocal netip.Addr `json:"linkLocal"`
	MAC       mac.Addr   `json:"mac"` // the gateway's
	// Answered is whether the VM is answered for LinkLocal: it is then not the
	// gateway's own, which has a global address.
	Answered bool `json:"answered,omitempty"`
}

// Bridge is what the bridge datapath needs beside the tap.
type Bridge struct {
	Name      string   `json:"name"`
	MAC       mac.Addr `json:"mac"`
	Uplink    string   `json:"uplink"` // the pod interface's name once it is a port
	UplinkMAC mac.Addr `json:"uplinkMAC"`
}

// NewPlan plans how in is handed to a VM. It refuses an interface that cannot
// be bridged, before anything is touched, and says what can be done about it: an
// [UnusableError].
func NewPlan(in discover.Interface, o Options) (Plan, error) {
	var unusable error
	if err := bridgeable(in); err != nil {
		unusable = &UnusableError{in.Name, err}
	}
	if err := errors.Join(unusable, o.Validate()); err != nil {
		return Plan{}, fmt.Errorf("plan %s: %w", in.Name, err)
	}
	p := Plan{
		Datapath: "bridge", Interface: in,
		MAC: o.MAC, MTU: o.MTU, Guard: !o.NoGuard,
		Tap: Tap{Name: o.TapName, MAC: derivedMAC(in, "tap"), Queues: max(1, o.Queues), Owner: o.TapOwner},
		Bridge: Bridge{
			Name: o.BridgeName, MAC: derivedMAC(in, "bridge"),
			Uplink: o.UplinkName, UplinkMAC: derivedMAC(in, "uplink"),
		},
	}
	if !o.NoIPv6 {
		p.IPv6 = newIPv6(in)
	}
	if p.MAC.IsZero() {
		p.MAC = in.MAC
	}
	if p.MTU == 0 {
		p.MTU = min(in.MTU, maxTapMTU)
	}
	for _, n := range []struct {
		name   *string
		prefix string
	}{{&p.Tap.Name, "tap-"}, {&p.Bridge.Name, "br-"}, {&p.Bridge.Uplink, "up-"}} {
		if *n.name == "" {
			*n.name = linkName(n.prefix, in.Name)
		}
	}
	if err := p.validate(); err != nil {
		return Plan{}, fmt.Errorf("plan %s: %w", in.Name, err)
	}
	return p, nil
}

// newIPv6 plans what the VM gets of the interface's IPv6; nil: it has none.
func newIPv6(in discover.Interface) *IPv6 {
	address, ok := in.IPv6()
	if !ok {
		return nil
	}
	v6 := &IPv6{Address: address}
	switch g := in.Gateway6; {
	case g == nil:
	case g.Address.IsLinkLocalUnicast():
		v6.Router = &Router{LinkLocal: g.Address, MAC: g.MAC}
	default:
		v6.Router = &Router{LinkLocal: LinkLocal(g.MAC), MAC: g.MAC, Answered: true}
	}
	return v6
}

// LinkLocal is the link-local address that goes with a MAC (RFC 4291 appendix A).
func LinkLocal(mac mac.Addr) netip.Addr { return mac.LinkLocal() }

// bridgeable says why an interface can't be a bridge port for the VM's MAC.
func bridgeable(in discover.Interface) error {
	switch {
	case in.Name == "lo":
		return errors.New("it is the loopback: name the pod's interface")
	case in.Kind == "macvlan" || in.Kind == "macvtap":
		return fmt.Errorf("it is a %s: its parent delivers only frames for its own MAC, "+
			"so a VM behind a bridge would get none; give the pod a veth-based network (for example the bridge CNI plugin)", in.Kind)
	case in.Kind == "ipvlan" || in.Kind == "ipvtap":
		return fmt.Errorf("it is an %s: it has its parent's MAC and delivers by IP address, "+
			"so a VM with a MAC of its own can't be behind it; give the pod a veth-based network (for example the bridge CNI plugin)", in.Kind)
	case in.Kind == "bridge":
		return errors.New("it is a bridge, which can't be another's port; if this is the placeholder of a pod that is prepared already, " +
			"name the state directory that was used then")
	case !in.Ethernet:
		return fmt.Errorf("it is a %s without Ethernet frames: a VM needs an Ethernet link "+
			"(with netkit devices set the CNI to veth or to netkit's L2 mode)", in.Kind)
	case in.MAC.IsZero():
		return fmt.Errorf("it is a %s without a MAC address: a VM needs an Ethernet link "+
			"(with netkit devices set the CNI to veth or to netkit's L2 mode)", in.Kind)
	case in.PointToPoint:
		return errors.New("it is a point-to-point link, which can't be a bridge port; use a veth-based network")
	case !in.ARP:
		return errors.New("it does not resolve neighbours (ARP is off), so the VM would find no gateway; " +
			"set the CNI to veth, or netkit to L2 mode")
	case in.Master != "":
		return fmt.Errorf("it already is a port of the bridge or a member of the bond or VRF %s; "+
			"take it out (ip link set %s nomaster) or name another interface", in.Master, in.Name)
	case in.TakenBy != "":
		return fmt.Errorf("the %s on it gets its frames, which a bridge can't get too; "+
			"delete that link, or put it on another interface", in.TakenBy)
	case in.MTU < minMTU:
		return fmt.Errorf("its MTU is %d, IPv4 needs %d at least (RFC 791)", in.MTU, minMTU)
	}
	return replayable(in)
}

// replayable says why a route of the interface can't be put back: the kernel
// deletes a nexthop object with its link (nexthop_flush_dev, net/ipv4/nexthop.c).
func replayable(in discover.Interface) error {
	for _, r := range slices.Concat(in.Routes, in.Dependents) {
		if r.NextHop != 0 && slices.Contains(r.Links, in.Index) {
			return fmt.Errorf("its route to %s is by nexthop object %d, which could not be put back; "+
				"give the route its gateway and link itself (ip route replace %s via … dev %s)", r.Destination, r.NextHop, r.Destination, in.Name)
		}
	}
	return nil
}

// validate tells why the pod interface and the options don't go together.
func (p Plan) validate() error {
	if most := min(p.Interface.MTU, maxTapMTU); p.MTU > most {
		return fmt.Errorf("MTU %d is more than %s carries, which is %d", p.MTU, p.Interface.Name, most)
	}
	if p.IPv6 != nil && p.MTU < minIPv6MTU {
		return fmt.Errorf("MTU %d is too small for IPv6, which needs %d (RFC 8200): use a larger one, or give the VM no IPv6", p.MTU, minIPv6MTU)
	}
	return distinct(p.Interface.Name, p.Tap.Name, p.Bridge.Name, p.Bridge.Uplink)
}

// Addresses returns what the VM gets: the IPv4 addresses that the CNI gave,
// the pod's own first, and its IPv6 address.
func (p Plan) Addresses() []netip.Prefix {
	out := p.ipv4()
	if p.IPv6 != nil {
		out = append(out, p.IPv6.Address)
	}
	return out
}

func (p Plan) ipv4() []netip.Prefix {
	var out []netip.Prefix
	for _, a := range p.Interface.Addresses {
		if a.Prefix.Addr().Is4() && a.Scope == unix.RT_SCOPE_UNIVERSE {
			out = append(out, a.Prefix)
		}
	}
	return out
}

// String returns the plan as lines for a shell, in the words of ip(8), bridge(8),
// nft(8) and sysctl(8), for a pod that is as the CNI left it.
func (p Plan) String() string {
	var b strings.Builder
	ops, err := p.applyOps(p.original())
	if err != nil { // the original state never conflicts with its own plan
		return err.Error()
	}
	for _, name := range knobNames { // a node without br_netfilter has none
		fmt.Fprintf(&b, "sysctl -e -w %s=0\n", name)
	}
	for _, o := range ops {
		b.WriteString(o.String())
		b.WriteByte('\n')
	}
	if name := p.Interface.Name; !plainName.MatchString(name) {
		return fmt.Sprintf("# not for a shell: the name %q means something else there, or to nft(8)\n# %s\n",
			name, strings.ReplaceAll(strings.TrimSpace(b.String()), "\n", "\n# "))
	}
	return b.String()
}

// plainName is what neither a shell nor nft(8) takes for anything but a name.
// Whoever makes a pod may choose its interfaces' names.
var plainName = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

// linkName prefixes the pod interface's name. Where that would be longer than
// the kernel allows, a hash of the name takes the place of its tail.
func linkName(prefix, name string) string {
	if len(prefix)+len(name) < unix.IFNAMSIZ {
		return prefix + name
	}
	sum := sha256.Sum256([]byte(name))
	hash := hex.EncodeToString(sum[:3])
	return prefix + name[:unix.IFNAMSIZ-1-len(prefix)-len(hash)] + hash
}

// derivedMAC makes a locally administered unicast MAC from the pod's, so that
// a second run plans the same one.
func derivedMAC(in discover.Interface, role string) mac.Addr {
	sum := sha256.Sum256(append([]byte(role+" "), in.MAC[:]...))
	mac := mac.Of(sum[:6])
	mac[0] = mac[0]&^1 | 2 // IEEE 802: not a group address, locally administered
	return mac
}
