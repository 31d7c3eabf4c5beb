package dhcp

import (
	"net"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/netboot"
)

// TestBootFile: who gets which file, and what firmware needs besides.
func TestBootFile(t *testing.T) {
	l := testLease()
	l.TFTPServer = "10.0.0.5"
	l.BootFiles = netboot.Files{
		{Name: "rest"},
		{Firmware: "bios", Name: "undionly.kpxe"},
		{Firmware: "efi-x64", Name: "x64.efi"},
		{Firmware: "http-x64", Name: "http://10.0.0.5/x64.efi"},
		{Firmware: "ipxe", Name: "boot.ipxe"},
	}
	arch := func(types ...uint8) dhcpv4.Option { return generic(optArchitecture, types...) }
	pxe := dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003016")
	web := dhcpv4.OptClassIdentifier("HTTPClient:Arch:00016:UNDI:003016")
	for _, c := range []struct {
		name        string
		req         *dhcpv4.DHCPv4
		file, class string
	}{
		{"no firmware", discover(), "rest", ""},
		{"BIOS", discover(pxe, arch(0, 0)), "undionly.kpxe", "PXEClient"},
		{"x64", discover(pxe, arch(0, 7)), "x64.efi", "PXEClient"},
		{"no file of its own", discover(pxe, arch(0, 11)), "rest", "PXEClient"},
		{"UEFI HTTP boot", discover(web, arch(0, 16)), "http://10.0.0.5/x64.efi", "HTTPClient"},
		{"UEFI HTTP boot without a URL", discover(web, arch(0, 19)), "rest", ""},
		{"iPXE", discover(pxe, arch(0, 7), generic(optUserClass, []byte("iPXE")...)), "boot.ipxe", "PXEClient"},
		{"iPXE by RFC 3004", discover(pxe, arch(0, 0), generic(optUserClass, []byte("\x04iPXE")...)), "boot.ipxe", "PXEClient"},
		{"iPXE by its options", discover(pxe, arch(0, 0), generic(optIPXE, 0xb1, 0)), "boot.ipxe", "PXEClient"},
		{"request", request(pxe, arch(0, 7), dhcpv4.OptRequestedIPAddress(address)), "x64.efi", "PXEClient"},
	} {
		t.Run(c.name, func(t *testing.T) {
			uuid := append([]byte{0}, make([]byte, 16)...)
			c.req.UpdateOption(generic(optClientUUID, uuid...))
			got, err := l.Reply(c.req)
			if err != nil {
				t.Fatal(err)
			}
			if got.BootFileName != c.file || string(got.Options[optBootFile]) != c.file || string(got.Options[optVendorClass]) != c.class {
				t.Errorf("got file %q, option 67 %q, class %q", got.BootFileName, got.Options[optBootFile], got.Options[optVendorClass])
			}
			if !got.ServerIPAddr.Equal(net.IPv4(10, 0, 0, 5)) || got.ServerHostName != "10.0.0.5" || string(got.Options[optClientUUID]) != string(uuid) {
				t.Errorf("got siaddr %v, sname %q, UUID %x", got.ServerIPAddr, got.ServerHostName, got.Options[optClientUUID])
			}
			if _, ok := got.Options[optVendor]; ok != (c.class == netboot.PXEClient) {
				t.Errorf("discovery control sent: %v", ok)
			}
		})
	}
}

func TestBootFileByHand(t *testing.T) {
	l := testLease()
	l.BootFiles = netboot.Files{{Name: strings.Repeat("a", 200)}}
	pxe := dhcpv4.OptClassIdentifier("PXEClient:Arch:00000:UNDI:002001")
	got, err := l.Reply(discover(pxe))
	if err != nil {
		t.Fatal(err)
	}
	if got.BootFileName != "" || len(got.Options[optBootFile]) != 200 {
		t.Errorf("a name too long for file: file %q, option 67 %q", got.BootFileName, got.Options[optBootFile])
	}
	l.Options = []Option{{optVendor, []byte{6, 1, 0}}, {Code: optVendorClass}, {Code: optBootFile}}
	if got, err = l.Reply(discover(pxe)); err != nil {
		t.Fatal(err)
	}
	_, class := got.Options[optVendorClass]
	_, file := got.Options[optBootFile]
	if string(got.Options[optVendor]) != "\x06\x01\x00" || class || file {
		t.Errorf("got %v", got)
	}
	l.BootFiles, l.Options = nil, nil
	if got, err = l.Reply(discover(pxe)); err != nil {
		t.Fatal(err)
	}
	if _, class := got.Options[optVendorClass]; class {
		t.Errorf("a lease without a boot file answers as a boot server: %v", got)
	}
}
