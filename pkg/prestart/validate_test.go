package prestart_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// What can be known to be wrong without a look at the pod is refused before
// anything is done: not even the state directory is made.
func TestRefusedHooks(t *testing.T) {
	const named = "<domain><name>vm</name></domain>"
	for _, c := range []struct {
		name string
		hook prestart.Hook
		want string
	}{
		{"interface", prestart.Hook{Interfaces: []string{"../x"}}, `"../x" is not an interface name`},
		{"interface twice", prestart.Hook{Interfaces: []string{"net1", "net1"}}, "net1 is named twice"},
		{"timeout", prestart.Hook{Timeout: -1}, "timeout"},
		{"options", prestart.Hook{Network: prepare.Options{Names: map[string]string{"tap": "tap%d"}}}, `"tap%d" is not an interface name`},
		{"datapath", prestart.Hook{Network: prepare.Options{Datapath: "x"}}, `no datapath "x": choose bridge or redirect`},
		{"datapath of one", prestart.Hook{PerInterface: map[string]prestart.InterfaceOptions{"net1": {Network: &prepare.Options{Datapath: "x"}}}}, `net1: there is no datapath "x"`},
		{"owner", prestart.Hook{Network: prepare.Options{TapOwner: &prepare.Owner{UID: 1<<32 + 107, GID: -1}}}, "owner, user 4294967403, has a number above 4294967294"},
		{"ports from high to low", prestart.Hook{Network: prepare.Options{Datapath: "redirect", PodPorts: guest.Ports{TCP: []guest.PortRange{{First: 90, Last: 80}}}}}, `"90-80/tcp" is not a port`},
		{"ports that overlap", prestart.Hook{Network: prepare.Options{
			Datapath: "redirect", VMPorts: guest.Ports{UDP: []guest.PortRange{{First: 80, Last: 90}, {First: 85, Last: 95}}},
		}}, `make them by ParsePorts, of "80-95/udp"`},
		{"one MAC for two", prestart.Hook{
			Interfaces: []string{"eth0", "net1"}, Network: prepare.Options{MAC: mac.Addr{2, 0, 0, 0, 0, 1}},
		}, "for one interface"},
		{"one name for two", prestart.Hook{
			Interfaces: []string{"eth0", "net1"}, Network: prepare.Options{Names: map[string]string{"tap": "vm"}},
			PerInterface: map[string]prestart.InterfaceOptions{"net1": {Network: &prepare.Options{Names: map[string]string{"uplink": "vm"}}}},
		}, "eth0 and net1 both have vm"},
		{"options of another", prestart.Hook{
			Interfaces: []string{"eth0"}, PerInterface: map[string]prestart.InterfaceOptions{"net1": {}},
		}, "options of interface net1: it is not one"},
		{"options of one", prestart.Hook{PerInterface: map[string]prestart.InterfaceOptions{"net1": {Network: &prepare.Options{MTU: 5}}}}, "options of interface net1: MTU 5"},
		{"lease of one", prestart.Hook{PerInterface: map[string]prestart.InterfaceOptions{"net1": {Lease: &prestart.LeaseSettings{DefaultRoute: "net1"}}}}, "default route is set once for all"},
		{"model of one", prestart.Hook{PerInterface: map[string]prestart.InterfaceOptions{"net1": {Model: `a"b`}}}, "options of interface net1: model"},
		{"lease time", prestart.Hook{Lease: prestart.LeaseSettings{Duration: 2000000 * time.Hour}}, "duration 2000000h"},
		{"TFTP server", prestart.Hook{Lease: prestart.LeaseSettings{TFTPServer: strings.Repeat("t", 64)}}, "TFTP server"},
		{"hostname", prestart.Hook{Lease: prestart.LeaseSettings{Hostname: "-x"}}, `"-x" is not a host name: it has a '-'`},
		{"hostname of one", prestart.Hook{PerInterface: map[string]prestart.InterfaceOptions{"net1": {Lease: &prestart.LeaseSettings{Hostname: "my vm"}}}}, `options of interface net1: "my vm" is not a host name`},
		{"default route", prestart.Hook{Interfaces: []string{"eth0"}, Lease: prestart.LeaseSettings{DefaultRoute: "net1"}}, "default route: net1"},
		{"model", prestart.Hook{Model: `a"b`}, "model"},
		{"no XML", prestart.Hook{Domain: &prestart.Domain{}}, "parse domain XML"},
		{"no name", prestart.Hook{Domain: &prestart.Domain{XML: []byte("<domain/>")}}, "has no <name>"},
		{"start timeout", prestart.Hook{Domain: &prestart.Domain{XML: []byte(named), StartTimeout: -1}}, "start timeout"},
		{"shutdown timeout", prestart.Hook{Domain: &prestart.Domain{XML: []byte(named), ShutdownTimeout: -1}}, "shutdown timeout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := c.hook
			h.Netns = "/nowhere"
			h.StateDir = filepath.Join(t.TempDir(), h.StateDir, "state")
			_, planned := h.Plan(t.Context())
			_, prepared := h.Prepare(t.Context())
			_, run := h.Run(t.Context())
			_, served := h.Serve(t.Context())
			_, attached := h.Attach(t.Context(), []byte(named))
			for _, err := range []error{planned, prepared, run, served, attached} {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %q", err, c.want)
				}
			}
			if _, err := os.Stat(h.StateDir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the state directory was made: %v", err)
			}
		})
	}
}
