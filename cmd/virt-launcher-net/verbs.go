package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/check"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/domain"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

func (p *program) discoverCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "discover",
		Short: "Print what the CNI gave the pod",
		Long: `Print what the CNI gave the pod: interfaces, addresses, routes, permanent
neighbours and DNS. For an interface that is prepared already, what it had.
Changes nothing.`,
		Example: example("discover", "discover --netns /proc/42/ns/net -o json"),
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			pod, err := p.hook.Discover(cmd.Context())
			if err != nil {
				return err
			}
			return p.print(cmd.OutOrStdout(), viewPod(pod))
		},
	}
	p.discoverFlags(cmd.Flags())
	return cmd
}

func (p *program) planCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Print what prepare would do",
		Long: `Print what prepare would do to the pod as the CNI left it, in the language of
ip(8), bridge(8) and nft(8). Changes nothing and runs none of these. Fails where
prepare would, as for want of /dev/net/tun.

` + perInterfaceHelp,
		Example: example("plan", "plan --queues 4 --guard off"),
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			plans, err := p.hook.Plan(cmd.Context())
			if err != nil {
				return err
			}
			return p.print(cmd.OutOrStdout(), viewPlans(plans))
		},
	}
	p.discoverFlags(cmd.Flags())
	p.networkFlags(cmd.Flags())
	return cmd
}

func (p *program) prepareCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "prepare",
		Short: "Rewire the pod's network namespace for the VM",
		Long: `Make the pod's interface a port of a bridge, with a tap for the VM beside it,
and leave the pod's MAC and address free for the VM. All or nothing; done
already, it changes nothing. Print the NICs, and leave them in --output-dir for
libvirt, QEMU, Cloud Hypervisor and Firecracker. Needs NET_ADMIN, /dev/net/tun
and a writable --state-dir; the checksum filter, a part of the port guard, BPF
and PERFMON.

` + perInterfaceHelp,
		Example: example("prepare", "prepare -i eth0 -i net1 --tap-owner 107:107 -o json",
			"prepare -i eth0 -i net1 --mtu 1400 --mac net1=52:54:00:00:00:01",
			"prepare --model e1000e --output-dir /run/nics"),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if p.hook.OutputDir == "" && cmd.Flags().Changed("model") {
				return usagef("--model goes with --output-dir")
			}
			interfaces, err := p.hook.Prepare(cmd.Context())
			if err != nil {
				return err
			}
			return p.print(cmd.OutOrStdout(), interfacesView{interfaces})
		},
	}
	p.discoverFlags(cmd.Flags())
	p.networkFlags(cmd.Flags())
	p.modelFlag(cmd)
	p.outputDirFlag(cmd.Flags())
	return cmd
}

func (p *program) restoreCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restore",
		Short: "Put the pod back as the CNI left it",
		Long: `Put all prepared interfaces, or those named, back as the CNI left them. All or
nothing; nothing prepared is nothing to do. Refused while a VM has a tap open: with
--force it loses its network. What was not made for the VM is left alone.`,
		Example: example("restore", "restore --force", "restore --netns /proc/42/ns/net -o json"),
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			restored, err := p.hook.Restore(cmd.Context())
			if errors.Is(err, check.ErrTapInUse) {
				return fmt.Errorf("%w (--force restores nevertheless)", err)
			}
			if err != nil {
				return err
			}
			return p.print(cmd.OutOrStdout(), restoredView{orEmpty(restored)})
		},
	}
	cmd.Flags().BoolVar(&p.hook.Force, "force", false, "restore although a VM has the tap open")
	return cmd
}

func (p *program) serveCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve DHCP to the VM of a pod that is prepared already",
		Long: `Serve DHCP to the VM of a pod that is prepared already, until SIGTERM, SIGINT or
SIGHUP. Needs NET_RAW, and not what prepare needs.

With --nics no record is needed, as in another container: it takes nics.json, as
prepare leaves it in --output-dir, or what prepare -o json prints. What becomes of the
network is then noticed only if the tap is deleted.

` + perInterfaceHelp,
		Example: example("serve", "serve --lease-time 1h --ntp 192.0.2.123", "serve --nics /run/nics/nics.json --state-dir /run/serve",
			"prepare -o json | virt-launcher-net serve --nics - --state-dir /run/serve"),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var nics []guest.NIC
			if file != "" {
				var err error
				if nics, err = readNICs(cmd.InOrStdin(), file); err != nil {
					return err
				}
			}
			return p.stay(cmd, func(ctx context.Context) (*prestart.Session, error) { return p.hook.Serve(ctx, nics...) })
		},
	}
	cmd.Flags().StringVar(&file, "nics", "", "`file` with the NICs to serve, as prepare leaves or prints them in JSON (-: standard input); default: those of the record in --state-dir")
	p.resolvConfFlag(cmd.Flags())
	p.leaseFlags(cmd.Flags())
	p.monitorFlags(cmd.Flags())
	return cmd
}

// readNICs reads the NICs of a file or, for "-", of standard input.
func readNICs(stdin io.Reader, path string) ([]guest.NIC, error) {
	if path == "-" {
		return prestart.ReadNICs(stdin)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read NICs: %w", err)
	}
	defer file.Close()
	nics, err := prestart.ReadNICs(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return nics, nil
}

func (p *program) domainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "domain FILE",
		Short: "Put the pod's NICs into a libvirt domain's XML",
		Long: `Read a libvirt domain's XML (- is standard input) and print it with the pod's
NICs in it. An interface of the domain with the alias ua-INTERFACE (ua-eth0), the
tap as its target or the VM's MAC becomes the pod's NIC and keeps its PCI address,
boot order and driver. Without one the NIC is added. Any other interface stays; a
warning names each that will not work in a pod. Repeating it changes nothing.

` + perInterfaceHelp,
		Example: example("domain vm.xml > vm-in-pod.xml", "domain --model e1000e - < vm.xml"),
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			xml, err := readDomain(cmd.InOrStdin(), args[0], isDomain)
			if err != nil {
				return err
			}
			out, err := p.hook.Attach(cmd.Context(), xml)
			if err != nil {
				return err
			}
			if p.output == "json" {
				return p.print(cmd.OutOrStdout(), domainView{XML: string(out)})
			}
			_, err = cmd.OutOrStdout().Write(out)
			return err
		},
	}
	p.discoverFlags(cmd.Flags())
	p.networkFlags(cmd.Flags())
	p.modelFlag(cmd)
	return cmd
}

func (p *program) modelFlag(cmd *cobra.Command) {
	defineModel(cmd.Flags(), &p.hook.Model)
	p.perInterface(cmd.Flags(), "model")
}

func defineModel(flags *pflag.FlagSet, model *string) {
	flags.StringVar(model, "model", *model, "emulated NIC `model`, such as virtio or e1000e (default virtio)")
}

// readDomain reads a domain's XML from a file or, for "-", from standard input,
// and has it checked, so that what is wrong with it names the file.
func readDomain(stdin io.Reader, path string, check func([]byte) error) ([]byte, error) {
	const most = 16 << 20
	name, read := path, func() ([]byte, error) { return os.ReadFile(path) }
	if path == "-" {
		name, read = "standard input", func() ([]byte, error) { return io.ReadAll(io.LimitReader(stdin, most)) }
	}
	xml, err := read()
	if err != nil {
		return nil, fmt.Errorf("read domain: %w", err)
	}
	if err := check(xml); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return xml, nil
}

// isDomain tells why there is no domain in the XML.
func isDomain(xml []byte) error {
	_, err := domain.Attach(xml)
	return err
}

// canStart tells why libvirt can't start the domain in the XML.
func canStart(xml []byte) error {
	_, err := domain.Name(xml)
	return err
}

func (p *program) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Print what is: links, lease, server",
		Long: `Print what is: the links of the prepared interfaces as the kernel has them, what
is not as planned and the way out, and what the serving process knows of the
lease. Changes nothing. Exits with 0 whenever it could look, whatever it saw, also
where a named interface is not prepared: wait is what fails.`,
		Example: example("status", "status -o json"),
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := p.hook.Status(cmd.Context())
			if err != nil {
				return err
			}
			return p.print(cmd.OutOrStdout(), statusView{status})
		},
	}
}

func (p *program) waitCommand() *cobra.Command {
	var condition string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "wait --for network|lease",
		Short: "Wait until the network is ready or the VM has its lease",
		Long: `Wait until the network is prepared, as planned, and served (--for network), or
until the VM has its addresses, too (--for lease). If it takes longer than
--timeout, say what is missing and the way out. For probes and init containers.`,
		Example: example("wait --for network", "wait --for lease --timeout 1s"),
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if condition != control.ForNetwork && condition != control.ForLease {
				return usagef("--for %q: want %s or %s", condition, control.ForNetwork, control.ForLease)
			}
			ctx := cmd.Context()
			if timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, timeout)
				defer cancel()
			}
			status, err := control.Client{Netns: p.hook.Netns, StateDir: p.hook.StateDir}.Wait(ctx, condition)
			if err != nil {
				return err
			}
			return p.print(cmd.OutOrStdout(), sessionView{status})
		},
	}
	cmd.Flags().StringVar(&condition, "for", "", "what to wait for: network or lease")
	cmd.Flags().Var(duration(&timeout, 0), "timeout", "how long to wait; 0: without end")
	return cmd
}

func (p *program) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Look from the guest's side of the tap: does DHCP answer, does the gateway resolve",
		Long: `Open the tap as a guest would, ask for a lease and for the gateway's MAC, by
IPv6 for the router and its MAC too, and let go of it again. No VM may be on the
tap; somebody must serve.`,
		Example: example("check", "check -o json"),
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			reports, err := p.hook.Check(cmd.Context())
			if err != nil {
				return err
			}
			return p.print(cmd.OutOrStdout(), checksView{orEmpty(reports)})
		},
	}
}

func (p *program) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: example("version"),
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.print(cmd.OutOrStdout(), currentVersion())
		},
	}
}
