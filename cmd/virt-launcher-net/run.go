package main

import (
	"context"
	"errors"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"

	"github.com/virt-launcher-net/virt-launcher-net/internal/monitor"
	"github.com/virt-launcher-net/virt-launcher-net/internal/settings"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/domain"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

func (p *program) run() verb {
	var domainFile string
	var dom prestart.Domain
	return verb{
		use:   "run",
		short: "Do everything: discover, prepare, serve, check, and run the VM if there is a domain",
		long: `Discover and prepare the pod, serve the VM's DHCP, and check from the guest's side
that a guest gets its network. With --domain start the libvirt domain; with
--output-dir write the NICs to files for the program that starts the VM instead.
Runs until SIGTERM, SIGINT or SIGHUP, which shuts the VM down, or until the VM
stops. A second signal ends it at once. The pod stays prepared; see restore.`,
		examples: []string{
			"run", "run --domain vm.xml --connect qemu:///system",
			"run --netns /proc/42/ns/net --domain vm.xml --connect 'qemu:///embed?root=/var/lib/vm'",
			"run --output-dir /run/nics",
			"run --output-dir /run/nics --datapath redirect --pod-ports 8080 --forward 22",
		},
		flags: []func(*cobra.Command){
			p.discoverFlags, p.networkFlags, p.leaseFlags, p.modelFlag, p.outputDirFlag, p.monitorFlags, p.forwardFlag,
			func(cmd *cobra.Command) {
				flags := cmd.Flags()
				flags.StringVar(&domainFile, "domain", "", "`file` with the XML of the libvirt domain to start (-: standard input)")
				flags.StringVar(&dom.URI, "connect", "qemu:///system", "libvirt's `URI`; qemu:///embed?root=DIR needs no daemon")
				flags.Var(settings.Duration(&dom.StartTimeout, prestart.DefaultStartTimeout), "start-timeout", "how long libvirt may take to answer and to start the VM")
				flags.Var(settings.Duration(&dom.ShutdownTimeout, prestart.DefaultShutdownTimeout), "shutdown-timeout", "how long the guest may take to shut down before it is destroyed")
				flags.BoolVar(&p.hook.RestoreAfter, "restore", false, "at the end put the pod back as the CNI left it: needed by CNIs that take their device back (host-device, SR-IOV)")
				flags.BoolVar(&p.hotplug, "hotplug", false, "keep the privileges to plug further interfaces in, by the verbs plug and unplug")
				flags.BoolVar(&p.hook.SkipCheck, "no-check", false, "start without checking that a guest gets its network")
			},
		},
		run: func(cmd *cobra.Command) (view, error) {
			if domainFile != "" {
				err := readFile(cmd.Context(), cmd.InOrStdin(), domainFile, "domain", func(text []byte) error {
					dom.XML = text
					_, err := domain.Name(text) // else libvirt can't start it
					return err
				})
				if err != nil {
					return view{}, err
				}
				p.hook.Domain = &dom
			}
			for _, flag := range []string{"connect", "start-timeout", "shutdown-timeout"} {
				if domainFile == "" && cmd.Flags().Changed(flag) {
					return view{}, usagef("--%s needs --domain", flag)
				}
			}
			if domainFile == "" && p.hook.OutputDir == "" && cmd.Flags().Changed("model") {
				return view{}, usagef("--model needs --domain or --output-dir")
			}
			p.hook.Elevate = takeUpPrivileges
			return view{}, p.stay(cmd, p.hook.Run)
		},
	}
}

// stay starts a session, gives up privileges, prints the networks and waits
// until a signal, or until the VM stops.
func (p *program) stay(cmd *cobra.Command, start func(context.Context) (*prestart.Session, error)) (err error) {
	signal.Ignore(unix.SIGPIPE) // who reads the log may end sooner, and must not end the VM
	collectAt(60)               // not yet while it starts: the first collection takes as much memory as that leaves
	watch := func(*prestart.Session) {}
	if p.listen != "" {
		m, err := monitor.Listen(cmd.Context(), p.hook.Log, p.listen, version)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, m.Close()) }()
		watch = func(s *prestart.Session) {
			warnOfVMs(p.hook.Log, m.Addr(), s.Interfaces())
			m.Watch(privileged{s})
		}
	}
	session, err := start(cmd.Context())
	if err != nil {
		return err
	}
	started := time.Now()
	if err := giveUpPrivileges(session.Embedded(), p.laterPrivileges()...); err != nil { // the VM can do without
		p.hook.Log.Warn("can't give up privileges that are no longer needed", "error", err)
	}
	watch(session)
	err = p.print(cmd.OutOrStdout(), viewPrepared(session.Interfaces()))
	if err == nil {
		err = session.Wait(cmd.Context())
	}
	ctx, cancel := signal.NotifyContext(context.WithoutCancel(cmd.Context()), endSignals()...) // the next signal says "now"
	defer cancel()
	defer context.AfterFunc(ctx, cancel)() // and one more ends what does not hear of it, as a libvirt that hangs
	if cmd.Context().Err() != nil {
		err = nil // a signal is a good end
		p.hook.Log.Info("signal received: ending", "after", time.Since(started).Round(time.Second))
	}
	closeErr := session.Close(ctx)
	if err != nil && errors.Is(closeErr, err) { // a server's failure, or libvirt's, ends both
		return closeErr
	}
	return errors.Join(err, closeErr)
}

// laterPrivileges are those that the session still needs when it serves.
func (p *program) laterPrivileges() (keep []cap.Value) {
	if p.listen != "" || p.hook.RestoreAfter {
		keep = append(keep, cap.NET_ADMIN)
	}
	if p.hook.Hotplug != nil {
		keep = append(keep, hotplugPrivileges()...)
	}
	return keep
}

// privileged is a session that takes the privilege to read the counters for the
// while.
type privileged struct{ *prestart.Session }

func (p privileged) GuardCounters() (counters map[string][]prepare.GuardCounter, err error) {
	err = withPrivileges(func() error {
		counters, err = p.Session.GuardCounters()
		return err
	}, cap.NET_ADMIN)
	return counters, err
}
