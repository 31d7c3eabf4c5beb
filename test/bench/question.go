package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"
	"unsafe"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv6"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// message6At is where a DHCPv6 message is in a frame, which begins with its type and
// transaction id.
const message6At = podtest.EthernetLen + podtest.IPv6Len + podtest.UDPLen

// iaid is that of the one client.
var iaid = [4]byte{0, 0, 0, 1}

// question is an exchange of four messages by one protocol: what the client sends, and
// what answers it.
type question struct {
	protocol string
	typeOf   func(frame []byte) byte // 0: not of the protocol
	xidAt    int                     // in frames
	steps    [2]step
}

// step is a message of the client and the type of its answer.
type step struct {
	answer byte
	// frame is the message's; last is what the server has answered to the one before.
	frame func(xid uint32, last []byte) []byte
}

// type4 is the type of a DHCP message in a frame.
func type4(frame []byte) byte {
	if len(frame) <= messageAt+optionsAt || binary.BigEndian.Uint16(frame[12:]) != unix.ETH_P_IP || frame[podtest.EthernetLen+9] != unix.IPPROTO_UDP {
		return 0
	}
	return byte(messageType(frame[messageAt:]))
}

// type6 is the type of a DHCPv6 message in a frame.
func type6(frame []byte) byte {
	if len(frame) <= message6At+4 || binary.BigEndian.Uint16(frame[12:]) != unix.ETH_P_IPV6 || frame[podtest.EthernetLen+6] != unix.IPPROTO_UDP {
		return 0
	}
	return frame[message6At]
}

func newQuestions() ([]question, error) {
	mac, err := net.ParseMAC(guestMAC)
	if err != nil {
		return nil, err
	}
	discover, request := messages4(mac)
	frame4 := func(message []byte) func(uint32, []byte) []byte {
		return func(xid uint32, _ []byte) []byte { return udpFrame(mac, message, xid) }
	}
	frame6 := func(typ dhcpv6.MessageType) func(uint32, []byte) []byte {
		return func(xid uint32, last []byte) []byte { return question6(mac, typ, xid, last) }
	}
	return []question{
		{overIPv4, type4, messageAt + xidAt, [2]step{
			{byte(dhcpv4.MessageTypeOffer), frame4(discover)},
			{byte(dhcpv4.MessageTypeAck), frame4(request)},
		}},
		{overIPv6, type6, message6At, [2]step{
			{byte(dhcpv6.MessageTypeAdvertise), frame6(dhcpv6.MessageTypeSolicit)},
			{byte(dhcpv6.MessageTypeReply), frame6(dhcpv6.MessageTypeRequest)},
		}},
	}, nil
}

// question6 is a frame of the client to all servers. One that follows an advertisement
// names its server.
func question6(mac net.HardwareAddr, typ dhcpv6.MessageType, xid uint32, last []byte) []byte {
	m := &dhcpv6.Message{MessageType: typ, TransactionID: dhcpv6.TransactionID{byte(xid >> 16), byte(xid >> 8), byte(xid)}}
	m.AddOption(dhcpv6.OptClientID(&dhcpv6.DUIDLL{HWType: 1, LinkLayerAddr: mac}))
	if last != nil {
		if offer, err := dhcpv6.MessageFromBytes(last[message6At:]); err == nil {
			m.AddOption(dhcpv6.OptServerID(offer.Options.ServerID()))
		}
	}
	m.AddOption(&dhcpv6.OptIANA{IaId: iaid})
	m.AddOption(dhcpv6.OptRequestedOption(dhcpv6.OptionDNSRecursiveNameServer, dhcpv6.OptionDomainSearchList))
	m.AddOption(dhcpv6.OptElapsedTime(0))
	return podtest.UDPFrame(mac, net.HardwareAddr{0x33, 0x33, 0, 1, 0, 2}, netip.AddrPortFrom(netip.MustParseAddr(guestLocal), 546),
		netip.MustParseAddrPort("[ff02::1:2]:547"), m.ToBytes())
}

// ask asks after a pause and returns how long the client waited: from the write of each
// message to the read of its answer.
func (c *client) ask(q question) (took time.Duration, err error) {
	c.xid = (c.xid + 1) & 0xffffff // as DHCPv6 has it
	frame := q.steps[0].frame(c.xid, nil)
	pause()
	for i, step := range q.steps {
		if i > 0 {
			frame = step.frame(c.xid, c.last)
		}
		began := time.Now()
		if err := rawWrite(c.fd, frame); err != nil {
			return 0, err
		}
		if c.last, err = c.answer(q, step.answer); err != nil {
			return 0, fmt.Errorf("message %d: %w", i+1, err)
		}
		took += time.Since(began)
	}
	return took, nil
}

// answer waits for a reply of the type to the current exchange.
func (c *client) answer(q question, typ byte) (frame []byte, err error) {
	for {
		n, err := rawRead(c.fd, c.frame[:], patience)
		if err != nil {
			return nil, err
		}
		frame := c.frame[:n]
		if q.typeOf(frame) == typ && bytes.HasSuffix(frame[:q.xidAt+4], []byte{byte(c.xid >> 16), byte(c.xid >> 8), byte(c.xid)}) {
			return frame, nil
		}
	}
}

// patience is how long the client waits for an answer.
const patience = time.Second

// rawRead and rawWrite spare the client the Go scheduler, whose threads would take the
// servers' CPU: it has nothing else to do than to wait.
func rawRead(fd int, b []byte, patience time.Duration) (int, error) {
	poll, timeout := unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}, unix.NsecToTimespec(int64(patience))
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&poll)), 1, uintptr(unsafe.Pointer(&timeout)), 0, 0, 0)
		switch {
		case errno == unix.EINTR:
			continue
		case errno != 0:
			return 0, os.NewSyscallError("poll tap", errno)
		case n == 0:
			return 0, errTimeout
		}
		n, _, errno = unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		if errno != 0 {
			return 0, os.NewSyscallError("read tap", errno)
		}
		return int(n), nil
	}
}

func rawWrite(fd int, b []byte) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b))); errno != 0 {
		return os.NewSyscallError("write tap", errno)
	}
	return nil
}
