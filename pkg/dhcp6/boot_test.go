package dhcp6

import (
	"slices"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/netboot"
)

// TestBootFile: who gets which URL, and what UEFI HTTP boot needs besides.
func TestBootFile(t *testing.T) {
	arch := func(types ...byte) dhcpv6.Option { return generic(dhcpv6.OptionClientArchType, types...) }
	class := func(text string) dhcpv6.Option {
		return generic(dhcpv6.OptionVendorClass, append([]byte{0, 0, 1, 0x57, 0, byte(len(text))}, text...)...)
	}
	pxe, web := class("PXEClient:Arch:00007:UNDI:003001"), class("HTTPClient:Arch:00016:UNDI:003001")
	ipxe := generic(dhcpv6.OptionUserClass, []byte("\x00\x04iPXE")...)
	for _, c := range []struct {
		name       string
		req        *dhcpv6.Message
		url, class string
	}{
		{"not asked for", message(solicit, na(1), oro(23), pxe, arch(0, 7)), "", ""},
		{"no firmware", message(solicit, na(1), oro(59)), "tftp://[fd00::1]/ipxe.efi", ""},
		{"PXE", message(solicit, na(1), oro(59), pxe, arch(0, 7)), "tftp://[fd00::1]/ipxe.efi", ""},
		{"PXE, request", toUs(request, na(1), oro(59), pxe, arch(0, 7)), "tftp://[fd00::1]/ipxe.efi", ""},
		{"HTTP", message(solicit, na(1), oro(59, 16), web, arch(0, 16)), "http://[fd00::1]/ipxe.efi", "\x00\x00\x01\x57\x00\x0aHTTPClient"},
		{"HTTP, request", toUs(request, na(1), oro(59, 16), web, arch(0, 16)), "http://[fd00::1]/ipxe.efi", "\x00\x00\x01\x57\x00\x0aHTTPClient"},
		{"HTTP, but no such URL", message(solicit, na(1), oro(59), web, arch(0, 19)), "tftp://[fd00::1]/ipxe.efi", ""},
		{"iPXE", message(solicit, na(1), oro(59), pxe, arch(0, 7), ipxe), "http://[fd00::1]/boot.ipxe", ""},
		{"class cut short", message(solicit, na(1), oro(59), generic(dhcpv6.OptionVendorClass, 0, 0, 1, 0x57, 0), arch(0)), "tftp://[fd00::1]/ipxe.efi", ""},
		{"class that says it is longer", message(solicit, na(1), oro(59), generic(dhcpv6.OptionVendorClass, 0, 0, 1, 0x57, 9, 9, 'H')), "tftp://[fd00::1]/ipxe.efi", ""},
	} {
		reply, err := fullLease().Reply(parsed(t, c.req), false)
		if err != nil {
			t.Fatal(err)
		}
		url, class := valueOf(reply, dhcpv6.OptionBootfileURL), valueOf(reply, dhcpv6.OptionVendorClass)
		if string(url) != c.url || string(class) != c.class {
			t.Errorf("%s: got URL %q, class %q", c.name, url, class)
		}
	}
}

// TestBootFileWithoutURL: what has no URL is left out, and told.
func TestBootFileWithoutURL(t *testing.T) {
	l := testLease()
	l.BootFiles = netboot.Files{{Name: "ipxe.efi"}, {Firmware: "bios", Name: "tftp:"}, {Firmware: "efi-x64", Name: "http://a\x7f/"}, {Firmware: "ipxe", Name: "http://h/boot.ipxe"}}
	r, notes, err := l.compile()
	if err != nil || len(notes) != 3 || !strings.HasPrefix(notes[0], `boot file "ipxe.efi" left out`) {
		t.Errorf("left out %q, %v", notes, err)
	}
	if !slices.Equal(r.lease.BootFiles, netboot.Files{{Firmware: "ipxe", Name: "http://h/boot.ipxe"}}) {
		t.Errorf("kept %v", r.lease.BootFiles)
	}
}
