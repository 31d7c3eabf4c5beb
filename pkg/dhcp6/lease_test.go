package dhcp6

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/netboot"
)

func TestNormalize(t *testing.T) {
	l := testLease()
	l.Address, l.Server = address.WithZone("eth0"), gateway.WithZone("eth0")
	l.DNS = append(l.DNS, l.DNS[0], netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("::1"), netip.MustParseAddr("::ffff:10.0.0.1"))
	l.NTP = []netip.Addr{netip.IPv6Unspecified()}
	l.Search = []string{"Example.COM.", "bad domain", "10.0.0.1"}
	l.Hostname = "not a name"
	l.Valid = time.Hour
	got, left := l.Normalize()
	if got.Address != address || got.Server != gateway || len(got.DNS) != 1 || len(got.NTP) != 0 || fmt.Sprint(got.Search) != "[example.com]" ||
		got.Hostname != "" || len(left) != 8 {
		t.Errorf("got %+v, left out %q", got, left)
	}
	if again, left := got.Normalize(); len(left) != 0 || fmt.Sprint(again) != fmt.Sprint(got) {
		t.Errorf("once more: %+v, %q", again, left)
	}
	if l.Search[0] != "Example.COM." {
		t.Error("the caller's lease is changed")
	}
}

func TestValidate(t *testing.T) {
	for name, change := range map[string]func(*Lease){
		"no MAC":          func(l *Lease) { l.MAC = mac.Addr{} },
		"group MAC":       func(l *Lease) { l.MAC = mac.Addr{1, 0, 0, 0, 0, 1} },
		"no address":      func(l *Lease) { l.Address = netip.Addr{} },
		"IPv4":            func(l *Lease) { l.Address = netip.MustParseAddr("10.0.0.1") },
		"IPv4 in IPv6":    func(l *Lease) { l.Address = netip.MustParseAddr("::ffff:10.0.0.1") },
		"link-local":      func(l *Lease) { l.Address = gateway },
		"multicast":       func(l *Lease) { l.Address = allServers },
		"no server":       func(l *Lease) { l.Server = netip.Addr{} },
		"global server":   func(l *Lease) { l.Server = stale },
		"half a second":   func(l *Lease) { l.Valid = time.Second / 2 },
		"negative":        func(l *Lease) { l.Valid = -time.Second },
		"longer than all": func(l *Lease) { l.Valid = infinity },
		"boot files":      func(l *Lease) { l.BootFiles = netboot.Files{{Name: "tftp://a/1"}, {Name: "tftp://a/2"}} },
	} {
		l := testLease()
		change(&l)
		if _, _, err := l.compile(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for _, l := range []Lease{testLease(), fullLease()} {
		if err := l.Validate(); err != nil {
			t.Error(err)
		}
	}
}

func TestEmptyLease(t *testing.T) {
	err := Lease{}.Validate()
	for _, want := range []string{"MAC is not set", "Address is not set", "Server is not set"} {
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "invalid IP") {
			t.Errorf("got error %v, want %q", err, want)
		}
	}
}
