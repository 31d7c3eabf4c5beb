// Launcher runs one VM in the pod that it is started in: all that a launcher
// needs of the packages prestart and domain, and nothing else. A domain's XML
// goes in; the VM has the pod's network, and the process ends with it.
//
//	go build -tags libvirt_dlopen ./examples/launcher
//	launcher --domain vm.xml --connect qemu:///system
//
// In its container it needs NET_ADMIN, NET_RAW, /dev/net/tun, a writable /run
// and a libvirt, which may be in the process: qemu:///embed?root=DIR.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/domain"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// shutdownTime is how long the guest may take to shut down: less than the pod's
// terminationGracePeriodSeconds.
const shutdownTime = 20 * time.Second

func main() {
	file := flag.String("domain", "vm.xml", "`file` with the domain's XML")
	uri := flag.String("connect", "qemu:///system", "libvirt's `URI`")
	flag.Parse()

	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	// What the kubelet sends first when the pod is deleted.
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	if err := launch(ctx, log, *file, *uri); err != nil {
		log.Error("the VM did not end well", "error", err)
		os.Exit(1)
	}
}

// launch runs the VM until it stops or ctx ends.
func launch(ctx context.Context, log *slog.Logger, file, uri string) (err error) {
	xml, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read domain: %w", err)
	}

	// Prepare. After Run the pod's interface leads to the tap, DHCP is served and
	// a test frame has been there and back. On error the pod is as the CNI left
	// it. The zero Hook is good for most pods; Domain is left out because the VM
	// is started below.
	hook := prestart.Hook{Log: log}
	session, err := hook.Run(ctx)
	if err != nil {
		return fmt.Errorf("prepare network: %w", err)
	}
	defer func() {
		err = errors.Join(err, session.Close(context.WithoutCancel(ctx)))
	}()
	for _, n := range session.NICs() {
		log.Info("the VM plugs in here", "interface", n.Interface, "tap", n.Tap, "mac", n.MAC, "mtu", n.MTU)
	}

	// Patch. The domain gets a NIC for each interface, domain.Attach(xml,
	// session.NICs()...), and the hook warns of others that will not work. Whatever
	// else is in the XML stays, so this is the place for changes of your own.
	if xml, err = hook.Attach(ctx, xml); err != nil {
		return err
	}

	// Start. QEMU is born in this pod's network namespace, where the tap is.
	vm, err := domain.Start(ctx, log, uri, xml)
	if err != nil {
		return fmt.Errorf("start VM: %w", err)
	}
	defer func() {
		err = errors.Join(err, vm.Close())
	}()

	go reportLease(ctx, log, session)
	return follow(ctx, session, vm)
}

// reportLease says when the guest has its addresses: that it is up and has a
// working network. Session.Events tells each step, Session.Status has more.
func reportLease(ctx context.Context, log *slog.Logger, session *prestart.Session) {
	if err := session.WaitLease(ctx); err != nil {
		return // the VM ended before
	}
	for _, i := range session.Status().Interfaces {
		if i.Lease != nil {
			log.Info("the guest has its lease", "interface", i.Name, "address", i.Lease.Address, "hostname", i.Lease.Client.Hostname)
		}
	}
}

// follow waits for the first of three ends, the VM's, the DHCP server's and
// ctx's, and leaves no VM behind. It returns nil if that was asked for: by ctx,
// or by the guest, which shut down.
func follow(ctx context.Context, session *prestart.Session, vm *domain.VM) error {
	ended := make(chan error, 2)
	go func() { ended <- vm.Wait(context.WithoutCancel(ctx)) }()
	go func() { ended <- session.Wait(ctx) }()
	err := <-ended
	if ctx.Err() != nil {
		err = nil
	}
	// By ACPI, and the hard way if the guest does not listen. Nothing to do for a
	// VM that has stopped.
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	return errors.Join(err, vm.Shutdown(late))
}
