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
)

// bootTime is how long an emulated machine may take on a busy one: twenty seconds of a
// processor, of which it may have little.
const bootTime = 10 * time.Minute

// debianVM is a whole Debian, the guest of test/guest: systemd with its network and
// its resolver. A shell is at hand.
type debianVM struct{ shell *podtest.Console }

func bootDebian(t *testing.T, seats []*seat) machine {
	t.Helper()
	guest := podtest.Built(t, "guest")
	serial := filepath.Join(t.TempDir(), "serial")
	args := []string{
		"-m", "512",
		"-kernel", filepath.Join(guest, "vmlinux"), "-initrd", podtest.Built(t, "guest/debian"),
		"-append", "console=ttyS0 quiet panic=-1 no_timer_check cryptomgr.notests net.ifnames=0 mitigations=off systemd.show_status=no SYSTEMD_SECCOMP=0",
		"-serial", "file:" + serial,
		"-device", "virtio-serial-pci", "-chardev", "stdio,id=shell", "-device", "virtserialport,chardev=shell,name=shell",
	}
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := os.ReadFile(serial)
			t.Logf("the guest's console:\n%s", text)
		}
	})
	vm := &debianVM{atTaps(t, seats, args...)}
	start := time.Now()
	vm.run(t, "systemctl is-system-running --wait")
	t.Logf("booted after %v", time.Since(start).Round(100*time.Millisecond))
	// A NIC that is down has no lease any more, which networkd would else keep for 5 s more.
	const more = "/run/systemd/network/10-eth.network.d"
	vm.run(t, "mkdir -p "+more+"; printf '[Network]\\nIgnoreCarrierLoss=no\\n' >"+more+"/carrier.conf; networkctl reload")
	return vm
}

// take has no other NIC up.
func (vm *debianVM) take(t *testing.T, nic int, at *seat) running {
	t.Helper()
	n := vm.nic(nic)
	vm.run(t, "networkctl up "+n.name)
	if at.six {
		return debianNIC6{n}
	}
	return n
}

func (vm *debianVM) leave(t *testing.T, nic int) {
	t.Helper()
	n := vm.nic(nic)
	vm.run(t, "networkctl down "+n.name)
	await(t, n, state{MTU: 1500, Hostname: unset})
}

func (vm *debianVM) nic(number int) *debianNIC { return &debianNIC{vm, fmt.Sprintf("eth%d", number)} }

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
	const script = `read -r host </proc/sys/kernel/hostname; printf '{"nic":%%s,"routes":%%s,"host":"%%s"}\n' \
"$(ip -json address show dev %s)" "$(ip -json -4 route show)" "$host"`
	var said struct {
		NIC, Routes json.RawMessage
		Host        string
	}
	readJSON(t, []byte(n.run(t, fmt.Sprintf(script, n.name))), &said)
	s := kernelState(t, said.NIC, said.Routes)
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
