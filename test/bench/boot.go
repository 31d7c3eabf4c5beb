package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest/vmtest"
)

// Where a guest that boots has its address from.
const (
	bootOurs    = "`serve`"
	bootDnsmasq = "dnsmasq"
	bootBaked   = "its own files, without DHCP"
)

// bakedClient takes the place of the guest's DHCP client.
const bakedClient = "#!/bin/sh\nip link set eth0 up\nip addr add " + guestIP + "/24 dev eth0\nip route add default via " + serverIP + "\n"

// compareBoots boots a guest beside each server in turn, until it has its address.
func (b bench) compareBoots(ctx context.Context, r *result) (err error) {
	dir, err := os.MkdirTemp("/dev/shm", "bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	vm := vmtest.VM{GuestDir: b.guest}
	baked := filepath.Join(dir, "initramfs")
	if err := bake(vm.Initrd(), baked); err != nil {
		return fmt.Errorf("%w: make guest builds it", err)
	}
	var servers []*running
	defer func() {
		for _, s := range servers {
			err = errors.Join(err, s.close())
		}
	}()
	for _, c := range []contender{{name: bootOurs, start: serveNIC(b.static)}, {name: bootDnsmasq, start: dnsmasq}} {
		s, err := c.run(ctx)
		if err != nil {
			return err
		}
		servers = append(servers, s)
		if err := s.leave(); err != nil { // the guest is to have the tap
			return err
		}
	}
	boots := []struct {
		name, initrd string
		ns           *podtest.NS
	}{
		{bootOurs, vm.Initrd(), servers[0].ns},
		{bootDnsmasq, vm.Initrd(), servers[1].ns},
		{bootBaked, baked, servers[1].ns},
	}
	took := make([][]float64, len(boots))
	for round := range b.boots {
		for i := range boots {
			i = (i + round) % len(boots) // nobody is always first
			t, err := boot(ctx, boots[i].ns, vm, boots[i].initrd)
			if err != nil {
				return fmt.Errorf("boot with an address from %s: %w", boots[i].name, err)
			}
			took[i] = append(took[i], millis(t))
		}
	}
	for i, way := range boots {
		r.boots = append(r.boots, row{way.name, []float64{quantile(took[i], 0.5), quantile(took[i], 0.9)}})
	}
	return nil
}

// patienceToBoot is how long a guest may take.
const patienceToBoot = time.Minute

// boot starts a guest and returns how long it took until it had its address.
func boot(ctx context.Context, ns *podtest.NS, vm vmtest.VM, initrd string) (_ time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, patienceToBoot)
	defer cancel()
	cmd := vmtest.QEMU(ctx, ns, "-m", "256", "-kernel", vm.Kernel(), "-initrd", initrd, "-append", vm.Cmdline(), "-serial", "stdio",
		"-netdev", "tap,id=net0,ifname="+tapName+",script=no,downscript=no,vhost=off", "-device", "virtio-net-pci,netdev=net0,romfile=,mac="+guestMAC)
	serial, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer func() {
		cancel()
		_ = cmd.Wait() // says that it was killed
	}()
	var printed strings.Builder
	for lines := bufio.NewScanner(serial); lines.Scan(); printed.WriteString(lines.Text() + "\n") {
		if strings.HasPrefix(lines.Text(), "address "+guestIP+"/") { // of its report
			return time.Since(began), nil
		}
	}
	return 0, fmt.Errorf("the guest has no address after %v:\n%s", time.Since(began).Round(time.Second), printed.String())
}

// bake writes the guest's initramfs with bakedClient in it: what follows in an archive
// of its own is unpacked over it.
func bake(initramfs, to string) error {
	archive, err := os.ReadFile(initramfs)
	if err != nil {
		return err
	}
	for len(archive)%4 != 0 { // where the next may begin
		archive = append(archive, 0)
	}
	archive = appendCPIO(archive, "bin/udhcpc", 0o100755, bakedClient)
	return os.WriteFile(to, appendCPIO(archive, "TRAILER!!!", 0, ""), 0o600)
}

// appendCPIO appends a file as the kernel unpacks it
// (Documentation/driver-api/early-userspace/buffer-format.rst).
func appendCPIO(b []byte, name string, mode int, data string) []byte {
	aligned := func() {
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	// Magic, inode, mode, owner, group, links, time, size, two devices of two numbers,
	// the name's length with its end, checksum.
	b = fmt.Appendf(b, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", 0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
	b = append(append(b, name...), 0)
	aligned()
	b = append(b, data...)
	aligned()
	return b
}

func (r *result) bootsMarkdown(b *strings.Builder) {
	fmt.Fprintf(b, "\n| A guest that boots, %d times, until it has its address from | p50 ms | p90 ms |\n|---|--:|--:|\n", r.bench.boots)
	for _, w := range r.boots {
		fmt.Fprintf(b, "| %s | %.0f | %.0f |\n", w.name, w.values[0], w.values[1])
	}
}

// bootAims are those of the guest that boots beside the program.
func (r *result) bootAims() []aim {
	p50 := map[string]float64{}
	for _, w := range r.boots {
		p50[w.name] = w.values[0]
	}
	return []aim{
		{what: "boot until there is an address, p50, of that with dnsmasq", limit: 1.02, seen: p50[bootOurs] / p50[bootDnsmasq]},
		{what: "boot until there is an address, p50, of that without DHCP", limit: 1.05, seen: p50[bootOurs] / p50[bootBaked]},
	}
}
