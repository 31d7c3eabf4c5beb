package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// Where things are in a frame with a DHCP message, and in the message.
const (
	messageAt = podtest.EthernetLen + podtest.IPv4Len + podtest.UDPLen
	xidAt     = 4
	optionsAt = 240
)

// client is the one client: the guest on a tap, read and written by
// blocking system calls.
type client struct {
	fd       int
	mac      net.HardwareAddr
	discover []byte // messages, without headers
	request  []byte
	xid      uint32
	last     []byte // answer, within frame
	frame    [2048]byte
}

func newClient(ns *podtest.NS) (*client, error) {
	c := &client{fd: -1}
	if err := ns.Do(c.open); err != nil {
		return nil, errors.Join(fmt.Errorf("open tap: %w", err), c.close())
	}
	c.mac, _ = net.ParseMAC(guestMAC)
	c.discover, c.request = messages4(c.mac)
	return c, nil
}

// messages4 are the client's, but for the transaction id.
func messages4(mac net.HardwareAddr) (discover, request []byte) {
	list := dhcpv4.OptParameterRequestList(dhcpv4.OptionSubnetMask, dhcpv4.OptionBroadcastAddress, dhcpv4.OptionRouter,
		dhcpv4.OptionDomainName, dhcpv4.OptionDomainNameServer, dhcpv4.OptionDNSDomainSearchList, dhcpv4.OptionHostName,
		dhcpv4.OptionInterfaceMTU, dhcpv4.OptionClasslessStaticRoute, dhcpv4.OptionNTPServers)
	message := func(options ...dhcpv4.Option) []byte {
		return (&dhcpv4.DHCPv4{
			OpCode: dhcpv4.OpcodeBootRequest, HWType: 1, ClientHWAddr: mac,
			Options: dhcpv4.OptionsFromList(append(options, list, dhcpv4.OptMaxMessageSize(1450))...),
		}).ToBytes()
	}
	return message(dhcpv4.OptMessageType(dhcpv4.MessageTypeDiscover)), message(dhcpv4.OptMessageType(dhcpv4.MessageTypeRequest),
		dhcpv4.OptServerIdentifier(net.ParseIP(serverIP)), dhcpv4.OptRequestedIPAddress(net.ParseIP(guestIP)))
}

func (c *client) open() (err error) {
	c.fd, err = openTap(tapName, 0)
	return err
}

// openTap opens a tap of the current namespace with more flags than it needs anyway.
func openTap(name string, flags uint16) (fd int, err error) {
	if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return -1, os.NewSyscallError("open /dev/net/tun", err)
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		return -1, errors.Join(fmt.Errorf("name tap: %w", err), unix.Close(fd))
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return -1, errors.Join(os.NewSyscallError("ioctl TUNSETIFF", err), unix.Close(fd))
	}
	return fd, nil
}

func (c *client) close() error {
	if c.fd < 0 {
		return nil
	}
	return unix.Close(c.fd)
}

// send sends a message with the given transaction id.
func (c *client) send(message []byte, xid uint32) error {
	if _, err := unix.Write(c.fd, udpFrame(c.mac, message, xid)); err != nil {
		return os.NewSyscallError("write tap", err)
	}
	return nil
}

// udpFrame sends a DHCP message to all.
func udpFrame(mac net.HardwareAddr, message []byte, xid uint32) []byte {
	binary.BigEndian.PutUint32(message[xidAt:], xid)
	return podtest.UDPFrame(mac, net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		netip.AddrPortFrom(netip.IPv4Unspecified(), 68), netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), 67), message)
}

var errTimeout = errors.New("no answer")

// receive waits for the next DHCP reply and returns the message.
func (c *client) receive(patience time.Duration) ([]byte, error) {
	poll := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(poll, int(patience.Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, os.NewSyscallError("poll tap", err)
		case n == 0:
			return nil, errTimeout
		}
		if n, err = unix.Read(c.fd, c.frame[:]); err != nil {
			return nil, os.NewSyscallError("read tap", err)
		}
		// ARP and what IPv6 says of itself comes as well.
		b := c.frame[:n]
		if n > messageAt+optionsAt && binary.BigEndian.Uint16(b[12:]) == 0x0800 && b[podtest.EthernetLen+9] == unix.IPPROTO_UDP &&
			binary.BigEndian.Uint16(b[messageAt-podtest.UDPLen+2:]) == 68 {
			return b[messageAt:], nil
		}
	}
}

// waitServer waits until the server answers, and checks what it hands out.
func (c *client) waitServer(patience time.Duration) error {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		c.xid++
		if err := c.send(c.discover, c.xid); err != nil {
			return err
		}
		reply, err := c.receive(100 * time.Millisecond)
		if errors.Is(err, errTimeout) {
			continue
		}
		if err != nil {
			return err
		}
		return checkOffer(reply)
	}
	return errTimeout
}

// checkOffer tells whether a server hands out what all of them are to.
func checkOffer(reply []byte) error {
	m, err := dhcpv4.FromBytes(reply)
	if err != nil {
		return fmt.Errorf("parse offer: %w", err)
	}
	if m.YourIPAddr.String() != guestIP {
		return fmt.Errorf("offer is %s", m.Summary())
	}
	for _, code := range []dhcpv4.OptionCode{
		dhcpv4.OptionSubnetMask, dhcpv4.OptionDomainNameServer, dhcpv4.OptionDomainName, dhcpv4.OptionInterfaceMTU,
		dhcpv4.OptionIPAddressLeaseTime, dhcpv4.OptionDNSDomainSearchList, dhcpv4.OptionClasslessStaticRoute,
	} {
		if !m.Options.Has(code) {
			return fmt.Errorf("no option %v in the offer: %s", code, m.Summary())
		}
	}
	return nil
}

// load does DISCOVER, OFFER, REQUEST, ACK over and over for a time, so many at
// once, and returns how long each took. The calling thread is pinned to a CPU
// meanwhile. lost is how often an answer failed to come.
func (c *client) load(howLong time.Duration, atOnce, onCPU int) (took []time.Duration, lost int, err error) {
	unpin, err := pin(onCPU)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, unpin()) }()
	started := make(map[uint32]time.Time, atOnce)
	begin := func() error {
		c.xid++
		started[c.xid] = time.Now()
		return c.send(c.discover, c.xid)
	}
	for end := time.Now().Add(howLong); time.Now().Before(end); {
		for len(started) < atOnce {
			if err := begin(); err != nil {
				return nil, 0, err
			}
		}
		reply, err := c.receive(time.Second)
		if errors.Is(err, errTimeout) {
			lost += len(started)
			clear(started)
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		xid := binary.BigEndian.Uint32(reply[xidAt:])
		at, ours := started[xid]
		switch typ := messageType(reply); {
		case !ours: // one of the load before
		case typ == dhcpv4.MessageTypeOffer:
			if err := c.send(c.request, xid); err != nil {
				return nil, 0, err
			}
		case typ == dhcpv4.MessageTypeAck:
			took = append(took, time.Since(at))
			delete(started, xid)
		default:
			return nil, 0, fmt.Errorf("the server answers with %v", typ)
		}
	}
	return took, lost, nil
}

// pin locks the goroutine to its thread and that to a CPU. The thread must
// outlive the goroutine: the servers that it has started die with it.
func pin(onCPU int) (unpin func() error, err error) {
	runtime.LockOSThread()
	var before, set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return nil, os.NewSyscallError("sched_getaffinity", err)
	}
	set.Set(onCPU)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return nil, os.NewSyscallError("sched_setaffinity", err)
	}
	return func() error {
		defer runtime.UnlockOSThread()
		return os.NewSyscallError("sched_setaffinity", unix.SchedSetaffinity(0, &before))
	}, nil
}

// messageType looks option 53 up.
func messageType(message []byte) dhcpv4.MessageType {
	for options := message[optionsAt:]; len(options) > 2; {
		code, length := options[0], int(options[1])
		switch {
		case code == dhcpv4.OptionDHCPMessageType.Code():
			return dhcpv4.MessageType(options[2])
		case code == dhcpv4.OptionPad.Code():
			options = options[1:]
		default:
			options = options[min(2+length, len(options)):]
		}
	}
	return dhcpv4.MessageTypeNone
}
