package clients

import (
	"encoding/hex"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/dhcp" //nolint:depguard // its replies to recorded messages are pure
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"  //nolint:depguard // of dhcp
)

// record writes down what the client sent, as it came, with -update: a file
// per kind of message.
func (c client) record(t *testing.T, l lease, seen []message) {
	t.Helper()
	if !*update {
		return
	}
	for _, m := range seen {
		kind := strings.ToLower(m.kind)
		switch {
		case !m.client || m.kind == "RS" || m.six != l.six:
			continue
		case l.name == "flannel", l.name == "calico6", l.name == "finite6" && m.renewal:
		case l.shape == podtest.Flannel && m.renewal && m.broadcast:
			kind = "rebind"
		case l.shape == podtest.Flannel && m.renewal:
			kind = "renew"
		default:
			continue
		}
		name := c.name
		if l.six {
			name += "6"
		}
		text := hex.EncodeToString(m.raw)
		var b strings.Builder
		for len(text) > 64 {
			b.WriteString(text[:64] + "\n")
			text = text[64:]
		}
		b.WriteString(text + "\n")
		write(t, name+"-"+kind+".hex", b.String())
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("testdata", name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// recordedLease is flannel's, with an end.
func recordedLease() dhcp.Lease {
	gateway := netip.MustParseAddr(flannelGateway)
	return dhcp.Lease{
		MAC:     mac.Addr{0x0a, 0x58, 0x0a, 0xf4, 0x01, 0x07},
		Address: netip.MustParsePrefix("10.244.1.7/24"),
		Server:  gateway,
		Router:  gateway,
		Routes: []dhcp.Route{
			{Destination: netip.MustParsePrefix("10.244.0.0/16"), Gateway: gateway},
			{Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: gateway},
		},
		DNS:      []netip.Addr{netip.MustParseAddr("10.96.0.10")},
		Search:   []string{"default.svc.cluster.local", "svc.cluster.local", "cluster.local"},
		NTP:      []netip.Addr{netip.MustParseAddr("10.96.0.123")},
		MTU:      1450,
		Hostname: "vm-7",
		Duration: time.Hour,
	}
}

// Each recorded message gets the answer that its golden file has.
func TestRecorded(t *testing.T) {
	lease := recordedLease()
	for _, c := range clients() {
		if c.boot == nil && c.start == nil {
			continue
		}
		eachRecorded(t, c.name, func(t *testing.T, name string) string {
			req := readRecorded(t, name+".hex")
			reply, err := lease.Reply(req)
			if err != nil {
				t.Fatal(err)
			}
			checkReply(t, lease, req, reply)
			return reply.Summary()
		})
	}
}

// eachRecorded compares what answers the recorded messages of a client with the
// golden files.
func eachRecorded(t *testing.T, client string, answer func(t *testing.T, name string) string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", client+"-*.hex"))
	if err != nil || len(files) == 0 {
		t.Errorf("%s has no recorded messages: %v", client, err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".hex")
		t.Run(name, func(t *testing.T) {
			got := answer(t, name)
			if *update {
				write(t, name+".reply", got)
				return
			}
			want, err := os.ReadFile(filepath.Join("testdata", name+".reply"))
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("differs from %s.reply (write it with -update):\n%s", name, got)
			}
		})
	}
}

func readRecorded(t *testing.T, name string) *dhcpv4.DHCPv4 {
	t.Helper()
	m, err := dhcpv4.FromBytes(readHex(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func readHex(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := hex.DecodeString(strings.ReplaceAll(string(text), "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// checkReply looks for what RFC 2131 §4.3.1, table 3, wants of every answer
// that grants the address, whatever the golden file has.
func checkReply(t *testing.T, lease dhcp.Lease, req, reply *dhcpv4.DHCPv4) {
	t.Helper()
	if reply.TransactionID != req.TransactionID || reply.Flags != req.Flags || reply.ClientHWAddr.String() != lease.MAC.String() {
		t.Errorf("xid, flags or chaddr are not the client's: %v", reply)
	}
	if !reply.YourIPAddr.Equal(lease.Address.Addr().AsSlice()) || !reply.ServerIdentifier().Equal(lease.Server.AsSlice()) {
		t.Errorf("address %v from %v", reply.YourIPAddr, reply.ServerIdentifier())
	}
	if string(reply.Options.Get(dhcpv4.OptionClientIdentifier)) != string(req.Options.Get(dhcpv4.OptionClientIdentifier)) {
		t.Error("the client identifier is not the client's") // RFC 6842 §3
	}
	want := dhcpv4.MessageTypeAck
	if req.MessageType() == dhcpv4.MessageTypeDiscover && !req.Options.Has(dhcpv4.GenericOptionCode(80)) {
		want = dhcpv4.MessageTypeOffer
	}
	if reply.MessageType() != want {
		t.Errorf("%v is answered by %v", req.MessageType(), reply.MessageType())
	}
}
