package clients

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// networked is a guest of which can be seen that it has a network.
type networked interface {
	running
	// reach checks that packets and TCP go between the guest, at its address, and
	// who is outside, whichever begins.
	reach(t *testing.T, at *seat)
	// forgetNeighbors has the guest ask anew who its neighbours are.
	forgetNeighbors(t *testing.T)
	// lifetimes are those of the guest's address and of its default route.
	lifetimes(t *testing.T) (address, route time.Duration)
	// stay checks that what is outside can be reached all the time.
	stay(t *testing.T, howLong time.Duration)
}

// forever is what has no end.
const forever = time.Duration(1<<32-1) * time.Second

// outlive checks that the guest has a network, and that it keeps it when the
// program is killed, for as long as was promised.
func (at *seat) outlive(t *testing.T, guest networked, want state) {
	t.Helper()
	guest.reach(t, at)
	at.server.kill(t)
	guest.forgetNeighbors(t)
	guest.reach(t, at)
	address, route := guest.lifetimes(t)
	if route != forever || address != forever && !at.renew {
		t.Errorf("the default route ends after %v, the address after %v", route, address)
	}
	if at.renew {
		guest.stay(t, address)
		guest.reach(t, at)
	}
	await(t, guest, want)
}

// addressOf is the guest's, as it was given.
func (at *seat) addressOf() string {
	address, _, _ := strings.Cut(at.given.Address, "/")
	return address
}

// size is what is sent each way by TCP: some hundred segments.
const size = 1 << 17

func (c sandbox6) reach(t *testing.T, at *seat) {
	t.Helper()
	guest, outside := c.guest.NS, at.pod.Outside
	guest.Run(t, "ping", "-n", "-c", "1", "-W", "5", podtest.OutsideIPv6.String())
	outside.Run(t, "ping", "-n", "-c", "1", "-W", "5", at.addressOf())
	if err := podtest.Exchange(t.Context(), guest, outside, podtest.OutsideIPv6, size); err != nil {
		t.Errorf("TCP from the guest: %v", err)
	}
	if err := podtest.Exchange(t.Context(), outside, guest, at.pod.IPv6.Addr(), size); err != nil {
		t.Errorf("TCP to the guest: %v", err)
	}
}

func (c sandbox6) forgetNeighbors(t *testing.T) {
	t.Helper()
	c.guest.IP(t, "neigh flush dev eth0")
}

func (c sandbox6) lifetimes(t *testing.T) (address, route time.Duration) {
	t.Helper()
	var links []struct {
		Addresses []struct {
			Valid int64 `json:"valid_life_time"`
		} `json:"addr_info"`
	}
	readJSON(t, []byte(c.guest.NS.Run(t, "ip", "-json", "-6", "address", "show", "dev", "eth0", "scope", "global")), &links)
	for _, l := range links {
		for _, a := range l.Addresses {
			address = max(address, time.Duration(a.Valid)*time.Second)
		}
	}
	route = forever
	if text := c.guest.NS.Run(t, "ip", "-6", "route", "show", "default", "dev", "eth0"); strings.Contains(text, "expires") {
		_, after, _ := strings.Cut(text, "expires ")
		if _, err := fmt.Sscanf(after, "%dsec", &route); err != nil {
			t.Fatalf("%v in %q", err, text)
		}
		route *= time.Second
	}
	return address, route
}

func (c sandbox6) stay(t *testing.T, howLong time.Duration) {
	t.Helper()
	count := int(howLong/time.Second) - 2
	text := c.guest.NS.Run(t, "ping", "-n", "-i", "1", "-W", "1", "-c", fmt.Sprint(count), podtest.OutsideIPv6.String())
	if !strings.Contains(text, " 0% packet loss") {
		t.Error(text)
	}
}
