package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/virt-launcher-net/virt-launcher-net/internal/settings"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/check"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/domain"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// verb is a command of the program.
type verb struct {
	use, short, long string
	examples         []string
	args             int // how many it has, apart from flags
	flags            []func(*cobra.Command)
	run              func(*cobra.Command) (view, error) // no view if it has printed
	verbs            []verb                             // below it
}

// name is how the verb is called.
func (v verb) name() string {
	name, _, _ := strings.Cut(v.use, " ")
	return name
}

// command makes a verb a command of cobra; one that is not named is only to be listed.
func (p *program) command(v verb, named bool) *cobra.Command {
	cmd := &cobra.Command{
		Use: v.use, Short: v.short,
		RunE: func(cmd *cobra.Command, _ []string) error {
			shown, err := v.run(cmd)
			if err != nil {
				return err
			}
			return p.print(cmd.OutOrStdout(), shown)
		},
	}
	if !named {
		return cmd
	}
	cmd.Long, cmd.Example = v.long, "  virt-launcher-net "+strings.Join(v.examples, "\n  virt-launcher-net ")
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) != v.args {
			_, name, _ := strings.Cut(v.use, " ")
			return usageError{suggestVerb(fmt.Errorf("%s: want %s, not %q", cmd.Name(), []string{"no argument", "one argument, " + name}[v.args], args), cmd, args)}
		}
		return nil
	}
	for _, define := range v.flags {
		define(cmd)
	}
	for _, below := range v.verbs {
		cmd.AddCommand(p.command(below, true))
	}
	return cmd
}

func (p *program) verbs() []verb {
	return []verb{p.discover(), p.plan(), p.prepare(), p.restore(), p.serve(), p.domain(), p.run(), p.plug(), p.unplug(), p.status(), p.wait(), p.check(), p.node(), p.version()}
}

func (p *program) discover() verb {
	return verb{
		use:   "discover",
		short: "Print what the CNI gave the pod",
		long: `Print what the CNI gave the pod: interfaces, addresses, routes, permanent
neighbors and DNS. For a prepared interface this is what it had before. Changes
nothing.`,
		examples: []string{"discover", "discover --netns /proc/42/ns/net -o json"},
		flags:    []func(*cobra.Command){p.discoverFlags},
		run: func(cmd *cobra.Command) (view, error) {
			pod, err := p.hook.Discover(cmd.Context())
			return view{viewPod(pod), func(w io.Writer) { writePod(w, pod) }}, err
		},
	}
}

func (p *program) plan() verb {
	return verb{
		use:   "plan",
		short: "Print what prepare would do",
		long: `Print what prepare would do to the pod as the CNI left it, as commands of ip(8),
bridge(8), nft(8) and sysctl(8) that can be pasted into a shell. Changes nothing and
runs none of these. Fails where prepare would fail, for example without
/dev/net/tun. A pod that is changed by pasting has no record: restore can't put it back.`,
		examples: []string{"plan", "plan --queues 4 --guard off", "plan --datapath redirect --pod-ports 8080"},
		flags:    []func(*cobra.Command){p.discoverFlags, p.networkFlags},
		run: func(cmd *cobra.Command) (view, error) {
			plans, err := p.hook.Plan(cmd.Context())
			views := viewPlans(plans)
			return view{list("interfaces", views), func(w io.Writer) { writePlans(w, views) }}, err
		},
	}
}

func (p *program) prepare() verb {
	return verb{
		use:   "prepare",
		short: "Connect a tap for the VM to the pod's network",
		long: `Connect a tap for the VM with the pod's interface, whose MAC and addresses the VM
gets. With --datapath bridge, the default, the pod's containers have no network from
then on; with --datapath redirect they share it with the VM, and ports decide.

If a step fails, the earlier ones are undone. In a pod that is prepared already it
changes nothing, or repairs what differs; with redirect it can change --pod-ports and
--vm-ports while the VM runs. Prints the NICs, and with --output-dir writes them to
files for libvirt, QEMU, Cloud Hypervisor and Firecracker. Needs NET_ADMIN,
/dev/net/tun and a writable --state-dir. The checksum filter, a part of the port guard,
needs BPF and PERFMON, too.`,
		examples: []string{
			"prepare", "prepare -i eth0 -i net1 --tap-owner 107:107 -o json",
			"prepare -i eth0 -i net1 --mtu 1400 --mac net1=52:54:00:00:00:01",
			"prepare --model e1000e --output-dir /run/nics",
			"prepare --datapath redirect --pod-ports 8080,9100/tcp",
		},
		flags: []func(*cobra.Command){p.discoverFlags, p.networkFlags, p.modelFlag, p.outputDirFlag},
		run: func(cmd *cobra.Command) (view, error) {
			if p.hook.OutputDir == "" && cmd.Flags().Changed("model") {
				return view{}, usagef("--model needs --output-dir")
			}
			interfaces, err := p.hook.Prepare(cmd.Context())
			return viewPrepared(interfaces), err
		},
	}
}

func (p *program) restore() verb {
	return verb{
		use:   "restore",
		short: "Put the pod back as the CNI left it",
		long: `Put all prepared interfaces, or those named, back as the CNI left them. If a step
fails, the earlier ones are undone. Refuses while a VM has a tap open, because the
VM would lose its network; --force restores all the same. Links that were not made
for the VM stay.`,
		examples: []string{"restore", "restore --force", "restore --netns /proc/42/ns/net -o json"},
		flags: []func(*cobra.Command){func(cmd *cobra.Command) {
			cmd.Flags().BoolVar(&p.hook.Force, "force", false, "restore although a VM has the tap open")
		}},
		run: func(cmd *cobra.Command) (view, error) {
			restored, err := p.hook.Restore(cmd.Context())
			if errors.Is(err, check.ErrTapInUse) {
				err = fmt.Errorf("%w (--force restores all the same)", err)
			}
			return view{list("restored", restored), func(io.Writer) {}}, err // to people the log says so
		},
	}
}

func (p *program) serve() verb {
	var file string
	return verb{
		use:   "serve",
		short: "Serve DHCP to the VM of a pod that is prepared already",
		long: `Serve DHCP to the VM of a pod that is prepared already, until SIGTERM, SIGINT or
SIGHUP. Needs NET_RAW only.

With --nics it needs no record, as in another container: it reads nics.json, which
prepare writes to --output-dir, or the output of prepare -o json. It then notices
of the network only that the tap is deleted.`,
		examples: []string{
			"serve", "serve --lease-time 1h --ntp 192.0.2.123", "serve --nics /run/nics/nics.json --state-dir /run/serve",
			"prepare -o json | virt-launcher-net serve --nics - --state-dir /run/serve",
		},
		flags: []func(*cobra.Command){p.resolvConfFlag, p.leaseFlags, p.monitorFlags, p.forwardFlag, func(cmd *cobra.Command) {
			cmd.Flags().StringVar(&file, "nics", "", "`file` with the NICs to serve, as prepare writes or prints them in JSON (-: standard input); default: those of the record in --state-dir")
		}},
		run: func(cmd *cobra.Command) (view, error) {
			var nics []guest.NIC
			if file != "" {
				err := readFile(cmd.Context(), cmd.InOrStdin(), file, "NICs", func(text []byte) (err error) {
					nics, err = prestart.ParseNICs(text)
					return err
				})
				if err != nil {
					return view{}, err
				}
			}
			return view{}, p.stay(cmd, func(ctx context.Context) (*prestart.Session, error) { return p.hook.Serve(ctx, nics...) })
		},
	}
}

func (p *program) domain() verb {
	return verb{
		use:   "domain FILE",
		short: "Put the pod's NICs into a libvirt domain's XML",
		long: `Read a libvirt domain's XML (- is standard input) and print it with the pod's
NICs in it. An interface of the domain with the alias ua-INTERFACE (ua-eth0), the
tap as its target or the VM's MAC becomes the pod's NIC and keeps its PCI address,
boot order and driver. If none matches, a NIC is added. Other interfaces stay; a
warning names each one that will not work in a pod. Running it again changes
nothing.`,
		examples: []string{"domain vm.xml > vm-in-pod.xml", "domain --model e1000e - < vm.xml"},
		args:     1,
		flags:    []func(*cobra.Command){p.discoverFlags, p.networkFlags, p.modelFlag},
		run: func(cmd *cobra.Command) (view, error) {
			var xml []byte
			err := readFile(cmd.Context(), cmd.InOrStdin(), cmd.Flags().Arg(0), "domain", func(text []byte) error {
				xml = text
				_, err := domain.Attach(text) // is it one?
				return err
			})
			if err != nil {
				return view{}, err
			}
			xml, err = p.hook.Attach(cmd.Context(), xml)
			return view{map[string]string{"xml": string(xml)}, func(w io.Writer) { fmt.Fprintf(w, "%s", xml) }}, err
		},
	}
}

func (p *program) status() verb {
	return verb{
		use:   "status",
		short: "Print the state of links, lease and server",
		long: `Print the links of the prepared interfaces as the kernel has them, what is not as
planned and how to repair it, and the lease as the server knows it. Changes nothing.
Exits with 0 whenever it could look, even if a named interface is not prepared; use
wait for an exit code.`,
		examples: []string{"status", "status -o json"},
		run: func(cmd *cobra.Command) (view, error) {
			status, err := p.hook.Status(cmd.Context())
			return view{status, func(w io.Writer) { writeStatus(w, status) }}, err
		},
	}
}

func (p *program) wait() verb {
	var condition string
	var timeout time.Duration
	return verb{
		use:   "wait --for network|lease",
		short: "Wait until the network is ready or the VM has its lease",
		long: `Wait until the network is prepared, as planned, and served (--for network), or
until a VM that is there has its addresses, too (--for lease). If it takes longer than
--timeout, it says what is missing and what to do. For probes and init containers.

In a pod that the node's agent serves it works in any container, without privileges.
With --output-dir it writes there what the launcher of the VM needs to know of the NICs,
as prepare does.`,
		examples: []string{"wait --for network", "wait --for lease --timeout 1s", "wait --for network --output-dir /run/nics"},
		flags: []func(*cobra.Command){p.outputDirFlag, func(cmd *cobra.Command) {
			cmd.Flags().StringVar(&condition, "for", "", "what to wait for: network or lease")
			cmd.Flags().Var(settings.Duration(&timeout, 0), "timeout", "how long to wait; 0, the default: without limit")
		}},
		run: func(cmd *cobra.Command) (view, error) {
			if condition != control.ForNetwork && condition != control.ForLease {
				given := cmp.Or(condition, "is missing")
				return view{}, usagef("--for %s: want %s or %s", given, control.ForNetwork, control.ForLease)
			}
			ctx := cmd.Context()
			if timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, timeout)
				defer cancel()
			}
			status, err := control.Client{Netns: p.hook.Netns, StateDir: p.hook.StateDir, Log: p.hook.Log}.Wait(ctx, condition)
			if err == nil && p.hook.OutputDir != "" {
				err = p.hook.HandOver(status)
			}
			return view{status, func(w io.Writer) { writeLeases(w, status) }}, err
		},
	}
}

func (p *program) check() verb {
	return verb{
		use:   "check",
		short: "Act as a guest on the tap: does DHCP answer, does the gateway resolve",
		long: `Open the tap as a guest would. Ask for a lease, and for the MAC of the gateway; with
IPv6 ask for the router and its MAC, too. Then close the tap. Needs a server that
runs, and no VM on the tap.`,
		examples: []string{"check", "check -o json"},
		run: func(cmd *cobra.Command) (view, error) {
			reports, err := p.hook.Check(cmd.Context())
			return view{list("interfaces", reports), func(w io.Writer) { writeChecks(w, reports) }}, err
		},
	}
}

func (p *program) version() verb {
	return verb{
		use:      "version",
		short:    "Print the version",
		examples: []string{"version"},
		run: func(*cobra.Command) (view, error) {
			v := currentVersion()
			return view{v, func(w io.Writer) { writeVersion(w, v) }}, nil
		},
	}
}
