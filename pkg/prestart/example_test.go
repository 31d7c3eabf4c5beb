package prestart_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/domain"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// A launcher that runs one VM: the pod's network, the VM, and their end.
func ExampleHook_Run() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	xml, err := os.ReadFile("vm.xml")
	if err != nil {
		fmt.Println(err)
		return
	}
	session, err := prestart.Hook{
		Domain: &prestart.Domain{XML: xml},
		Log:    slog.New(slog.NewJSONHandler(os.Stderr, nil)),
	}.Run(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	// SIGTERM ends the wait; closing then shuts the VM down.
	if err := session.Wait(ctx); err != nil && ctx.Err() == nil {
		fmt.Println(err)
	}
	if err := session.Close(context.WithoutCancel(ctx)); err != nil {
		fmt.Println(err)
	}
}

// A launcher that starts QEMU itself, in the pod's namespace, and hears when the
// guest has its address.
func ExampleSession_NICs() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	hook := prestart.Hook{Netns: "/proc/42/ns/net", StateDir: "/run/vm-7"}
	session, err := hook.Run(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer session.Close(context.WithoutCancel(ctx))
	args, err := domain.QEMUArgs(session.NICs()...)
	if err != nil {
		fmt.Println(err)
		return
	}
	qemu := exec.CommandContext(ctx, "qemu-system-x86_64", append(args, "disk.img")...)
	if err := hook.InNetns(qemu.Start); err != nil {
		fmt.Println(err)
		return
	}
	if err := session.WaitLease(ctx); err == nil {
		fmt.Println("the guest has its address")
	}
	if err := qemu.Wait(); err != nil {
		fmt.Println(err)
	}
}
