package main

import (
	"context"
	"errors"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

func (p *program) runCommand() *cobra.Command {
	var domainFile string
	var dom prestart.Domain
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Do everything: discover, prepare, serve, check, and run the VM if there is a domain",
		Long: `Discover and prepare the pod, serve the VM's DHCP, prove from the guest's seat
that a guest gets its network, and with --domain start the libvirt domain.
Stays until SIGTERM or SIGINT, which shuts the VM down, or until the VM stops. A
second signal ends it at once. The pod stays prepared; see restore.`,
		Example: example("run", "run --domain vm.xml --connect qemu:///system",
			"run --netns /proc/42/ns/net --domain vm.xml --connect 'qemu:///embed?root=/var/lib/vm'"),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if domainFile != "" {
				xml, err := readDomain(cmd.InOrStdin(), domainFile)
				if err != nil {
					return err
				}
				dom.XML = xml
				p.hook.Domain = &dom
			}
			for _, flag := range []string{"connect", "start-timeout", "shutdown-timeout", "model"} {
				if domainFile == "" && cmd.Flags().Changed(flag) {
					return usagef("--%s goes with --domain", flag)
				}
			}
			session, err := p.hook.Run(cmd.Context())
			if err != nil {
				return err
			}
			return p.stay(cmd, session)
		},
	}
	p.discoverFlags(cmd.Flags())
	p.networkFlags(cmd.Flags())
	p.leaseFlags(cmd.Flags())
	p.modelFlag(cmd)
	cmd.Flags().StringVar(&domainFile, "domain", "", "`file` with the XML of the libvirt domain to start (-: standard input)")
	cmd.Flags().StringVar(&dom.URI, "connect", "qemu:///system", "libvirt's `URI`; qemu:///embed?root=DIR needs no daemon")
	cmd.Flags().DurationVar(&dom.StartTimeout, "start-timeout", prestart.DefaultStartTimeout, "how long libvirt may take to answer and to start the VM")
	cmd.Flags().DurationVar(&dom.ShutdownTimeout, "shutdown-timeout", prestart.DefaultShutdownTimeout, "how long the guest may take to shut down before it is destroyed")
	cmd.Flags().BoolVar(&p.hook.SkipCheck, "no-check", false, "start without proving that a guest gets its network")
	return cmd
}

// stay gives up privileges, prints the networks and waits until a signal, or until the VM stops.
func (p *program) stay(cmd *cobra.Command, session *prestart.Session) error {
	started := time.Now()
	if err := giveUpPrivileges(p.hook.Domain); err != nil { // the VM can do without
		p.hook.Log.Warn("can't give up privileges that are no longer needed", "error", err)
	}
	err := p.print(cmd.OutOrStdout(), networksView{session.Networks()})
	if err == nil {
		err = session.Wait(cmd.Context())
	}
	if cmd.Context().Err() != nil {
		err = nil // a signal is a good end
		p.hook.Log.Info("signal received: ending", "after", time.Since(started).Round(time.Second))
	}
	ctx, cancel := hurry(cmd.Context())
	defer cancel()
	closeErr := session.Close(ctx)
	if err != nil && errors.Is(closeErr, err) { // a server's failure ends both
		return err
	}
	return errors.Join(err, closeErr)
}

// hurry returns a context that the next signal ends: the one that says "now".
func hurry(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.WithoutCancel(ctx), unix.SIGINT, unix.SIGTERM)
}
