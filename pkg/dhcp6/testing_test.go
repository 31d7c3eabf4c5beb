package dhcp6

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/netboot"
)

var allServers = netip.MustParseAddr("ff02::1:2")

var update = flag.Bool("update", false, "write the golden files anew")

var (
	guestMAC   = mac.Addr{0x02, 0x42, 0x0a, 0xf4, 0x01, 0x07}
	guestDUID  = []byte{0, 3, 0, 1, 0x02, 0x42, 0x0a, 0xf4, 0x01, 0x07}
	guestLocal = guestMAC.LinkLocal()
	xid        = dhcpv6.TransactionID{0xca, 0xfe, 0x01}

	address = netip.MustParseAddr("fd00:10:244:1::7")
	stale   = netip.MustParseAddr("fd00:10:244:9::9")
	gateway = netip.MustParseAddr("fe80::ecee:eeff:feee:eeee")
)

func testLease() Lease {
	return Lease{
		MAC: guestMAC, Address: address, Server: gateway,
		DNS:    []netip.Addr{netip.MustParseAddr("fd00:10:96::a")},
		Search: []string{"default.svc.cluster.local", "svc.cluster.local", "cluster.local"},
	}
}

// fullLease has everything, and an end.
func fullLease() Lease {
	l := testLease()
	l.NTP = []netip.Addr{netip.MustParseAddr("fd00:10:96::123")}
	l.BootFiles = netboot.Files{{Name: "tftp://[fd00::1]/ipxe.efi"}, {Firmware: "http-x64", Name: "http://[fd00::1]/ipxe.efi"}, {Firmware: "ipxe", Name: "http://[fd00::1]/boot.ipxe"}}
	l.Hostname = "vm-a"
	l.Valid = 30 * time.Minute
	return l
}

// message is one of the guest, with its DUID.
func message(typ dhcpv6.MessageType, options ...dhcpv6.Option) *dhcpv6.Message {
	m := &dhcpv6.Message{MessageType: typ, TransactionID: xid}
	m.Options.Options = append(dhcpv6.Options{generic(dhcpv6.OptionClientID, guestDUID...)}, options...)
	return m
}

// toUs is a message for this server.
func toUs(typ dhcpv6.MessageType, options ...dhcpv6.Option) *dhcpv6.Message {
	return message(typ, append([]dhcpv6.Option{generic(dhcpv6.OptionServerID, serverID(guestMAC).ToBytes()...)}, options...)...)
}

func generic(code dhcpv6.OptionCode, value ...byte) dhcpv6.Option {
	return &dhcpv6.OptionGeneric{OptionCode: code, OptionData: value}
}

func addrs(list []netip.Addr) (out dhcpv6.Options) {
	for _, a := range list {
		out.Add(&dhcpv6.OptIAAddress{IPv6Addr: a.AsSlice()})
	}
	return out
}

func na(id byte, list ...netip.Addr) dhcpv6.Option {
	return &dhcpv6.OptIANA{IaId: [4]byte{3: id}, Options: dhcpv6.IdentityOptions{Options: addrs(list)}}
}

func ta(id byte, list ...netip.Addr) dhcpv6.Option {
	return &dhcpv6.OptIATA{IaId: [4]byte{3: id}, Options: dhcpv6.IdentityOptions{Options: addrs(list)}}
}

func pd(id byte) dhcpv6.Option { return &dhcpv6.OptIAPD{IaId: [4]byte{3: id}} }

func oro(codes ...dhcpv6.OptionCode) dhcpv6.Option { return dhcpv6.OptRequestedOption(codes...) }

// parsed is a message as the server reads it.
func parsed(t testing.TB, m *dhcpv6.Message) *dhcpv6.Message {
	t.Helper()
	got, err := parseMessage(m.ToBytes())
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// transcript says in a line what matters in an answer, or why there is none.
func transcript(m *dhcpv6.Message, err error) string {
	if why, ok := errors.AsType[lease.DropReason](err); ok {
		return string(why)
	}
	if err != nil {
		return err.Error()
	}
	words := []string{m.MessageType.String()}
	for _, o := range m.Options.Options {
		switch o := o.(type) {
		case *dhcpv6.OptIANA:
			words = append(words, fmt.Sprintf("na%d(%s)", o.IaId[3], within(o.Options.Options, o.T1, o.T2)))
		case *dhcpv6.OptIATA:
			words = append(words, fmt.Sprintf("ta%d(%s)", o.IaId[3], within(o.Options.Options, 0, 0)))
		case *dhcpv6.OptIAPD:
			words = append(words, fmt.Sprintf("pd%d(%s)", o.IaId[3], within(o.Options.Options, o.T1, o.T2)))
		case *dhcpv6.OptStatusCode:
			words = append(words, o.StatusCode.String())
		default:
			switch o.Code() {
			case dhcpv6.OptionClientID, dhcpv6.OptionServerID:
			default:
				words = append(words, fmt.Sprint(uint16(o.Code())))
			}
		}
	}
	return strings.Join(words, " ")
}

func within(options dhcpv6.Options, t1, t2 time.Duration) string {
	var words []string
	for _, o := range options {
		switch o := o.(type) {
		case *dhcpv6.OptIAAddress:
			words = append(words, fmt.Sprintf("%v %s/%s", addrOf(o), short(o.PreferredLifetime), short(o.ValidLifetime)))
		case *dhcpv6.OptStatusCode:
			words = append(words, o.StatusCode.String())
			if o.StatusCode == iana.StatusSuccess {
				words = append(words, "?")
			}
		}
	}
	if t1 != 0 || t2 != 0 {
		words = append(words, short(t1)+" "+short(t2))
	}
	return strings.Join(words, ", ")
}

func short(d time.Duration) string {
	if d == infinity {
		return "∞"
	}
	return fmt.Sprintf("%.0fs", d.Seconds())
}

// frameOf is a message as the guest sends it.
func frameOf(m *dhcpv6.Message, change ...func(*packet.UDP)) []byte {
	d := packet.UDP{
		SrcMAC: guestMAC, DstMAC: packet.MulticastMAC(allServers),
		Src: netip.AddrPortFrom(guestLocal, clientPort), Dst: netip.AddrPortFrom(allServers, serverPort),
	}
	for _, f := range change {
		f(&d)
	}
	b := append(make([]byte, packet.UDP6Len), m.ToBytes()...)
	packet.SealUDP6(b, d)
	return b
}

// sealed is a reply as it goes onto the wire.
func sealed(m *dhcpv6.Message) []byte {
	frame, _ := appendMessage(make([]byte, packet.UDP6Len), m, 1232)
	packet.SealUDP6(frame, packet.UDP{
		SrcMAC: mac.Addr{0xfe, 1}, DstMAC: guestMAC,
		Src: netip.AddrPortFrom(gateway, serverPort), Dst: netip.AddrPortFrom(guestLocal, clientPort),
	})
	return frame
}

// readReply has another implementation read a server's message from a frame, whose
// memory it does not share.
func readReply(frame []byte) (*dhcpv6.Message, packet.UDP, error) {
	u, err := packet.ParseUDP6(bytes.Clone(frame), false)
	if err != nil {
		return nil, u, err
	}
	m, err := dhcpv6.MessageFromBytes(u.Payload)
	if err == nil && u.Dst.Port() != clientPort {
		err = errors.New("not a reply")
	}
	return m, u, err
}

// golden compares with a file under testdata, or writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	podtest.Golden(t, name, got, *update)
}
