package dhcp

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/virt-launcher-net/virt-launcher-net/internal/normalize"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/netboot"
)

func TestValidate(t *testing.T) {
	addr := netip.MustParseAddr
	for _, c := range []struct {
		name   string
		change func(*Lease)
		want   string // within the error; empty: valid
	}{
		{"as it is", func(*Lease) {}, ""},
		{"no router", func(l *Lease) { l.Router = netip.Addr{} }, ""},
		{"/32", func(l *Lease) { l.Address = netip.MustParsePrefix("10.244.1.7/32") }, ""},
		{"link-local server", func(l *Lease) { l.Server = addr("169.254.1.1") }, ""},
		{"no MAC", func(l *Lease) { l.MAC = mac.Addr{} }, "MAC is not set"},
		{"group MAC", func(l *Lease) { l.MAC = mac.Addr{1, 0, 0, 0, 0, 1} }, "group"},
		{"no address", func(l *Lease) { l.Address = netip.Prefix{} }, "Address is not set"},
		{"IPv6 address", func(l *Lease) { l.Address = netip.MustParsePrefix("fd00::7/64") }, "address"},
		{"/0", func(l *Lease) { l.Address = netip.MustParsePrefix("10.244.1.7/0") }, "subnet"},
		{"multicast address", func(l *Lease) { l.Address = netip.MustParsePrefix("224.0.0.7/24") }, "address"},
		{"no server", func(l *Lease) { l.Server = netip.Addr{} }, "Server is not set"},
		{"nothing", func(l *Lease) { *l = Lease{} }, "MAC is not set\ninvalid lease: Address is not set"},
		{"IPv6 server", func(l *Lease) { l.Server = addr("fe80::1") }, "server identifier"},
		{"server is the guest", func(l *Lease) { l.Server = l.Address.Addr() }, "never renew"},
		{"router is the guest", func(l *Lease) { l.Router = l.Address.Addr() }, "router"},
		{"IPv6 router", func(l *Lease) { l.Router = addr("fe80::1") }, "router"},
		{"MTU too small", func(l *Lease) { l.MTU = 67 }, "MTU"},
		{"MTU too large", func(l *Lease) { l.MTU = 65536 }, "MTU"},
		{"negative duration", func(l *Lease) { l.Duration = -1 }, "duration"},
		{"half a second", func(l *Lease) { l.Duration = time.Second / 2 }, "duration"},
		{"longest", func(l *Lease) { l.Duration = maxDuration }, ""},
		{"too long", func(l *Lease) { l.Duration = maxDuration + time.Second }, "duration"},
		{"long TFTP server", func(l *Lease) { l.TFTPServer = strings.Repeat("a", 64) }, "TFTP"},
		{"boot files", func(l *Lease) {
			l.BootFiles = netboot.Files{{Firmware: "bios", Name: "a"}, {Firmware: "ipxe", Name: "b"}, {Name: "c"}}
		}, ""},
		{"boot file of unknown firmware", func(l *Lease) { l.BootFiles = netboot.Files{{Firmware: "efi", Name: "a"}} }, "unknown firmware"},
		{"owned option", func(l *Lease) { l.Options = []Option{{54, []byte{1, 2, 3, 4}}} }, "option 54"},
	} {
		l := testLease()
		c.change(&l)
		err := l.Validate()
		if err != nil && strings.Contains(err.Error(), "invalid IP") || err != nil && strings.Contains(err.Error(), "invalid Prefix") {
			t.Errorf("%s: a zero value is shown as Go has it: %v", c.name, err)
		}
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got error %v, want %q", c.name, err, c.want)
		}
	}
}

func TestNormalize(t *testing.T) {
	addr := netip.MustParseAddr
	l := testLease()
	l.Address = netip.MustParsePrefix("::ffff:10.244.1.7/120")
	l.Routes = append(l.Routes,
		Route{Destination: netip.MustParsePrefix("fd00::/64")},
		Route{Destination: netip.MustParsePrefix("10.244.0.5/16"), Gateway: addr("10.244.1.1")}, // the first, unmasked
		Route{Gateway: addr("10.0.0.1")},
		Route{Destination: netip.MustParsePrefix("10.9.0.0/16"), Gateway: addr("0.0.0.0")})
	l.DNS = []netip.Addr{addr("10.96.0.10"), addr("fd00::a"), addr("127.0.0.53"), addr("::ffff:10.96.0.10"), addr("224.0.0.1"), {}}
	l.Search = []string{
		"Default.SVC.cluster.local.", "default.svc.cluster.local", "10.0.0.1", "fd00::1", ".", "",
		"a..b", strings.Repeat("x", 64) + ".local", strings.Repeat("abc.", 70) + "local", "b\xffd", "we ird", "_tcp.example",
	}
	l.Hostname = "vm-a.example."
	l.Options = []Option{{6, []byte{1, 1, 1, 1}}, {6, []byte{2, 2, 2, 2}}}

	got, left := l.Normalize()
	if err := got.Validate(); err != nil {
		t.Error(err)
	}
	want := testLease()
	want.Routes = append(want.Routes, Route{Destination: netip.MustParsePrefix("10.9.0.0/16")})
	want.Search = []string{"default.svc.cluster.local", "_tcp.example"}
	want.Hostname = "vm-a.example"
	want.Options = []Option{{6, []byte{2, 2, 2, 2}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	golden(t, "normalize.golden", strings.Join(left, "\n")+"\n")
	if again, left := got.Normalize(); !reflect.DeepEqual(again, got) || len(left) > 0 {
		t.Errorf("a second time changes it: %+v, %v", again, left)
	}
}

func TestNormalizeEndlessLists(t *testing.T) {
	l := testLease()
	l.DNS, l.Search = nil, nil
	for i := range 10000 {
		l.DNS = append(l.DNS, netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}))
		l.Search = append(l.Search, fmt.Sprintf("d%d.example", i))
	}
	got, left := l.Normalize()
	if len(got.DNS) != normalize.MaxList || len(got.Search) != normalize.MaxList || len(left) != 2 {
		t.Errorf("%d DNS servers, %d search domains, notes %q", len(got.DNS), len(got.Search), left)
	}
	if again, left := got.Normalize(); !reflect.DeepEqual(again, got) || len(left) > 0 {
		t.Errorf("a second time: %q", left)
	}
}

func TestNormalizeTellsUnusedRouter(t *testing.T) {
	l := testLease()
	l.Routes = l.Routes[:1]
	if _, left := l.Normalize(); len(left) != 1 || !strings.Contains(left[0], "router 10.244.1.1") {
		t.Errorf("got %q", left)
	}
}

// FuzzNormalize: whatever a resolv.conf or the API holds, a lease comes out of
// it that can be sent.
func FuzzNormalize(f *testing.F) {
	f.Add("default.svc.cluster.local svc.cluster.local cluster.local", "vm-a", "10.96.0.10 fd00::a")
	f.Add("UPPER.case. 10.0.0.1 . a..b", "bad host", "127.0.0.53 ::ffff:1.2.3.4 nonsense")
	f.Add(strings.Repeat("x", 64)+" "+strings.Repeat("a.", 200), "\x00", "")
	f.Fuzz(func(t *testing.T, search, hostname, dns string) {
		l := testLease()
		l.Search, l.Hostname, l.DNS = strings.Split(search, " "), hostname, nil
		for w := range strings.FieldsSeq(dns) {
			a, _ := netip.ParseAddr(w)
			l.DNS = append(l.DNS, a)
		}
		got, left := l.Normalize()
		if err := got.Validate(); err != nil {
			t.Fatal(err)
		}
		for _, note := range left {
			if !utf8.ValidString(note) || strings.ContainsAny(note, "\n\r\x00") {
				t.Fatalf("note %q cannot be printed", note)
			}
		}
		if again, left := got.Normalize(); !reflect.DeepEqual(again, got) || len(left) > 0 {
			t.Fatalf("a second time changes it: %v", left)
		}
		back := decodeSearch(t, encodeSearch(got.Search))
		if len(got.Search) > 0 && !reflect.DeepEqual(back, got.Search) {
			t.Fatalf("search list %q reads as %q", got.Search, back)
		}
		if _, err := l.Reply(discover()); err != nil {
			t.Fatal(err)
		}
	})
}
