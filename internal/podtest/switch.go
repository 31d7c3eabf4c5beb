package podtest

import "testing"

// What tests call the switch that most pods are wired with, and what belongs to it, in
// the words of those who are told: ip(8), nft(8), sysctl(8), CNI, libvirt, prepare.
const (
	SwitchKind    = "bridge"                       // the kernel's kind of link
	SwitchRole    = "bridge"                       // what prepare.Options.Names calls it
	SwitchPath    = "bridge"                       // what prepare.Options.Datapath calls wiring with it
	Switch        = "type " + SwitchKind           // behind "ip link add NAME"
	SwitchFilter  = "net/bridge/bridge-nf-call-"   // sysctls, each for a family: whether iptables sees what it forwards
	SwitchPlugin  = `"type": "bridge", "bridge": ` // of a CNI configuration, before the switch's name
	SwitchLibvirt = `<interface type='bridge'><source bridge='brq'/></interface>`
	SetPort       = "bridge link set dev" // bridge(8)'s, before the name of a port: its state, learning, …

	GuardFamily = "bridge" // nft(8)'s, of the port guard's table
	GuardTable  = GuardFamily + " virt-launcher-net-eth0"

	// Macvlan makes a macvlan as CNI's plugin does, behind "ip link add NAME link PARENT".
	Macvlan = "type macvlan mode bridge"
	Macvtap = "type macvtap mode bridge"
)

// Learned are the MACs that a switch has learned or was given, in the words of
// bridge(8).
func Learned(t testing.TB, ns *NS, name string) string {
	t.Helper()
	return ns.Run(t, "bridge", "fdb", "show", "br", name)
}
