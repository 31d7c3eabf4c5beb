package engine

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/internal/normalize"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// Datapath is a way to connect a VM's tap to a pod interface.
type Datapath interface {
	// Wire plans how the interface is wired; it is pure. The error says why it can't
	// be, and the way out. What it says with no options but NoGuard is the interface's
	// fault.
	Wire(discover.Interface, Options) (Wiring, error)
	// Decode reads a wiring of the interface from a record of a version of it: what
	// the JSON of one was, whoever may have written it. It checks each value.
	Decode(in discover.Interface, version int, wiring json.RawMessage) (Wiring, error)
	// Traces are the links that look, by their names and kinds, as if they were made
	// for a VM of the pod interface of that name, for where there is no record; and
	// that interface, if it is not as a CNI leaves it. Two say that it is prepared.
	Traces(s *State, pod string) []string
	// Sysctls are those of the network namespace that have to be 0 as long as any
	// interface is wired so. A node may not have them.
	Sysctls() []string
}

// Wiring is one datapath's plan for one pod interface. It is data, of which JSON is
// kept in the record, and final.
type Wiring interface {
	// Guest is what the VM gets.
	Guest() guest.NIC
	// Options are the options of which it was made, with nothing left empty but
	// Datapath. Names has each link that can be named.
	Options() Options
	// Links are those that are there while the interface is wired so. One is the tap.
	Links() []Link
	// Tables are those that are there: the port guard, answers for neighbors, ….
	Tables() []nft.Table
	// Apply is what is still to do: nothing if all is as planned.
	Apply(*State) (Steps, error)
	// Restore is what is still to do for the interface to be as the CNI left it:
	// nothing if it is. The error says why that can't be, and the way out; notes are
	// what is left alone.
	Restore(*State) (st Steps, notes []string, err error)
	// Differences tell how its links differ from what is planned; what else a state
	// has may not be known (nil).
	Differences(*State) []Difference
	// Forwards tells what frames between the tap and the network wait for, by the
	// links alone; nil: they pass.
	Forwards(*State) error
}

// Link is a link of a wiring.
type Link struct {
	Role    string `json:"role"` // "tap", …
	Name    string `json:"name"`
	Renamed bool   `json:"-"` // it is the pod's interface; others are made
}

// TapRole is the role of the tap.
const TapRole = "tap"

// Options say how a pod interface is handed to its VM. The zero value is good.
type Options struct {
	MAC      mac.Addr // the VM's; zero: the pod interface's
	MTU      int      // the VM's; 0: the pod interface's
	Queues   int      // of the tap and the NIC; 0 or 1: one
	TapOwner *Owner   // who may open the tap without privileges; nil: nobody
	// SELinuxContext is the tap's label, where the VM's process has another than this
	// process. Whoever opens the tap gives it its own. Empty: this process's.
	SELinuxContext string
	NoGuard        bool
	NoIPv6         bool `json:"noIPv6"` // give the VM no IPv6
	// Names are those of the links that are made or renamed, by their roles; empty:
	// the role's prefix and the pod interface's name, as tap-eth0.
	Names map[string]string
	// Datapath connects the tap; empty: the default one.
	Datapath string
	// PodPorts are those that stay the pod's, where it shares its addresses with the
	// VM, which gets all others, or VMPorts are those that the VM gets, and the pod
	// has all others. They can be changed while the VM runs. Not both.
	PodPorts guest.Ports `json:"podPorts,omitzero"`
	VMPorts  guest.Ports `json:"vmPorts,omitzero"`
	// VMAlias and VMAlias6 are by what IPv4 and IPv6 address the pod reaches the VM, if
	// it can't by the VM's own; zero: one is chosen.
	VMAlias  netip.Addr `json:"vmAlias,omitzero"`
	VMAlias6 netip.Addr `json:"vmAlias6,omitzero"`
}

// Owner is a user and a group as numbers. A negative one is nobody's.
type Owner struct {
	UID int `json:"uid"`
	GID int `json:"gid"`
}

// maxID is the largest number of a user or a group: the next one is the kernel's for none.
const maxID int64 = 1<<32 - 2

// String is in the words of ip(8).
func (o Owner) String() string {
	var words []string
	if o.UID >= 0 {
		words = append(words, fmt.Sprintf("user %d", o.UID))
	}
	if o.GID >= 0 {
		words = append(words, fmt.Sprintf("group %d", o.GID))
	}
	return cmp.Or(strings.Join(words, " "), "nobody")
}

// CheckEthernet says why an interface can't be a VM's, whatever connects the two.
func CheckEthernet(in discover.Interface) error {
	switch {
	case in.Name == "lo":
		return errors.New("it is the loopback: name the pod's interface")
	case !in.Ethernet:
		return fmt.Errorf("it is a %s without Ethernet frames: a VM needs an Ethernet link "+
			"(with netkit devices set the CNI to veth or to netkit's L2 mode)", in.Kind)
	case in.MAC.IsZero():
		return fmt.Errorf("it is a %s without a MAC address: a VM needs an Ethernet link "+
			"(with netkit devices set the CNI to veth or to netkit's L2 mode)", in.Kind)
	case in.Kind == nl.KindBridge:
		return fmt.Errorf("it is a %s, which no VM can have; if this is the placeholder of a pod that is prepared already, "+
			"name the state directory that was used then", in.Kind)
	}
	return nil
}

// NameTakenError is that a link to be made for a VM can't have its name, since
// another link has it.
type NameTakenError struct {
	Name string
	For  string // the role of what would have it; empty: it is the pod interface's own
	Why  string // whose it is
	Free string // how to free it; empty: whoever made the link may need it
}

func (e *NameTakenError) Error() string {
	var ways []string
	if e.Free != "" {
		ways = append(ways, e.Free)
	}
	if e.For != "" {
		ways = append(ways, fmt.Sprintf("choose another %s name", e.For))
	}
	return fmt.Sprintf("the name %s is taken %s: %s", e.Name, e.Why, strings.Join(ways, ", or "))
}

// Validate tells what is wrong with the options whatever the pod interface is,
// all of it at once.
func (o Options) Validate() error {
	var c normalize.Checks
	c.That(!o.MAC.IsGroup(), "MAC %s is not a unicast Ethernet address", o.MAC)
	c.That(o.MTU == 0 || o.MTU >= guest.MinMTU && o.MTU <= guest.MaxMTU, "MTU %d is outside %d…%d", o.MTU, guest.MinMTU, guest.MaxMTU)
	c.That(o.Queues >= 0 && o.Queues <= guest.MaxQueues, "%d queues: a tap has 1 to %d", o.Queues, guest.MaxQueues)
	c.That(o.PodPorts.IsZero() || o.VMPorts.IsZero(), "ports of the pod, %s, and ports of the VM, %s: name only one of both; the other gets the rest", o.PodPorts, o.VMPorts)
	c = append(c, o.PodPorts.Validate(), o.VMPorts.Validate()) // or the record could not be read
	if own := o.TapOwner; own != nil {
		c.That(max(int64(own.UID), int64(own.GID)) <= maxID, "the tap's owner, %s, has a number above %d", own, maxID)
	}
	c = append(c, CheckLabel(o.SELinuxContext), checkAlias(o.VMAlias, "IPv4", netip.Addr.Is4), checkAlias(o.VMAlias6, "IPv6", netip.Addr.Is6))
	var given []string
	for _, role := range slices.Sorted(maps.Keys(o.Names)) {
		if name := o.Names[role]; name != "" {
			given = append(given, name)
			c = append(c, guest.CheckName(name))
			c.That(name != "lo", "the %s can't be named lo, as the loopback is: choose another name", role)
		}
	}
	return errors.Join(append(c, Distinct(given...))...)
}

// thisNetwork and reserved6 are ranges of which no host has an address, though the kernel
// takes most of them for one (RFC 1122 section 3.2.1.3; RFC 4291 section 4: of loopback,
// of IPv4 addresses and of their translation).
var (
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8")
	reserved6   = netip.MustParsePrefix("::/8")
)

// checkAlias tells why an address can't be the VM's alias of a family in any pod; zero: it
// is not given.
func checkAlias(a netip.Addr, family string, isOf func(netip.Addr) bool) error {
	isNobodys := thisNetwork.Contains(a) || reserved6.Contains(a) || a.Is6() && a.IsLinkLocalUnicast()
	if !a.IsValid() || isOf(a) && normalize.IsHost(a) && a.Zone() == "" && !isNobodys {
		return nil
	}
	return fmt.Errorf("the VM's alias %s is not an %s address that a host can have: choose one such as 169.254.100.2 or fd00:100::2", a, family)
}
