package nl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Socket is a netlink socket for requests, one at a time. It stays in the network
// namespace that the calling thread was in when it was opened. The kernel does what it
// is asked in the system call that asks, so nothing is waited for and no poller is
// woken. It is not safe for concurrent use.
type Socket struct {
	fd       int
	sequence uint32
}

// maxDatagram is more than the kernel sends at once (netlink_dump,
// net/netlink/af_netlink.c).
const maxDatagram = 32 << 10

// buffers are to receive into. A socket has none of its own: some hundred live long, and
// are seldom asked.
var buffers = sync.Pool{New: func() any { return new([maxDatagram]byte) }}

// OpenSocket opens a Socket of a protocol (unix.NETLINK_ROUTE, …) in the network
// namespace of the calling thread. Close it.
func OpenSocket(protocol int) (*Socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, err
	}
	// The kernel then explains why it refuses, and does not send the request back; an
	// old one can't.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	return &Socket{fd: fd}, nil
}

// Close closes the socket.
func (s *Socket) Close() error {
	fd := s.fd
	s.fd = -1 // another file may get the number
	return unix.Close(fd)
}

// SetBuffers makes room for so many bytes that are sent, and received, at once.
func (s *Socket) SetBuffers(bytes int) error {
	for force, usual := range map[int]int{unix.SO_SNDBUFFORCE: unix.SO_SNDBUF, unix.SO_RCVBUFFORCE: unix.SO_RCVBUF} {
		if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, force, bytes) == nil {
			continue // root of another user namespace may not
		}
		if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, usual, bytes); err != nil {
			return fmt.Errorf("set up netlink socket: %w", err)
		}
	}
	return nil
}

// Message is a netlink message.
type Message struct {
	Type, Flags uint16
	Sequence    uint32
	Data        []byte // behind the header
}

// Split returns the messages in what was received, or is to be sent at once.
func Split(b []byte) (all []Message, err error) {
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return nil, errors.New("a netlink message is cut off")
		}
		all = append(all, Message{
			binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:]), binary.NativeEndian.Uint32(b[8:]), b[unix.SizeofNlMsghdr:size],
		})
		b = b[min(len(b), (size+3)&^3):]
	}
	return all, nil
}

// errInterrupted is that something changed while the kernel walked over it.
var errInterrupted = errors.New("interrupted")

// maxDumps bounds how often an interrupted dump is read again.
const maxDumps = 20

// Dump asks for all of something. What the kernel did not read in one go is asked for
// again.
func (s *Socket) Dump(kind uint16, body []byte) (all []Message, err error) {
	for range maxDumps {
		if all, err = s.Execute(kind, unix.NLM_F_DUMP, body); !errors.Is(err, errInterrupted) {
			break
		}
	}
	return all, err
}

// Execute sends a request of a type, with flags beyond NLM_F_REQUEST, and returns what
// the kernel answers. The error is the kernel's errno, with its explanation if it gave
// one.
func (s *Socket) Execute(kind, flags uint16, body []byte) ([]Message, error) {
	s.sequence++
	if err := s.Send(AppendMessage(nil, kind, flags|unix.NLM_F_REQUEST, s.sequence, body)); err != nil {
		return nil, err
	}
	interrupted := false
	var all []Message
	for {
		messages, err := s.receive(0)
		if err != nil {
			return nil, err
		}
		for _, m := range messages {
			if m.Sequence != s.sequence { // of a request whose answer could not be read
				continue
			}
			interrupted = interrupted || m.Flags&unix.NLM_F_DUMP_INTR != 0
			switch {
			case m.Type == unix.NLMSG_ERROR || m.Type == unix.NLMSG_DONE:
				err := m.verdict()
				if err == nil && interrupted {
					err = errInterrupted
				}
				return all, err
			case m.Flags&unix.NLM_F_MULTI == 0 && flags&unix.NLM_F_ACK == 0:
				return append(all, m), nil
			}
			all = append(all, m)
		}
	}
}

// AppendMessage appends a message to others.
func AppendMessage(b []byte, kind, flags uint16, sequence uint32, body []byte) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.SizeofNlMsghdr+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, sequence)
	b = append(append(b, 0, 0, 0, 0), body...)
	return append(b, make([]byte, -len(body)&3)...)
}

// Send sends messages.
func (s *Socket) Send(messages []byte) error {
	for {
		err := unix.Sendto(s.fd, messages, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Verdict waits for the first answer to messages that were sent. It is about one that
// has failed, or else about one that asked for it by NLM_F_ACK.
func (s *Socket) Verdict() error {
	messages, err := s.receive(0)
	if err == nil && (len(messages) == 0 || messages[0].Type != unix.NLMSG_ERROR) {
		err = errors.New("a netlink answer is of another kind than asked for")
	}
	if err != nil {
		return err
	}
	return messages[0].verdict()
}

// receive returns the messages of a datagram, which are the caller's. flags are as in
// recvfrom(2).
func (s *Socket) receive(flags int) ([]Message, error) {
	buffer := buffers.Get().(*[maxDatagram]byte)
	defer buffers.Put(buffer)
	for {
		n, from, err := unix.Recvfrom(s.fd, buffer[:], flags|unix.MSG_TRUNC)
		sender, ok := from.(*unix.SockaddrNetlink)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, fmt.Errorf("receive from netlink: %w", err)
		case !ok || sender.Pid != 0: // of a process that wants to be taken for the kernel
		case n > len(buffer):
			return nil, fmt.Errorf("receive from netlink: an answer has %d bytes", n)
		default:
			return Split(slices.Clone(buffer[:n]))
		}
	}
}

// verdict is the error in struct nlmsgerr, or of the end of a dump, with the kernel's
// explanation (NLMSGERR_ATTR_MSG).
func (m Message) verdict() error {
	const attrMessage = 1
	if len(m.Data) < 4 {
		return nil
	}
	code := int32(binary.NativeEndian.Uint32(m.Data))
	if code == 0 {
		return nil
	}
	err := error(unix.Errno(-code))
	at := 4
	if m.Type != unix.NLMSG_DONE { // the request follows, of which there is the header alone if it is capped
		at += unix.SizeofNlMsghdr
		if m.Flags&unix.NLM_F_CAPPED == 0 && len(m.Data) >= 8 {
			at = 4 + (int(binary.NativeEndian.Uint32(m.Data[4:]))+3)&^3
		}
	}
	if m.Flags&unix.NLM_F_ACK_TLVS == 0 || at > len(m.Data) {
		return err
	}
	if why := Attributes(m.Data[at:]).Text(attrMessage); why != "" {
		return fmt.Errorf("%w: %s", err, why)
	}
	return err
}
