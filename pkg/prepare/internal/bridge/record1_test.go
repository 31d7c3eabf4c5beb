package bridge

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

// What version 1 did not give to the placeholder is given to it by the plan that is read
// from its record: readiness compares with that, and prepare repairs by it.
func TestDecode1GivesPlaceholderIPv6(t *testing.T) {
	const (
		iface = `{"name": "eth0", "index": 2, "kind": "veth", "mac": "32:76:49:58:fd:82", "mtu": 1500,
			"up": true, "carrier": true, "arp": true, "ethernet": true, "addresses": [
			{"prefix": "10.77.14.7/24", "scope": "global", "flags": 128},
			{"prefix": "fd77:14::7/64", "scope": "global", "flags": 130}]}`
		plan = `{"mac": "32:76:49:58:fd:82", "mtu": 1500, "tap": {"name": "tap-eth0", "queues": 1}, "guard": true,
			"ipv6": {"address": "fd77:14::7/64"}, "bridge": {"name": "br-eth0", "uplink": "up-eth0"}}`
	)
	var in discover.Interface
	if err := json.Unmarshal([]byte(iface), &in); err != nil {
		t.Fatal(err)
	}
	decoded, err := Datapath{}.Decode(in, 1, json.RawMessage(plan))
	if err != nil {
		t.Fatal(err)
	}
	planned, err := Datapath{}.Wire(in, decoded.Options())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := decoded.(wiring).Addresses, planned.(wiring).Addresses; len(want) != 2 || !slices.Equal(got, want) {
		t.Errorf("the placeholder has %v by the record, %v by a plan of today", got, want)
	}
}
