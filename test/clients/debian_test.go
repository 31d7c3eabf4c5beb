package clients

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest/vmtest"
)

// bootTime is how long an emulated machine may take on a busy one.
const bootTime = 3 * time.Minute

// debian is a whole Debian: systemd with its network and its resolver, in a
// virtual machine that takes one lease after the other.
var debian = client{name: "debian", title: "Debian in a VM", own: []habit{networkdRoutes}}

// takeInTurn boots the virtual machine with a NIC for each lease, and has it
// use one after the other.
func takeInTurn(t *testing.T, all *results) {
	var seats []*seat
	for _, l := range everyLease() {
		seats = append(seats, l.serve(t))
	}
	vm := bootDebian(t, seats)
	for i, at := range seats {
		t.Run(at.name, func(t *testing.T) {
			nic := &debianNIC{vm, fmt.Sprintf("eth%d", i)}
			all.add(at.lease, debian, at.take(t, debian, func() running {
				nic.run(t, "networkctl up "+nic.name)
				if at.six {
					return debianNIC6{nic}
				}
				return nic
			}))
			if i < len(seats)-1 { // it would be in the next one's way
				nic.run(t, "networkctl down "+nic.name)
				await(t, nic, state{MTU: 1500, Hostname: unset})
			}
		})
	}
}

// debianVM is the guest, of which a shell is at hand.
type debianVM struct{ shell *podtest.Console }

// bootDebian boots the guest of test/guest with a NIC at each of the taps.
func bootDebian(t *testing.T, seats []*seat) *debianVM {
	t.Helper()
	guest := podtest.Built(t, "guest")
	serial := filepath.Join(t.TempDir(), "serial")
	args := []string{
		"-smp", "2", "-m", "512",
		"-kernel", filepath.Join(guest, "vmlinuz"), "-initrd", podtest.Built(t, "guest/debian"),
		"-append", "console=ttyS0 quiet panic=-1 no_timer_check net.ifnames=0 mitigations=off",
		"-serial", "file:" + serial,
		"-device", "virtio-serial-pci", "-chardev", "stdio,id=shell", "-device", "virtserialport,chardev=shell,name=shell",
	}
	var taps []*os.File
	for i, at := range seats {
		taps = append(taps, podtest.TapFile(t, at.pod.NS, "tap-eth0"))
		args = append(args,
			"-netdev", fmt.Sprintf("tap,id=net%d,fd=%d,vhost=off", i, 3+i),
			"-device", fmt.Sprintf("virtio-net-pci,netdev=net%d,romfile=,mac=%v", i, at.pod.MAC))
	}
	cmd := vmtest.QEMU(t.Context(), nil, args...)
	cmd.ExtraFiles = taps // from 3 on
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := os.ReadFile(serial)
			t.Logf("the guest's console:\n%s", text)
		}
	})
	vm := &debianVM{podtest.StartConsole(t, cmd)}
	start := time.Now()
	vm.run(t, "systemctl is-system-running --wait")
	t.Logf("booted after %v", time.Since(start).Round(100*time.Millisecond))
	return vm
}

// run has the guest's shell run a command, and returns what it printed.
func (vm *debianVM) run(t *testing.T, command string) string {
	t.Helper()
	const end = "that is all\n"
	before := len(vm.shell.Text())
	vm.shell.Say(t, command+" 2>&1; echo "+end)
	text := vm.shell.Wait(t, bootTime, "end of "+command, func(text string) bool { return strings.HasSuffix(text, end) && len(text) > before })
	return strings.TrimSuffix(text[before:], end)
}

// debianNIC is one NIC of the guest. No other is up.
type debianNIC struct {
	*debianVM
	name string
}

// It renews when it is time.
func (*debianNIC) renew(*testing.T) {}

func (n *debianNIC) state(t *testing.T) state {
	t.Helper()
	const script = `read -r host </proc/sys/kernel/hostname; printf '{"addresses":%%s,"nic":%%s,"routes":%%s,"host":"%%s"}\n' \
"$(ip -json -4 address show dev %[1]s)" "$(ip -json link show dev %[1]s)" "$(ip -json -4 route show)" "$host"`
	var said struct {
		Addresses, NIC, Routes json.RawMessage
		Host                   string
	}
	readJSON(t, []byte(n.run(t, fmt.Sprintf(script, n.name))), &said)
	s := kernelState(t, said.Addresses, said.NIC, said.Routes)
	s.Hostname = said.Host
	n.resolver(t, &s)
	return s
}

// resolver reads what the resolver has, which it had from the only NIC that is up.
func (n *debianNIC) resolver(t *testing.T, s *state) {
	t.Helper()
	for line := range strings.Lines(n.run(t, "cat /run/systemd/resolve/resolv.conf")) {
		words := strings.Fields(line)
		switch {
		case len(words) < 2 || line == "search .\n":
		case words[0] == "nameserver":
			s.DNS = append(s.DNS, words[1:]...)
		case words[0] == "search":
			s.Search = words[1:]
		}
	}
}
