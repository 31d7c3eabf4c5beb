package prestart_test

import (
	"net/netip"
	"reflect"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
)

// What a session tells is the caller's: whatever becomes of it, the session knows what it
// knew, and compares the network with its own plan.
func TestToldValuesAreTheCallers(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	session := run(t, newHook(t, pod))
	status, interfaces := session.Status(), session.Interfaces()
	want := status.Interfaces[0].Guest.Clone()
	for _, n := range []*guest.NIC{status.Interfaces[0].Guest, &interfaces[0].NIC} {
		n.MAC[0] ^= 2
		n.IPv4.Addresses[0], n.IPv4.Routes[0], n.IPv4.Server = netip.Prefix{}, guest.Route{}, netip.Addr{}
	}
	if now := session.Interfaces()[0].NIC; !reflect.DeepEqual(now, want) {
		t.Errorf("the session says %+v, and said %+v", now, want)
	}
	if now := *session.Status().Interfaces[0].Guest; !reflect.DeepEqual(now, want) {
		t.Errorf("its status says %+v, and said %+v", now, want)
	}
	if why := session.Status().NotReady(); why != "" {
		t.Error(why)
	}
}
