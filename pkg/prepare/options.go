package prepare

import "github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"

// Options say how a pod interface is handed to its VM. The zero value is good. Its fields:
//
//	MAC            mac.Addr          // the VM's; zero: the pod interface's
//	MTU            int               // the VM's; 0: the pod interface's
//	Queues         int               // of the tap and the NIC; 0 or 1: one
//	TapOwner       *Owner            // who may open the tap without privileges; nil: nobody
//	SELinuxContext string            // the tap's label; empty: this process's
//	NoGuard        bool              // no port guard
//	NoIPv6         bool              // give the VM no IPv6
//	Names          map[string]string // of links, by their roles, as TapRole; empty: chosen
//	Datapath       string            // one of Datapaths(); empty: DefaultDatapath
//	PodPorts       guest.Ports       // with redirect: the pod's, the VM gets all others; or
//	VMPorts        guest.Ports       // with redirect: the VM's, the pod has all others
//	VMAlias        netip.Addr        // by which the pod reaches the VM; zero: one is chosen
//	VMAlias6       netip.Addr        // likewise, of IPv6
type Options = engine.Options

// Owner is a user and a group as numbers. A negative one is nobody's. Its fields:
//
//	UID int
//	GID int
type Owner = engine.Owner

// NameTakenError is that a link to be made for a VM can't have its name, since
// another link has it. Its fields:
//
//	Name string
//	For  string // the role of what would have it; empty: it is the pod interface's own
//	Why  string // whose it is
//	Free string // how to free it; empty: whoever made the link may need it
type NameTakenError = engine.NameTakenError

// TapMaker is the name by which the program runs itself to make a tap that has an SELinux
// label, by [MakeTap].
const TapMaker = engine.TapMaker

// MakeTap is what a program does first whose arguments begin with [TapMaker]; the others
// are given to it. It returns the exit code.
func MakeTap(args []string) int { return engine.MakeTap(args) }

// TapRole is the role of the tap among [Plan.Links] and the names in [Options].
const TapRole = engine.TapRole
