package clients

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest/vmtest"
)

// What Debian's packages ipxe and ovmf hold.
const (
	ipxeKernel = "/usr/lib/ipxe/ipxe.lkrn"
	ovmf       = "/usr/share/ovmf/OVMF.fd"
)

// firstSlot is the PCI slot of the first NIC; the others follow.
const firstSlot = 8

// atTaps starts an emulated machine with a NIC at each of the taps, in the seats'
// order, and returns its standard input and output.
func atTaps(t *testing.T, seats []*seat, args ...string) *podtest.Console {
	t.Helper()
	var taps []*os.File
	for i, at := range seats {
		taps = append(taps, podtest.TapFile(t, at.pod.NS, "tap-eth0"))
		args = append(args,
			"-netdev", fmt.Sprintf("tap,id=net%d,fd=%d,vhost=off", i, 3+i),
			"-device", fmt.Sprintf("virtio-net-pci,netdev=net%d,romfile=,addr=%#x,mac=%v", i, firstSlot+i, at.pod.MAC))
	}
	cmd := vmtest.QEMU(t.Context(), nil, args...)
	cmd.ExtraFiles = taps // from 3 on
	return podtest.StartConsole(t, cmd)
}

// ipxe is iPXE that has taken its lease and printed what it made of it.
type ipxe struct{ console *podtest.Console }

const ipxeScript = `#!ipxe
ifconf --configurator dhcp net0
route
echo dns ${dns}
echo search ${dnssl}
echo hostname ${hostname}
echo mtu ${net0/mtu}
echo that is all
shell
`

func inIPXE(t *testing.T, _ client, at *seat) running {
	t.Helper()
	return runIPXE(t, at, ipxeScript)
}

func runIPXE(t *testing.T, at *seat, text string) *ipxe {
	t.Helper()
	script := filepath.Join(t.TempDir(), "script.ipxe")
	if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	// It spins while it waits: by instructions (of 64 ns), not by the clock, it waits less.
	return &ipxe{atTaps(t, []*seat{at}, "-m", "256", "-serial", "stdio", "-icount", "shift=6,sleep=off", "-kernel", podtest.Packaged(t, ipxeKernel), "-initrd", script)}
}

// It cannot be asked.
func (*ipxe) renew(*testing.T) {}

var ipxeRoute = regexp.MustCompile(`net0: ([\d.]+)/([\d.]+)(?: gw ([\d.]+))?`)

// told is what the script has printed.
func (i *ipxe) told(t *testing.T) string {
	t.Helper()
	return i.console.Wait(t, bootTime, "state", func(text string) bool { return strings.Contains(text, "\nthat is all\n") })
}

func (i *ipxe) state(t *testing.T) state {
	t.Helper()
	var s state
	for line := range strings.Lines(i.told(t)) {
		words := strings.Fields(line)
		if m := ipxeRoute.FindStringSubmatch(line); m != nil {
			s.Address = withMask(t, m[1], m[2])
			if m[3] != "" {
				s.Routes = append(s.Routes, toDefault+m[3])
			}
		} else if len(words) > 1 {
			s.say(t, words[0], words[1:]...)
		}
	}
	return s
}

// withMask is an address with its prefix length.
func withMask(t *testing.T, address, mask string) string {
	t.Helper()
	m := net.ParseIP(mask).To4()
	ones, bits := net.IPMask(m).Size()
	if _, err := netip.ParseAddr(address); err != nil || bits == 0 {
		t.Fatalf("address %s, mask %s", address, mask)
	}
	return fmt.Sprintf("%s/%d", address, ones)
}

// uefi is OVMF's network stack, by its shell.
type uefi struct {
	console   *podtest.Console
	connected int // NICs, which it calls eth0, eth1, ...
}

// bootUEFI boots OVMF's shell.
func bootUEFI(t *testing.T, seats []*seat) machine {
	t.Helper()
	// The one thing to boot from is an empty disk: the shell is what is left.
	u := &uefi{console: atTaps(t, seats, "-m", "256", "-serial", "stdio", "-bios", podtest.Packaged(t, ovmf),
		"-blockdev", "null-co,node-name=disk,size=1048576,read-zeroes=on", "-device", "virtio-blk-pci,drive=disk,bootindex=0")}
	u.console.WaitLine(t, bootTime, "or any other key to continue")
	u.run(t, "")
	return u
}

// take connects the NIC with its drivers first: one after the other, since all at once
// ("connect -r") they take OVMF three times as long.
func (u *uefi) take(t *testing.T, nic int, at *seat) running {
	t.Helper()
	device := regexp.MustCompile(fmt.Sprintf(`(?m)^\s*([0-9A-F]+): .*/Pci\(0x%X,0x0\)\)`, firstSlot+nic))
	handle := device.FindStringSubmatch(u.run(t, "dh -p PciIo"))
	if handle == nil {
		t.Fatalf("no NIC in slot %d; OVMF printed:\n%s", firstSlot+nic, u.console.Text())
	}
	u.run(t, "connect -r "+handle[1])
	n := uefiNIC{u, fmt.Sprintf("eth%d", u.connected)}
	u.connected++
	if at.six {
		u.run(t, "ifconfig6 -s "+n.name+" auto")
		return uefiNIC6{n}
	}
	u.run(t, "ifconfig -s "+n.name+" dhcp")
	return n
}

// Each NIC has an IP of its own.
func (*uefi) leave(*testing.T, int) {}

// run has the shell run a command, and returns what it printed.
func (u *uefi) run(t *testing.T, command string) string {
	t.Helper()
	const prompt = "Shell> "
	before := len(u.console.Text())
	u.console.Say(t, command+"\r")
	text := u.console.Wait(t, bootTime, "end of "+command, func(text string) bool { return strings.HasSuffix(text[before:], prompt) })
	return strings.TrimSuffix(text[before:], prompt)
}

// uefiNIC is one NIC, of which IPv4 is judged.
type uefiNIC struct {
	*uefi
	name string
}

// It cannot be asked.
func (uefiNIC) renew(*testing.T) {}

func (u uefiNIC) state(t *testing.T) state {
	t.Helper()
	var s state
	servers := false // follow
	var network, mask string
	for line := range strings.Lines(u.run(t, "ifconfig -l "+u.name)) {
		name, value, _ := strings.Cut(line, ":")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		switch {
		case name == "ipv4 address":
			s.Address = value
		case name == "subnet mask":
			s.Address = withMask(t, s.Address, value)
		case name == "Subnet":
			network = value
		case name == "Netmask":
			mask = value
		case name == "Gateway":
			s.addRoute(t, withMask(t, network, mask), value)
		case name == "DNS server":
			servers = true
		case servers && !strings.HasPrefix(name, "-") && name != "":
			s.DNS = append(s.DNS, name)
		}
	}
	return s
}

// addRoute adds a route that is not the address's own network.
func (s *state) addRoute(t *testing.T, destination, gateway string) {
	t.Helper()
	switch own := netip.MustParsePrefix(s.Address).Masked().String(); {
	case gateway != "0.0.0.0" && destination == "0.0.0.0/0":
		s.Routes = append(s.Routes, toDefault+gateway)
	case gateway != "0.0.0.0":
		s.Routes = append(s.Routes, destination+" via "+gateway)
	case destination != own:
		s.Routes = append(s.Routes, destination)
	}
	slices.Sort(s.Routes)
}
