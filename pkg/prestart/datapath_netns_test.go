package prestart_test

import (
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

const redirect = "redirect"

// wiring is what tests name of a prepared pod interface, which datapaths name
// differently.
type wiring struct {
	datapath string
	uplink   string // the link that leads to the network
	link     string // one without which the VM's packets do not pass
	table    string // nft(8)'s, of the port guard
	purpose  string // of the table, in messages
	base     string // a base chain of it
}

// wiringOf is that of the pods of the test.
func wiringOf(t testing.TB, iface string) wiring {
	t.Helper()
	const prefix = "virt-launcher-net-"
	if datapath := podtest.Datapath(t); datapath != redirect {
		return wiring{datapath, "up-" + iface, "br-" + iface, podtest.GuardFamily + " " + prefix + iface, "the port guard", "prerouting"}
	}
	return wiring{redirect, iface, "tap-" + iface, "netdev " + prefix + iface, "the table that shares " + iface + " with the VM", "from_net"}
}

// onlyWithSwitch skips a test of what pods have that are prepared by the bridge alone.
func onlyWithSwitch(t testing.TB) {
	t.Helper()
	if podtest.Datapath(t) == redirect {
		t.Skip("redirect has nothing like it")
	}
}
