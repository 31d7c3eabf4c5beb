// Package nl reads the network of the calling thread's namespace by netlink.
//
// A dump that the kernel marks as interrupted (something changed while it was
// walked) is read again, and a system call that a signal cut short is
// repeated, so that what the rest of the program sees is one consistent
// picture. Attributes that nobody here interprets are not lost: addresses,
// routes and neighbours carry the kernel's own message.
package nl

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The package nl finds the byte order out when it is first needed, without a lock:
// now, before goroutines can do so at once.
var _ = nl.NativeEndian()

// Conn is a route netlink socket. It stays in the network namespace that the
// calling thread was in when it was opened. It is not safe for concurrent use.
type Conn struct {
	socket *Socket
}

// Open opens a Conn in the network namespace of the calling thread. Close it.
func Open() (*Conn, error) {
	s, err := OpenSocket(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open route netlink socket: %w", err)
	}
	return &Conn{socket: s}, nil
}

// Close closes the socket.
func (c *Conn) Close() { _ = c.socket.Close() }

// Request sends one message of type msgType (RTM_NEWLINK, …) with the flags
// beyond NLM_F_REQUEST|NLM_F_ACK and returns the kernel's verdict as an errno,
// wrapped in the kernel's explanation if it gave one.
func (c *Conn) Request(msgType, flags int, data ...nl.NetlinkRequestData) error {
	_, err := c.socket.Execute(uint16(msgType), uint16(unix.NLM_F_ACK|flags), serialize(data))
	return err
}

// dump returns the payloads of all messages of type resType.
func (c *Conn) dump(msgType int, resType uint16, data ...nl.NetlinkRequestData) ([][]byte, error) {
	messages, err := c.socket.Dump(uint16(msgType), serialize(data))
	return payloads(messages, resType), err
}

func serialize(data []nl.NetlinkRequestData) (b []byte) {
	for _, d := range data {
		b = append(b, d.Serialize()...)
		b = append(b, make([]byte, -len(b)&3)...)
	}
	return b
}

// payloads are those of the messages of a type.
func payloads(messages []Message, of uint16) [][]byte {
	all := make([][]byte, 0, len(messages))
	for _, m := range messages {
		if m.Type == of {
			all = append(all, m.Data)
		}
	}
	return all
}

// maxDiscarded is more than fits into the buffer of a socket at any time.
const maxDiscarded = 4096

// Events tells that something in the network namespace changed.
type Events struct {
	// SkipLearned is whether what the kernel learns of neighbors by itself is no change
	// to wait for.
	SkipLearned bool

	file *os.File
	raw  syscall.RawConn
}

// Subscribe opens Events for the given multicast groups (RTNLGRP_LINK, …) in
// the network namespace of the calling thread. Close it.
func Subscribe(groups ...uint) (*Events, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("subscribe to route netlink: %w", os.NewSyscallError("socket", err))
	}
	e := &Events{file: os.NewFile(uintptr(fd), "netlink")}
	err = os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	for _, group := range groups {
		if err == nil {
			err = os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, int(group)))
		}
	}
	if err == nil {
		e.raw, err = e.file.SyscallConn()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("subscribe to route netlink: %w", err), e.file.Close())
	}
	return e, nil
}

// Wait blocks until something changed since the last Wait, or ctx ends. Which
// change it was does not matter: the caller reads the kernel anew. After ctx
// has ended the Events can only be closed.
func (e *Events) Wait(ctx context.Context) error {
	stop := context.AfterFunc(ctx, e.Close)
	defer stop()
	for {
		event, err := e.receive()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil && e.SkipLearned && !isChange(event):
		case err == nil, errors.Is(err, unix.ENOBUFS): // ENOBUFS: events were lost, so there were some
			return nil
		default:
			return fmt.Errorf("receive route netlink event: %w", err)
		}
	}
}

// eventSize is more than any event has that may be skipped. What is longer is cut.
const eventSize = 4096

// receive waits for an event and reads it. There is no buffer until there is an event.
func (e *Events) receive() (event []byte, err error) {
	if err := await(e.raw); err != nil {
		return nil, err
	}
	closed := e.raw.Control(func(fd uintptr) {
		var n int
		event = make([]byte, eventSize)
		n, _, err = unix.Recvfrom(int(fd), event, 0)
		event = event[:max(n, 0)]
	})
	return event, cmp.Or(closed, err)
}

// learned are the states of a neighbor (rtnetlink(7)) that is resolved, or is to be.
const learned = unix.NUD_INCOMPLETE | unix.NUD_REACHABLE | unix.NUD_STALE | unix.NUD_DELAY | unix.NUD_PROBE

// isChange tells of an event whether somebody made it, or may have.
func isChange(event []byte) bool {
	messages, err := syscall.ParseNetlinkMessage(event)
	return err != nil || slices.ContainsFunc(messages, func(m syscall.NetlinkMessage) bool {
		if m.Header.Type != unix.RTM_NEWNEIGH && m.Header.Type != unix.RTM_DELNEIGH {
			return true
		}
		const stateAt = 8 // struct ndmsg
		return len(m.Data) < unix.SizeofNdMsg || binary.NativeEndian.Uint16(m.Data[stateAt:])&learned == 0
	})
}

// Discard drops the events that are pending: the next Wait returns on later ones only.
func (e *Events) Discard() (err error) {
	var b [1]byte // the kernel drops what does not fit
	closed := e.raw.Control(func(fd uintptr) {
		// Bounded: somebody may make changes faster than they are read.
		for range maxDiscarded {
			_, _, err = unix.Recvfrom(int(fd), b[:], 0)
			if err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENOBUFS) {
				return
			}
		}
	})
	if err = cmp.Or(closed, err); err == nil || errors.Is(err, unix.EAGAIN) {
		return nil
	}
	return fmt.Errorf("receive route netlink event: %w", err)
}

// Close closes the subscription.
func (e *Events) Close() { _ = e.file.Close() }
