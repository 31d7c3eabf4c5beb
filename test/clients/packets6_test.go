package clients

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/dhcp6"   //nolint:depguard // its replies to recorded messages are pure
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"     //nolint:depguard // of dhcp6
	"github.com/virt-launcher-net/virt-launcher-net/pkg/netboot" //nolint:depguard // of dhcp6
)

// recordedLease6 is Calico's, with an end and all that a client may ask for. Its
// server is the one that the clients spoke to.
func recordedLease6() dhcp6.Lease {
	return dhcp6.Lease{
		MAC:       mac.Addr{0x0a, 0x58, 0xc0, 0xa8, 0x4f, 0x05},
		Address:   netip.MustParseAddr("fd79::5"),
		Server:    netip.MustParseAddr(calicosHost),
		DNS:       []netip.Addr{netip.MustParseAddr("fd00:10:96::a")},
		Search:    []string{"default.svc.cluster.local", "svc.cluster.local", "cluster.local"},
		NTP:       []netip.Addr{netip.MustParseAddr("fd00:10:96::123")},
		Hostname:  "vm-7",
		BootFiles: netboot.Files{{Name: "tftp://[fd00::69]/ipxe.efi"}, {Firmware: "ipxe", Name: "http://[fd00::69]/boot.ipxe"}},
		Valid:     time.Hour,
	}
}

// Each recorded message of DHCPv6 gets the answer that its golden file has.
func TestRecorded6(t *testing.T) {
	lease := recordedLease6()
	for _, c := range clients() {
		if c.boot == nil && (c.start6 == nil || c.name == kernel) {
			continue
		}
		eachRecorded(t, c.name+"6", func(t *testing.T, name string) string {
			req, err := dhcpv6.MessageFromBytes(readHex(t, name+".hex"))
			if err != nil {
				t.Fatal(err)
			}
			reply, err := lease.Reply(req, false)
			if err != nil {
				t.Fatal(err)
			}
			checkReply6(t, lease, req, reply)
			return summary(reply)
		})
	}
}

// summary is a reply as the library tells it, and its bytes, since it keeps what
// it does not know to itself.
func summary(m *dhcpv6.Message) string {
	var b strings.Builder
	fmt.Fprintln(&b, m.Summary())
	b.WriteString(hex.Dump(m.ToBytes()))
	return b.String()
}

// checkReply6 looks for what RFC 8415 §18.3 wants of every answer that grants
// the address, whatever the golden file has.
func checkReply6(t *testing.T, lease dhcp6.Lease, req, reply *dhcpv6.Message) {
	t.Helper()
	if reply.TransactionID != req.TransactionID {
		t.Error("the transaction is not the client's")
	}
	if !bytes.Equal(reply.Options.ClientID().ToBytes(), req.Options.ClientID().ToBytes()) {
		t.Error("the client identifier is not the client's")
	}
	if server := req.Options.ServerID(); server != nil && !bytes.Equal(reply.Options.ServerID().ToBytes(), server.ToBytes()) {
		t.Error("the server identifier is not the one that was asked")
	}
	asked, given := req.Options.OneIANA(), reply.Options.OneIANA()
	if asked == nil {
		return // for settings alone
	}
	if given == nil || given.IaId != asked.IaId || given.Options.OneAddress() == nil || !given.Options.OneAddress().IPv6Addr.Equal(lease.Address.AsSlice()) {
		t.Errorf("%v is answered by %v", asked, given)
	}
	want := dhcpv6.MessageTypeReply
	if req.MessageType == dhcpv6.MessageTypeSolicit && req.GetOneOption(dhcpv6.OptionRapidCommit) == nil {
		want = dhcpv6.MessageTypeAdvertise
	}
	if reply.MessageType != want {
		t.Errorf("%v is answered by %v", req.MessageType, reply.MessageType)
	}
}
