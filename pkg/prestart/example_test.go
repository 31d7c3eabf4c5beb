package prestart_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

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

// A launcher that starts QEMU itself only needs to know the taps.
func ExampleHook_Prepare() {
	networks, err := prestart.Hook{Netns: "/proc/42/ns/net"}.Prepare(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, n := range networks {
		fmt.Printf("-netdev tap,id=%s,ifname=%s,script=no,downscript=no -device virtio-net-pci,netdev=%s,mac=%s\n",
			n.Name, n.Tap, n.Name, n.MAC)
	}
}
