// Package settings has the options of the program: each is defined once, with its text
// and its checks, for the command line and for the JSON of a CNI configuration.
package settings

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/dhcp"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/netboot"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// Network defines the flags of how a pod interface is prepared.
func Network(flags *pflag.FlagSet, o *prepare.Options) {
	flags.Var(Choice(prepare.DefaultDatapath, func(s string) { o.Datapath = s }, prepare.Datapaths()...), "datapath", "bridge: the VM gets the pod's network, and the pod's containers have none; redirect: they share it")
	flags.Var(&Value{Kind: "mac", Parse: func(s string) (err error) {
		if o.MAC, err = mac.Parse(s); err == nil && !o.MAC.IsHost() {
			err = fmt.Errorf("%s is not a unicast MAC", s)
		}
		return err
	}}, "mac", "the VM's MAC address (default: the pod interface's; with redirect always that)")
	flags.Var(Number(&o.MTU, ""), "mtu", "the VM's MTU in bytes (default: the pod interface's)")
	flags.Var(Number(&o.Queues, "1"), "queues", "queues of the tap and the NIC")
	flags.Var(&Value{Kind: "uid[:gid]", Parse: func(s string) (err error) {
		o.TapOwner, err = parseOwner(s)
		return err
	}}, "tap-owner", "numeric user and group who may open the tap without privileges")
	flags.StringVar(&o.SELinuxContext, "selinux-context", o.SELinuxContext, "SELinux `context` that the tap is made with, where the VM's process has another than this one (default: this process's)")
	flags.Var(Choice("on", func(s string) { o.NoGuard = s == "off" }, "on", "off"), "guard", "port guard: drop the VM's forged addresses, and DHCP between VM and pod network")
	flags.Var(Choice("on", func(s string) { o.NoIPv6 = s == "off" }, "on", "off"), "ipv6", "give the VM the pod's IPv6 address, if it has one")
	flags.Var(ports(&o.PodPorts), "pod-ports", "with redirect: TCP and UDP ports that stay the pod's, such as 8080,9000-9010/tcp,53/udp; the VM gets all others, pings and other protocols (default none)")
	flags.Var(ports(&o.VMPorts), "vm-ports", "with redirect, in place of --pod-ports: the ports that the VM gets, and the answers to what it opened; the pod has all others, pings and other protocols")
	flags.Var(alias(o), "vm-alias", "with redirect: the address at which the pod's containers reach the VM, such as 169.254.100.2; repeat it for IPv6 (default: chosen, and printed)")
	flags.Var(linkName(o, "tap"), "tap-name", "`name` of the tap (default tap- and the interface's name)")
	flags.Var(linkName(o, "bridge"), "bridge-name", "with bridge: `name` of the bridge (default br- and the interface's name)")
	flags.Var(linkName(o, "uplink"), "uplink-name", "with bridge: `name` of the pod's interface as a bridge port (default up- and the interface's name)")
}

// LeaveInherited takes from an interface's options those that it has inherited and that do not
// go with what is given for it alone: nothing that could be given would take them away.
func LeaveInherited(o *prepare.Options, inherited prepare.Options, given func(flag string) bool) {
	pods, vms := given("pod-ports"), given("vm-ports")
	other := o.Datapath != inherited.Datapath
	if !pods && (vms || other) {
		o.PodPorts = guest.Ports{}
	}
	if !vms && (pods || other) {
		o.VMPorts = guest.Ports{}
	}
	if other && !given("vm-alias") {
		o.VMAlias, o.VMAlias6 = netip.Addr{}, netip.Addr{}
	}
}

// alias is for the VM's alias, one of each family.
func alias(o *prepare.Options) *Value {
	given := map[bool]string{} // by whether it is IPv4's
	return &Value{Kind: "address", Parse: func(s string) error {
		a, err := Address(s)
		if err != nil {
			return err
		}
		if other := given[a.Is4()]; other != "" {
			return fmt.Errorf("%s is given already: want at most one IPv4 and one IPv6 address", other)
		}
		given[a.Is4()] = s
		if a.Is4() {
			o.VMAlias = a
		} else {
			o.VMAlias6 = a
		}
		return prepare.Options{VMAlias: o.VMAlias, VMAlias6: o.VMAlias6}.Validate()
	}}
}

// ports is for a list of ports.
func ports(p *guest.Ports) *Value {
	return &Value{Kind: "ports", Parse: func(s string) error { return p.UnmarshalText([]byte(s)) }}
}

// linkName is for the name of the link with that role.
func linkName(o *prepare.Options, role string) *Value {
	return &Value{Kind: "string", Parse: func(s string) error {
		o.Names = maps.Clone(o.Names) // it may be another interface's, too
		if o.Names == nil {
			o.Names = map[string]string{}
		}
		o.Names[role] = s
		return nil
	}}
}

func parseOwner(s string) (*prepare.Owner, error) {
	ids := []int{0, -1} // nobody's group
	for i, word := range strings.SplitN(s, ":", len(ids)) {
		id, err := strconv.ParseUint(word, 10, 31)
		if err != nil {
			return nil, fmt.Errorf("%q is not a numeric id: want those of a user and a group, such as 107:107, or of a user", word)
		}
		ids[i] = int(id)
	}
	return &prepare.Owner{UID: ids[0], GID: ids[1]}, nil
}

// Model defines the flag of the emulated NIC.
func Model(flags *pflag.FlagSet, model *string) {
	flags.StringVar(model, "model", *model, "emulated NIC `model`, such as virtio or e1000e (default virtio)")
}

// Lease defines the flags of what the VM is told besides what the CNI gave.
func Lease(flags *pflag.FlagSet, l *prestart.LeaseSettings) {
	flags.Var(&Value{Kind: "duration", Text: "infinite", Parse: func(s string) (err error) {
		if s == "infinite" {
			l.Duration = 0
			return nil
		}
		if l.Duration, err = time.ParseDuration(s); err != nil || l.Duration < time.Second {
			return errors.New("want a duration of one second or more, such as 1h, or infinite")
		}
		return nil
	}}, "lease-time", "how long the VM may use its address without asking again")
	flags.StringVar(&l.Hostname, "hostname", l.Hostname, "the VM's host `name` (default: the pod's)")
	flags.Var(Repeated(&l.DNS, "address", Address), "dns", "DNS server, repeatable (default: from resolv.conf)")
	flags.StringArrayVar(&l.Search, "search", l.Search, "DNS search `domain`, repeatable (default: from resolv.conf)")
	flags.Var(Repeated(&l.NTP, "address", Address), "ntp", "time server, repeatable")
	flags.StringVar(&l.TFTPServer, "tftp-server", l.TFTPServer, "`host` that the firmware loads boot files from (over IPv6 a guest is sent only a name or an IPv6 address)")
	flags.Var(Repeated((*[]netboot.File)(&l.BootFiles), "[firmware=]name", netboot.ParseFile),
		"boot-file", "file or URL that the firmware boots, repeatable: pxelinux.0, efi-x64=ipxe.efi, ipxe=boot.ipxe")
	flags.Var(Repeated(&l.Options, "code=value", dhcp.ParseOption),
		"dhcp-option", "further DHCP option, repeatable: 252=http://proxy/wpad.dat, 43=0x0104")
}
