// Demo shows on this machine, as root, what virt-launcher-net is for: a pod
// gets its network from a CNI, a virtual machine in it gets that network by
// DHCP, and afterwards the pod is as the CNI left it. Everything happens in
// network namespaces of its own; the exit status is 0 if all that was claimed
// was seen. With DEMO=calico in the environment the pod is Calico's, with
// DEMO=dual it has IPv6 as well, with DEMO=redirect it keeps its network beside the VM.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

func main() {
	var d demo
	flag.StringVar(&d.binary, "bin", "build/virt-launcher-net", "the program to show")
	flag.StringVar(&d.guestDir, "guest", "build/guest", "directory with what test/guest/build.sh built")
	flag.StringVar(&d.cniDir, "cni", "build/cni", "directory with the CNI plugins bridge and host-local")
	flag.StringVar(&d.cacheDir, "cache", "build/libvirt-cache", "directory where libvirt keeps what it learned of QEMU, which takes it some seconds")
	flag.Parse()

	// A terminal that closes leaves nothing behind either.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := start(ctx, &d); err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		stop()
		os.Exit(1)
	}
}

// start makes the demo's directory, which is gone at the end, and shows it.
func start(ctx context.Context, d *demo) (err error) {
	switch shape := os.Getenv("DEMO"); shape {
	case "":
		d.shape = podtest.Flannel
	case "calico":
		d.shape = podtest.Calico
	case "dual":
		d.shape, d.dual = podtest.Flannel, true
	case "redirect":
		d.shape, d.redirect = podtest.Flannel, true
	default:
		return fmt.Errorf("DEMO=%s: it is empty, calico, dual or redirect", shape)
	}
	for _, path := range []*string{&d.binary, &d.guestDir, &d.cniDir, &d.cacheDir} {
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	if d.dir, err = os.MkdirTemp("", "vln-demo-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(d.dir)) }()
	return d.show(ctx)
}
