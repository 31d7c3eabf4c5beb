package dhcp

import (
	"net"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

func TestParseBootFile(t *testing.T) {
	for text, want := range map[string]BootFile{
		"pxelinux.0":               {Name: "pxelinux.0"},
		"efi-x64=ipxe.efi":         {"efi-x64", "ipxe.efi"},
		"ipxe=http://h/a?b=c":      {"ipxe", "http://h/a?b=c"},
		"http://h/a?b=c":           {Name: "http://h/a?b=c"},
		"30=rv128.efi":             {"30", "rv128.efi"},
		"/a/b=c":                   {Name: "/a/b=c"},
		"=":                        {},
		"=a":                       {},
		"":                         {},
		"efi-x65=a":                {},
		"65536=a":                  {},
		"bios=":                    {},
		"bios=a\n":                 {},
		strings.Repeat("a", 255+1): {},
	} {
		got, err := ParseBootFile(text)
		if got != want || (err == nil) != (want != BootFile{}) {
			t.Errorf("%q: got %+v and error %v, want %+v", text, got, err, want)
		}
	}
}

// TestBootFile: who gets which file, and what firmware needs besides.
func TestBootFile(t *testing.T) {
	lease := testLease()
	lease.TFTPServer, lease.BootFile = "10.0.0.5", "rest"
	lease.BootFiles = []BootFile{
		{"bios", "undionly.kpxe"},
		{"efi-x64", "x64.efi"},
		{"http-x64", "http://10.0.0.5/x64.efi"},
		{"30", "rv128.efi"},
		{"ipxe", "boot.ipxe"},
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
		{"x64 by the RFC's number", discover(pxe, arch(0, 9)), "x64.efi", "PXEClient"},
		{"its second choice", discover(pxe, arch(0, 11, 0, 7)), "x64.efi", "PXEClient"},
		{"by number", discover(pxe, arch(0, 30)), "rv128.efi", "PXEClient"},
		{"no file of its own", discover(pxe, arch(0, 11)), "rest", "PXEClient"},
		{"half an architecture", discover(pxe, arch(0)), "rest", "PXEClient"},
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
			got, err := lease.Reply(c.req)
			if err != nil {
				t.Fatal(err)
			}
			if got.BootFileName != c.file || string(got.Options[optBootFile]) != c.file || string(got.Options[optVendorClass]) != c.class {
				t.Errorf("got file %q, option 67 %q, class %q", got.BootFileName, got.Options[optBootFile], got.Options[optVendorClass])
			}
			if !got.ServerIPAddr.Equal(net.IPv4(10, 0, 0, 5)) || got.ServerHostName != "10.0.0.5" || string(got.Options[optClientUUID]) != string(uuid) {
				t.Errorf("got siaddr %v, sname %q, UUID %x", got.ServerIPAddr, got.ServerHostName, got.Options[optClientUUID])
			}
			if _, ok := got.Options[optVendor]; ok != (c.class == pxeClass) {
				t.Errorf("discovery control sent: %v", ok)
			}
		})
	}
}

func TestBootFileByHand(t *testing.T) {
	lease := testLease()
	lease.BootFile = strings.Repeat("a", 200)
	pxe := dhcpv4.OptClassIdentifier("PXEClient:Arch:00000:UNDI:002001")
	got, err := lease.Reply(discover(pxe))
	if err != nil {
		t.Fatal(err)
	}
	if got.BootFileName != "" || len(got.Options[optBootFile]) != 200 {
		t.Errorf("a name too long for file: file %q, option 67 %q", got.BootFileName, got.Options[optBootFile])
	}
	lease.Options = []Option{{optVendor, []byte{6, 1, 0}}, {Code: optVendorClass}, {Code: optBootFile}}
	if got, err = lease.Reply(discover(pxe)); err != nil {
		t.Fatal(err)
	}
	_, class := got.Options[optVendorClass]
	_, file := got.Options[optBootFile]
	if string(got.Options[optVendor]) != "\x06\x01\x00" || class || file {
		t.Errorf("got %v", got)
	}
	lease.BootFile, lease.Options = "", nil
	if got, err = lease.Reply(discover(pxe)); err != nil {
		t.Fatal(err)
	}
	if _, class := got.Options[optVendorClass]; class {
		t.Errorf("a lease without a boot file answers as a boot server: %v", got)
	}
}
