package control

import (
	"net/netip"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// What is missing is said of each interface, with what is known of it.
func TestNoLease(t *testing.T) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	address := netip.MustParsePrefix("10.0.0.7/24")
	const guest = "eth0: the guest on tap-eth0 has not got 10.0.0.7/24: "
	other := lease.OtherSource{MAC: mac.Addr{2, 5: 2}, Want: mac.Addr{2, 5: 1}, Count: 3, At: at}
	for _, c := range []struct {
		lease lease.Status
		want  string
	}{
		{lease.Status{State: lease.Bound}, ""},
		{lease.Status{State: lease.Bound, NoCarrier: true}, "eth0: no VM has tap-eth0 open (no carrier); the lease of 10.0.0.7/24 is kept for one that is resumed"},
		{lease.Status{}, guest + "it has not asked for it (is the VM running, with a DHCP client?)"},
		{lease.Status{OtherSource: other}, guest + "a guest with MAC 02:00:00:00:00:02 asks for it (3 times), the VM's is 02:00:00:00:00:01: " + other.Remedy()},
		{
			lease.Status{OtherSource: other, State: lease.Offered, LastMessage: lease.Message{Type: "DISCOVER", At: at.Add(1)}, Received: map[string]uint64{"DISCOVER": 2}},
			guest + "it was offered, but the guest has not requested it; received 2 DISCOVER",
		},
		{
			lease.Status{LastMessage: lease.Message{Type: "DECLINE", At: at}, LastEvent: lease.Event{Type: lease.EventDeclined, At: at}},
			guest + "it declined the address, since another host uses it at 03:04:05",
		},
		{lease.Status{Dropped: map[lease.DropReason]uint64{"bad-checksum": 2, "malformed": 1}}, guest + "its messages were dropped: 2 bad-checksum, 1 malformed"},
		{
			lease.Status{LastMessage: lease.Message{Type: "INFORM", At: at}, Received: map[string]uint64{"INFORM": 1}},
			guest + "received 1 INFORM, the last one at 03:04:05, dropped nothing",
		},
	} {
		c.lease.Interface, c.lease.Address = "tap-eth0", address
		s := Status{Interfaces: []Served{{Name: "eth0", Lease: &c.lease, Lease6: &lease.Status{}}}}
		if got := s.NoLease(); got != c.want {
			t.Errorf("%+v:\n%s\nwant\n%s", c.lease, got, c.want)
		}
	}
	six := Status{Interfaces: []Served{{Name: "net1", Lease6: &lease.Status{Interface: "tap-net1", Address: netip.MustParsePrefix("fd00::7/128")}}}}
	if got, want := six.NoLease(), "net1: the guest on tap-net1 has not got fd00::7/128: it has not asked for it (is the VM running, with a DHCP client?)"; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// The way out is said once, however much it mends.
func TestNotReady(t *testing.T) {
	differs := func(what, is, want, remedy string) prepare.Difference {
		return prepare.Difference{What: what, Is: is, Want: want, Remedy: remedy}
	}
	for _, c := range []struct {
		status Status
		want   string
	}{
		{Status{Ready: true}, ""},
		{Status{}, "the network is not ready yet"},
		{Status{Ended: "session closed"}, "the network is not served any more: session closed"},
		{
			Status{Ended: "session closed", Interfaces: []Served{{Name: "eth0", Error: "tap-eth0 is missing"}}},
			"the network is not served any more: session closed, eth0 is not served: tap-eth0 is missing",
		},
		{
			Status{Interfaces: []Served{
				{Name: "eth0", Differences: []prepare.Difference{differs("br-eth0", "down", "up", "prepare"), differs("up-eth0", "missing", "there", "a new pod")}},
				{Name: "net1", Differences: []prepare.Difference{differs("tap-net1", "down", "up", "prepare")}},
			}},
			"the VM's network is not as planned: eth0: br-eth0 is down, not up, eth0: up-eth0 is missing, which should be there, net1: tap-net1 is down, not up: prepare; a new pod",
		},
	} {
		if got := c.status.NotReady(); got != c.want {
			t.Errorf("%s\nwant\n%s", got, c.want)
		}
	}
}
