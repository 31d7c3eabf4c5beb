package main

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/virt-launcher-net/virt-launcher-net/internal/monitor"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/dhcp"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/forward"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/netboot"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// value is a flag whose text is parsed into what the library takes. A
// repeatable one is set once for each time it is given.
type value struct {
	kind  string
	text  string
	parse func(string) error
}

func (v *value) String() string { return v.text }
func (v *value) Type() string   { return v.kind }

// Set implements [pflag.Value].
func (v *value) Set(s string) error {
	v.text = s
	return v.parse(s)
}

// discoverFlags are for verbs that may have to wait for the CNI.
func (p *program) discoverFlags(cmd *cobra.Command) {
	cmd.Flags().Var(duration(&p.hook.Timeout, 30*time.Second), "timeout", "how long to wait for the CNI to assign an address; 0: without limit")
	p.resolvConfFlag(cmd)
}

func (p *program) resolvConfFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.hook.ResolvConf, "resolv-conf", "", "`path` of the pod's resolv.conf (default /etc/resolv.conf; with --netns the file of a process in the pod)")
}

// networkFlags say how the pod's interfaces are rewired.
func (p *program) networkFlags(cmd *cobra.Command) {
	p.perInterface(cmd, func(flags *pflag.FlagSet) { defineNetwork(flags, &p.hook.Network) })
}

func defineNetwork(flags *pflag.FlagSet, o *prepare.Options) {
	flags.Var(choice(prepare.DefaultDatapath, func(s string) { o.Datapath = s }, prepare.Datapaths()...), "datapath", "bridge: the VM gets the pod's network, and the pod's containers have none; redirect: they share it")
	flags.Var(&value{kind: "mac", parse: func(s string) (err error) {
		if o.MAC, err = mac.Parse(s); err == nil && !o.MAC.IsHost() {
			err = fmt.Errorf("%s is not a unicast MAC", s)
		}
		return err
	}}, "mac", "the VM's MAC address (default: the pod interface's; with redirect always that)")
	flags.Var(number(&o.MTU, ""), "mtu", "the VM's MTU in bytes (default: the pod interface's)")
	flags.Var(number(&o.Queues, "1"), "queues", "queues of the tap and the NIC")
	flags.Var(&value{kind: "uid[:gid]", parse: func(s string) (err error) {
		o.TapOwner, err = parseOwner(s)
		return err
	}}, "tap-owner", "numeric user and group who may open the tap without privileges")
	flags.Var(choice("on", func(s string) { o.NoGuard = s == "off" }, "on", "off"), "guard", "port guard: drop the VM's forged addresses, and DHCP between VM and pod network")
	flags.Var(choice("on", func(s string) { o.NoIPv6 = s == "off" }, "on", "off"), "ipv6", "give the VM the pod's IPv6 address, if it has one")
	flags.Var(ports(&o.PodPorts), "pod-ports", "with redirect: TCP and UDP ports that stay the pod's, such as 8080,9000-9010/tcp,53/udp; the VM gets all others, pings and other protocols (default none)")
	flags.Var(ports(&o.VMPorts), "vm-ports", "with redirect, in place of --pod-ports: the ports that the VM gets, and the answers to what it opened; the pod has all others, pings and other protocols")
	flags.Var(&value{kind: "address", parse: func(s string) (err error) {
		a, err := parseAddress(s)
		if a.Is4() {
			o.VMAlias = a
		} else {
			o.VMAlias6 = a
		}
		return err
	}}, "vm-alias", "with redirect: the address at which the pod's containers reach the VM, such as 169.254.100.2; repeat it for IPv6 (default: chosen, and printed)")
	flags.Var(linkName(o, "tap"), "tap-name", "`name` of the tap (default tap- and the interface's name)")
	flags.Var(linkName(o, "bridge"), "bridge-name", "with bridge: `name` of the bridge (default br- and the interface's name)")
	flags.Var(linkName(o, "uplink"), "uplink-name", "with bridge: `name` of the pod's interface as a bridge port (default up- and the interface's name)")
}

// ports is for a list of ports.
func ports(p *guest.Ports) *value {
	return &value{kind: "ports", parse: func(s string) error { return p.UnmarshalText([]byte(s)) }}
}

// forwardFlag is for verbs that stay.
func (p *program) forwardFlag(cmd *cobra.Command) {
	cmd.Flags().Var(&value{kind: "[port:]port,...", parse: func(s string) (err error) {
		p.hook.Forwards, err = forward.ParsePorts(s)
		return err
	}}, "forward", "with redirect: TCP ports of the pod's loopback that lead to the VM, for kubectl port-forward: 22,8080:80 lead to the VM's 22 and 80")
}

// linkName is for the name of the link with that role.
func linkName(o *prepare.Options, role string) *value {
	return &value{kind: "string", parse: func(s string) error {
		o.Names = maps.Clone(o.Names) // it may be another interface's, too
		if o.Names == nil {
			o.Names = map[string]string{}
		}
		o.Names[role] = s
		return nil
	}}
}

// number is for a flag of 1 or more; the text is its default.
func number(n *int, text string) *value {
	return &value{kind: "int", text: text, parse: func(s string) (err error) {
		if *n, err = strconv.Atoi(s); err != nil || *n < 1 {
			return errors.New("want a whole number of 1 or more")
		}
		return nil
	}}
}

// duration is for a flag of 0 or more, whose default is 0 if none is shown.
func duration(d *time.Duration, preset time.Duration) *value {
	v := &value{kind: "duration", parse: func(s string) (err error) {
		if *d, err = time.ParseDuration(s); err != nil || *d < 0 {
			return errors.New("want a duration of 0 or more, such as 30s or 1m30s")
		}
		return nil
	}}
	if *d = preset; preset != 0 {
		v.text = preset.String()
	}
	return v
}

// interfaceFlag is repeated. The kernel takes a comma in a name, but who writes
// one means two.
func (p *program) interfaceFlag() *value {
	return &value{kind: "interface", parse: func(s string) error {
		if strings.Contains(s, ",") {
			return errors.New("repeat the flag to name several interfaces")
		}
		p.hook.Interfaces = append(p.hook.Interfaces, s)
		return nil
	}}
}

// outputDirFlag is for verbs after which a VM can be started by someone else.
func (p *program) outputDirFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.hook.OutputDir, "output-dir", "",
		"`directory` to write the NICs to: nics.json, interfaces.xml, qemu.args, cloud-hypervisor.args, firecracker.json")
}

// choice is for a flag that takes one of these words, and is told which; preset is
// its default.
func choice(preset string, take func(string), words ...string) *value {
	return &value{kind: strings.Join(words, "|"), text: preset, parse: func(s string) error {
		if !slices.Contains(words, s) {
			return errors.New("want " + strings.Join(words, " or "))
		}
		take(s)
		return nil
	}}
}

func parseOwner(s string) (*prepare.Owner, error) {
	ids := []int{0, -1} // nobody's group
	for i, word := range strings.SplitN(s, ":", len(ids)) {
		id, err := strconv.ParseUint(word, 10, 31)
		if err != nil {
			return nil, fmt.Errorf("%q is not a numeric id", word)
		}
		ids[i] = int(id)
	}
	return &prepare.Owner{UID: ids[0], GID: ids[1]}, nil
}

// monitorFlags are for verbs that stay.
func (p *program) monitorFlags(cmd *cobra.Command) {
	cmd.Flags().Var(&value{kind: "address", parse: func(s string) error {
		p.listen = s
		return monitor.CheckAddress(s)
	}}, "listen", "`address` of /healthz, /readyz and /metrics: host:port, or unix:PATH (default: none)")
}

func (p *program) modelFlag(cmd *cobra.Command) {
	p.perInterface(cmd, func(flags *pflag.FlagSet) { defineModel(flags, &p.hook.Model) })
}

func defineModel(flags *pflag.FlagSet, model *string) {
	flags.StringVar(model, "model", *model, "emulated NIC `model`, such as virtio or e1000e (default virtio)")
}

// leaseFlags say what the VM is told besides what the CNI gave.
func (p *program) leaseFlags(cmd *cobra.Command) {
	p.perInterface(cmd, func(flags *pflag.FlagSet) { defineLease(flags, &p.hook.Lease) })
	cmd.Flags().StringVar(&p.hook.Lease.DefaultRoute, "default-route", "", "`interface` whose NIC gets the default routes, or none (default: the first interface that has one, for IPv4 and IPv6 separately)")
}

func defineLease(flags *pflag.FlagSet, l *prestart.LeaseSettings) {
	flags.Var(&value{kind: "duration", text: "infinite", parse: func(s string) (err error) {
		if s == "infinite" {
			l.Duration = 0
			return nil
		}
		l.Duration, err = time.ParseDuration(s)
		if err == nil && l.Duration < time.Second {
			err = fmt.Errorf("want one second or more, or infinite")
		}
		return err
	}}, "lease-time", "how long the VM may use its address without asking again")
	flags.StringVar(&l.Hostname, "hostname", l.Hostname, "the VM's host `name` (default: the pod's)")
	flags.Var(repeated(&l.DNS, "address", parseAddress), "dns", "DNS server, repeatable (default: from resolv.conf)")
	flags.StringArrayVar(&l.Search, "search", l.Search, "DNS search `domain`, repeatable (default: from resolv.conf)")
	flags.Var(repeated(&l.NTP, "address", parseAddress), "ntp", "time server, repeatable")
	flags.StringVar(&l.TFTPServer, "tftp-server", l.TFTPServer, "`host` that the firmware loads boot files from (over IPv6 a guest is sent only a name or an IPv6 address)")
	flags.Var(repeated((*[]netboot.File)(&l.BootFiles), "[firmware=]name", netboot.ParseFile),
		"boot-file", "file or URL that the firmware boots, repeatable: pxelinux.0, efi-x64=ipxe.efi, ipxe=boot.ipxe")
	flags.Var(repeated(&l.Options, "code=value", dhcp.ParseOption),
		"dhcp-option", "further DHCP option, repeatable: 252=http://proxy/wpad.dat, 43=0x0104")
}

// repeated is for a flag that adds to a list. What was in it before is replaced.
func repeated[T any](list *[]T, kind string, parse func(string) (T, error)) *value {
	var given []T
	return &value{kind: kind, parse: func(s string) error {
		item, err := parse(s)
		if err == nil {
			given = append(given, item)
			*list = given
		}
		return err
	}}
}

func parseAddress(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		err = errors.New("want an IP address")
	}
	return a, err
}
