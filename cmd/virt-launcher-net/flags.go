package main

import (
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/virt-launcher-net/virt-launcher-net/internal/monitor"
	"github.com/virt-launcher-net/virt-launcher-net/internal/settings"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/forward"
)

// discoverFlags are for verbs that may have to wait for the CNI.
func (p *program) discoverFlags(cmd *cobra.Command) {
	cmd.Flags().Var(settings.Duration(&p.hook.Timeout, 30*time.Second), "timeout", "how long to wait for the CNI to assign an address; 0: without limit")
	p.resolvConfFlag(cmd)
}

func (p *program) resolvConfFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.hook.ResolvConf, "resolv-conf", "", "`path` of the pod's resolv.conf (default /etc/resolv.conf; with --netns the file of a process in the pod)")
}

// networkFlags say how the pod's interfaces are rewired.
func (p *program) networkFlags(cmd *cobra.Command) {
	p.perInterface(cmd, func(flags *pflag.FlagSet) { settings.Network(flags, &p.hook.Network) })
}

// forwardFlag is for verbs that stay.
func (p *program) forwardFlag(cmd *cobra.Command) {
	cmd.Flags().Var(&settings.Value{Kind: "[port:]port,...", Parse: func(s string) (err error) {
		p.hook.Forwards, err = forward.ParsePorts(s)
		return err
	}}, "forward", "with redirect: TCP ports of the pod's loopback that lead to the VM, for kubectl port-forward: 22,8080:80 lead to the VM's 22 and 80")
}

// interfaceFlag is repeated. The kernel takes a comma in a name, but who writes
// one means two.
func (p *program) interfaceFlag() *settings.Value {
	return &settings.Value{Kind: "interface", Parse: func(s string) error {
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

// monitorFlags are for verbs that stay.
func (p *program) monitorFlags(cmd *cobra.Command) {
	cmd.Flags().Var(&settings.Value{Kind: "address", Parse: func(s string) error {
		p.listen = s
		return monitor.CheckAddress(s)
	}}, "listen", "`address` of /healthz, /readyz and /metrics: host:port, or unix:PATH (default: none)")
}

func (p *program) modelFlag(cmd *cobra.Command) {
	p.perInterface(cmd, func(flags *pflag.FlagSet) { settings.Model(flags, &p.hook.Model) })
}

// leaseFlags say what the VM is told besides what the CNI gave.
func (p *program) leaseFlags(cmd *cobra.Command) {
	p.perInterface(cmd, func(flags *pflag.FlagSet) { settings.Lease(flags, &p.hook.Lease) })
	cmd.Flags().StringVar(&p.hook.Lease.DefaultRoute, "default-route", "", "`interface` whose NIC gets the default routes, or none (default: the first interface that has one, for IPv4 and IPv6 separately)")
}
