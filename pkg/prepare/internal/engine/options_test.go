package engine

import (
	"net/netip"
	"strings"
	"testing"
)

// What is wrong with an alias in any pod is told before one is read.
func TestOptionsAlias(t *testing.T) {
	t.Parallel()
	for alias, isHost := range map[string]bool{
		"169.254.100.2": true, "10.9.8.5": true, "240.1.2.1": true, "fd00:100::2": true, "2001:db8::1": true,
		"0.0.0.0": false, "0.0.0.1": false, "127.0.0.2": false, "224.0.0.1": false, "239.1.2.1": false, "255.255.255.255": false,
		"::": false, "::1": false, "::2": false, "fe80::1": false, "fd00::1%eth0": false, "ff02::1": false, "::ffff:10.1.2.1": false, "64:ff9b::a01:201": false,
	} {
		a := netip.MustParseAddr(alias)
		for o, want := range map[*Options]bool{{VMAlias: a}: isHost && a.Is4(), {VMAlias6: a}: isHost && a.Is6()} {
			err := o.Validate()
			if (err == nil) != want || err != nil && !strings.Contains(err.Error(), "the VM's alias "+alias+" is not an IPv") {
				t.Errorf("%+v: %v", o, err)
			}
		}
	}
}
