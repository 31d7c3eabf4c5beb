package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv6"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/dhcp" //nolint:depguard // the built program's budget against floods would be measured
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"  //nolint:depguard // of dhcp
)

func lease() dhcp.Lease {
	guest, _ := mac.Parse(guestMAC)
	router := netip.MustParseAddr(serverIP)
	return dhcp.Lease{
		MAC: guest, Address: netip.MustParsePrefix(guestIP + "/24"), Server: router, Router: router,
		Routes: []dhcp.Route{
			{Destination: netip.MustParsePrefix("10.244.0.0/16"), Gateway: router},
			{Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: router},
		},
		DNS: []netip.Addr{netip.MustParseAddr(dnsIP)}, Search: searchList, MTU: 1450, Hostname: "vm-a",
	}
}

// serveOurs is the server of the program, without its budget against floods:
// a client with a load is what that is for.
func serveOurs() error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	server, err := dhcp.NewServer(tapName, lease(), slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	defer server.Close()
	server.SetBudget(1 << 30)
	return server.Serve(ctx)
}

// canned are replies made before, by the message that each is an answer to.
type canned struct {
	protocol uint16
	xidAt    int // in frames
	typeOf   func(frame []byte) byte
	replies  map[byte][]byte
}

// serveCanned answers from frames made before: what any server on a packet socket
// costs at least.
func serveCanned() error {
	link, err := net.InterfaceByName(tapName)
	if err != nil {
		return fmt.Errorf("find tap: %w", err)
	}
	var both errgroup.Group
	both.Go(canned{unix.ETH_P_IP, messageAt + xidAt, type4, map[byte][]byte{
		byte(dhcpv4.MessageTypeDiscover): cannedReply(link.HardwareAddr, dhcpv4.MessageTypeOffer),
		byte(dhcpv4.MessageTypeRequest):  cannedReply(link.HardwareAddr, dhcpv4.MessageTypeAck),
	}}.on(link))
	both.Go(canned{unix.ETH_P_IPV6, message6At, type6, map[byte][]byte{
		byte(dhcpv6.MessageTypeSolicit): cannedReply6(link.HardwareAddr, dhcpv6.MessageTypeAdvertise),
		byte(dhcpv6.MessageTypeRequest): cannedReply6(link.HardwareAddr, dhcpv6.MessageTypeReply),
	}}.on(link))
	return both.Wait()
}

func (c canned) on(link *net.Interface) func() error {
	return func() error {
		protocol := c.protocol>>8 | c.protocol<<8 // in network byte order
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(protocol))
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		defer unix.Close(fd)
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: link.Index}); err != nil {
			return os.NewSyscallError("bind", err)
		}
		frame := make([]byte, 2048)
		for {
			n, err := unix.Read(fd, frame)
			if err != nil {
				return os.NewSyscallError("read", err)
			}
			reply := c.replies[c.typeOf(frame[:n])]
			if reply == nil {
				continue
			}
			// Where a type is before the transaction id, in the same four bytes, it stays.
			copy(reply[c.xidAt+1:], frame[c.xidAt+1:c.xidAt+4])
			if _, err := unix.Write(fd, reply); err != nil {
				return os.NewSyscallError("write", err)
			}
		}
	}
}

// cannedReply is a whole frame, without a UDP checksum: the transaction id
// changes.
func cannedReply(tap net.HardwareAddr, typ dhcpv4.MessageType) []byte {
	l := lease()
	routes, _ := hex.DecodeString("100af40af40101000af40101")
	m := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootReply, HWType: 1, ClientHWAddr: l.MAC[:], YourIPAddr: net.ParseIP(guestIP),
		Options: dhcpv4.OptionsFromList(dhcpv4.OptMessageType(typ), dhcpv4.OptServerIdentifier(net.ParseIP(serverIP)),
			dhcpv4.OptIPAddressLeaseTime(1<<32-1), dhcpv4.OptSubnetMask(net.CIDRMask(24, 32)), dhcpv4.OptRouter(net.ParseIP(serverIP)),
			dhcpv4.OptDNS(net.ParseIP(dnsIP)), dhcpv4.OptDomainName(searchList[0]), dhcpv4.OptGeneric(dhcpv4.OptionInterfaceMTU, []byte{5, 170}),
			dhcpv4.OptGeneric(dhcpv4.OptionDNSDomainSearchList, []byte("\x07default\x03svc\x07cluster\x05local\x00\xc0\x08\xc0\x0c")),
			dhcpv4.OptGeneric(dhcpv4.OptionClasslessStaticRoute, routes)),
	}
	frame := podtest.UDPFrame(tap, l.MAC[:], netip.AddrPortFrom(l.Server, 67), netip.AddrPortFrom(l.Address.Addr(), 68), m.ToBytes())
	frame[messageAt-2], frame[messageAt-1] = 0, 0
	return frame
}

// cannedReply6 is likewise a whole frame.
func cannedReply6(tap net.HardwareAddr, typ dhcpv6.MessageType) []byte {
	l := lease()
	m := &dhcpv6.Message{MessageType: typ}
	m.AddOption(dhcpv6.OptServerID(&dhcpv6.DUIDLL{HWType: 1, LinkLayerAddr: tap}))
	m.AddOption(dhcpv6.OptClientID(&dhcpv6.DUIDLL{HWType: 1, LinkLayerAddr: l.MAC[:]}))
	m.AddOption(&dhcpv6.OptIANA{IaId: iaid, Options: dhcpv6.IdentityOptions{Options: dhcpv6.Options{
		&dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP(guestIP6), PreferredLifetime: 1<<32 - 1, ValidLifetime: 1<<32 - 1},
	}}})
	m.AddOption(dhcpv6.OptDNS(net.ParseIP(serverIP6)))
	return podtest.UDPFrame(tap, l.MAC[:], netip.MustParseAddrPort("[fe80::1]:547"), netip.AddrPortFrom(netip.MustParseAddr(guestLocal), 546), m.ToBytes())
}
