package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"kernel.org/pub/linux/libs/security/libcap/cap"

	"github.com/virt-launcher-net/virt-launcher-net/internal/settings"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/domain"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

func (p *program) plug() verb {
	r := prestart.PlugRequest{}
	given := map[string][]string{}
	return verb{
		use:   "plug INTERFACE",
		short: "Give the running VM a NIC for one more pod interface",
		long: `Ask the program that serves the pod, run --hotplug, to give the running VM a NIC for
one more pod interface. It prepares the interface, serves it, and checks it as run
does. Then it attaches the NIC to the libvirt domain, if run started one. If
another program runs the VM, attach the NIC there: this verb prints it for
libvirt and for QEMU, and the files in run's --output-dir have it.

If a step fails, the earlier ones are undone, and the VM's other NICs are not
affected. Options that are not given are those of run. A restart of run serves the
interface again. Needs no privileges but the user's, who must be root or that of run.

In a pod that the node's agent serves, NICs are added and removed by the CNI plugin
instead, as when Multus attaches a network to the pod.`,
		examples: []string{
			"plug net1", "plug net1 --mac 52:54:00:00:00:01 --model e1000e", "plug net1 --datapath redirect -o json",
			"plug net1 --netns /proc/42/ns/net",
		},
		args: 1,
		flags: []func(*cobra.Command){func(cmd *cobra.Command) {
			cmd.Flags().Var(settings.Duration(&r.Timeout, 30*time.Second), "timeout", "how long to wait for the CNI to make the interface and to assign an address")
			given = settings.Given(cmd.Flags())
		}},
		run: func(cmd *cobra.Command) (view, error) {
			if err := p.oneInterface(cmd, &r); err != nil {
				return view{}, err
			}
			r.Options = map[string]json.RawMessage{}
			for key, texts := range given {
				value, err := json.Marshal(texts)
				if err != nil {
					return view{}, err
				}
				r.Options[key] = value
			}
			plugged, err := p.hook.Plug(cmd.Context(), r)
			if err != nil {
				return view{}, err
			}
			return viewPlugged(plugged)
		},
	}
}

func (p *program) unplug() verb {
	r := prestart.PlugRequest{}
	return verb{
		use:   "unplug INTERFACE",
		short: "Take a NIC from the running VM, and put its pod interface back",
		long: `Ask the program that serves the pod, run --hotplug, to take the NIC of a pod
interface from the running VM, and to put the interface back as the CNI left it. If
run started the libvirt domain, it detaches the NIC there first; the guest has
--timeout to release it. If another program runs the VM, detach the NIC there
first: while the VM has the tap open, this verb changes nothing.

If the guest does not release the NIC, it stays plugged in and served. The guest may
still release it later: then run this verb again.`,
		examples: []string{"unplug net1", "unplug net1 --timeout 2m"},
		args:     1,
		flags: []func(*cobra.Command){func(cmd *cobra.Command) {
			cmd.Flags().Var(settings.Duration(&r.Timeout, prestart.DefaultUnplugTimeout), "timeout", "how long the guest may take to release the NIC")
		}},
		run: func(cmd *cobra.Command) (view, error) {
			if err := p.oneInterface(cmd, &r); err != nil {
				return view{}, err
			}
			err := p.hook.Unplug(cmd.Context(), r)
			return view{map[string]string{"unplugged": r.Interface}, func(io.Writer) {}}, err
		},
	}
}

// oneInterface has a request be about the interface that is the verb's argument.
func (p *program) oneInterface(cmd *cobra.Command, r *prestart.PlugRequest) error {
	if len(p.hook.Interfaces) > 0 {
		return usagef("%s takes the interface as its argument, not by --interface", cmd.Name())
	}
	r.Interface = cmd.Flags().Arg(0)
	check := prestart.Hook{Interfaces: []string{r.Interface}}
	if err := check.Validate(); err != nil {
		return usageError{err}
	}
	return nil
}

// pluggedView is what attaches the NIC where the session has no domain, too.
type pluggedView struct {
	prestart.Plugged
	Libvirt string   `json:"libvirt"`           // the device's XML
	Monitor []string `json:"monitor,omitempty"` // commands of QEMU's monitor, where q35 wants a bus, too; none: QEMU has no such NIC
}

func viewPlugged(plugged prestart.Plugged) (view, error) {
	nic := plugged.DomainNIC()
	xml, err := domain.Interfaces(nic)
	if err != nil {
		return view{}, fmt.Errorf("describe NIC: %w", err)
	}
	v := pluggedView{Plugged: plugged, Libvirt: string(xml)}
	if args, err := domain.QEMUArgs(nic); err == nil {
		for i := 0; i+1 < len(args); i += 2 { // -netdev, -device
			v.Monitor = append(v.Monitor, strings.TrimPrefix(args[i], "-")+"_add "+args[i+1])
		}
	}
	return view{v, func(w io.Writer) {
		viewPrepared([]prestart.Interface{plugged.Interface}).text(w)
		if plugged.Domain != "" {
			fmt.Fprintf(w, "attached to the domain %s\n", plugged.Domain)
			return
		}
		fmt.Fprintf(w, "attach it to the VM; with libvirt by virsh attach-device DOMAIN FILE --live, where FILE is\n%s", v.Libvirt)
		if len(v.Monitor) > 0 {
			fmt.Fprintf(w, "with QEMU alone by its monitor\n%s\n", strings.Join(v.Monitor, "\n"))
			fmt.Fprint(w, "where a q35 machine wants ,bus=ID behind device_add's, with the id of a free pcie-root-port that QEMU was started with\n")
		}
	}}, nil
}

// hotplug lets a session plug interfaces in, with the options of the verb plug.
func hotplug() *prestart.Hotplug {
	return &prestart.Hotplug{
		Options: func(o prestart.InterfaceOptions, asked map[string]json.RawMessage) (prestart.InterfaceOptions, error) {
			options := settings.Options{Network: *o.Network, Lease: *o.Lease, Model: o.Model}
			err := options.Set(asked)
			return prestart.InterfaceOptions{Network: &options.Network, Lease: &options.Lease, Model: options.Model}, err
		},
		Privileged: func(fn func() error) error {
			return withPrivileges(fn, cap.NET_ADMIN, cap.NET_RAW, cap.BPF, cap.PERFMON, cap.SYS_ADMIN)
		},
	}
}
