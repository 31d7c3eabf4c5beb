package clients

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// networked is a guest in which commands can be run.
type networked interface {
	running
	// do runs a command and returns what it prints.
	do(t *testing.T, command ...string) string
	// nic is the name of the NIC in the guest.
	nic() string
	// tcp checks that TCP carries data to who is outside and from there.
	tcp(t *testing.T, at *seat)
}

// forever is what has no end.
const forever = time.Duration(1<<32-1) * time.Second

// outlive checks that the guest has a network, and that it keeps it when the
// program is killed, for as long as was promised.
func (at *seat) outlive(t *testing.T, guest networked, want state) {
	t.Helper()
	at.reach(t, guest)
	_ = at.program.Stop(syscall.SIGKILL)
	guest.do(t, "ip", "neigh", "flush", "dev", guest.nic())
	at.reach(t, guest)
	await(t, guest, want)
	address, route := lifetimes(t, guest)
	if route != forever || address != forever && !at.renew {
		t.Errorf("the default route ends after %v, the address after %v", route, address)
	}
	if at.renew {
		at.pingAll(t, address-3*time.Second)
	}
}

// addressOf is the guest's, as it was given.
func (at *seat) addressOf() string {
	address, _, _ := strings.Cut(at.given.Address, "/")
	return address
}

// reach checks that packets and TCP go between the guest, at its address, and
// who is outside, whichever begins.
func (at *seat) reach(t *testing.T, guest networked) {
	t.Helper()
	if text := guest.do(t, "ping", "-n", "-c", "1", "-W", "5", podtest.OutsideIPv6.String()); !strings.Contains(text, " 0% packet loss") {
		t.Errorf("from the guest: %s", text)
	}
	at.pingAll(t, time.Second)
	guest.tcp(t, at)
}

// pingAll has who is outside ping the guest once a second for so long.
func (at *seat) pingAll(t *testing.T, howLong time.Duration) {
	t.Helper()
	count := max(int(howLong/time.Second), 1)
	text := at.pod.Outside.Run(t, "ping", "-n", "-i", "1", "-W", "5", "-c", fmt.Sprint(count), at.addressOf())
	if !strings.Contains(text, " 0% packet loss") {
		t.Errorf("to the guest: %s", text)
	}
}

// lifetimes are what is left of those of the guest's address and default route.
func lifetimes(t *testing.T, guest networked) (address, route time.Duration) {
	t.Helper()
	var links []struct {
		Addresses []struct {
			Valid int64 `json:"valid_life_time"`
		} `json:"addr_info"`
	}
	readJSON(t, []byte(guest.do(t, "ip", "-json", "-6", "address", "show", "dev", guest.nic(), "scope", "global")), &links)
	for _, l := range links {
		for _, a := range l.Addresses {
			address = max(address, time.Duration(a.Valid)*time.Second)
		}
	}
	_, after, ends := strings.Cut(guest.do(t, "ip", "-6", "route", "show", "default", "dev", guest.nic()), " expires ")
	if !ends {
		return address, forever
	}
	var seconds int
	if _, err := fmt.Sscanf(after, "%dsec", &seconds); err != nil {
		t.Fatalf("%v in %q", err, after)
	}
	return address, time.Duration(seconds) * time.Second
}

func (sandbox6) nic() string { return "eth0" }

func (c sandbox6) do(t *testing.T, command ...string) string {
	t.Helper()
	return c.guest.NS.Run(t, command[0], command[1:]...)
}

func (c sandbox6) tcp(t *testing.T, at *seat) {
	t.Helper()
	const size = 1 << 17 // some hundred segments
	if err := podtest.Exchange(t.Context(), c.guest.NS, at.pod.Outside, podtest.OutsideIPv6, size); err != nil {
		t.Errorf("TCP from the guest: %v", err)
	}
	if err := podtest.Exchange(t.Context(), at.pod.Outside, c.guest.NS, at.pod.IPv6.Addr(), size); err != nil {
		t.Errorf("TCP to the guest: %v", err)
	}
}
