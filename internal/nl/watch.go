package nl

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// LinkWatch reports the changes of one link. A packet socket learns of its link
// going down, but not of one that is deleted while it is down, nor of a carrier. It
// keeps no thread waiting, and the kernel wakes it for its own link alone: the
// servers of a pod sleep while other links come and go.
type LinkWatch struct {
	conn *netlink.Conn
	gone bool
}

// WatchLink opens a LinkWatch in the network namespace of the calling thread. Close
// it.
func WatchLink(index int) (_ *LinkWatch, err error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("open route netlink socket: %w", err)
	}
	defer func() {
		if err != nil {
			_ = conn.Close()
		}
	}()
	program, err := bpf.Assemble(linkFilter(index))
	if err != nil {
		return nil, fmt.Errorf("assemble filter for link announcements: %w", err)
	}
	if err := conn.SetBPF(program); err != nil {
		return nil, fmt.Errorf("attach filter for link announcements: %w", err)
	}
	if err := conn.JoinGroup(unix.RTNLGRP_LINK); err != nil {
		return nil, fmt.Errorf("subscribe to link announcements: %w", err)
	}
	return &LinkWatch{conn: conn}, nil
}

// linkFilter passes RTM_NEWLINK and RTM_DELLINK of one link. A port that leaves its
// bridge is announced by the same types, but in the bridge's family. The loads are
// big-endian, the message (struct nlmsghdr, struct ifinfomsg) is in the host's order.
func linkFilter(index int) []bpf.Instruction {
	const typeAt, familyAt, indexAt = 4, unix.NLMSG_HDRLEN, unix.NLMSG_HDRLEN + 4
	var newLink, delLink [2]byte
	binary.NativeEndian.PutUint16(newLink[:], unix.RTM_NEWLINK)
	binary.NativeEndian.PutUint16(delLink[:], unix.RTM_DELLINK)
	of := binary.NativeEndian.AppendUint32(nil, uint32(index))
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: typeAt, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(binary.BigEndian.Uint16(delLink[:])), SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(binary.BigEndian.Uint16(newLink[:])), SkipFalse: 5},
		bpf.LoadAbsolute{Off: familyAt, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_UNSPEC, SkipFalse: 3},
		bpf.LoadAbsolute{Off: indexAt, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: binary.BigEndian.Uint32(of), SkipFalse: 1},
		bpf.RetConstant{Val: 1 << 18}, // the whole message
		bpf.RetConstant{Val: 0},
	}
}

// Next waits for the next change of the link and returns its flags (IFF_RUNNING, …);
// none if the kernel had no memory to say what has changed. The error is
// [unix.ENODEV] once the link is deleted, or has left the namespace.
func (w *LinkWatch) Next() (flags uint32, err error) {
	for !w.gone {
		var messages []netlink.Message
		err := AwaitEvent(w.conn)
		if err == nil {
			messages, err = w.conn.Receive()
		}
		switch {
		case errors.Is(err, unix.ENOBUFS):
			return 0, nil
		case err != nil:
			return 0, fmt.Errorf("receive link announcement: %w", err)
		}
		for _, m := range messages {
			if len(m.Data) < unix.SizeofIfInfomsg {
				continue
			}
			info := nl.DeserializeIfInfomsg(m.Data)
			if w.gone = m.Header.Type == unix.RTM_DELLINK; !w.gone {
				return info.Flags, nil
			}
		}
	}
	return 0, unix.ENODEV
}

// AwaitEvent blocks until there is something to receive, or a deadline is over. Unlike
// Receive of package netlink it has no buffer meanwhile: many wait for a long time.
func AwaitEvent(conn *netlink.Conn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	return await(raw)
}

// ReceiveEvent returns the messages of a datagram that is there; the error is
// [unix.EAGAIN] if none is.
func ReceiveEvent(conn *netlink.Conn) (messages []Message, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	closed := raw.Control(func(fd uintptr) {
		messages, err = (&Socket{fd: int(fd)}).receive(unix.MSG_DONTWAIT)
	})
	return messages, cmp.Or(closed, err)
}

// await blocks until there is something to receive.
func await(raw syscall.RawConn) (err error) {
	waitErr := raw.Read(func(fd uintptr) bool {
		var peeked [1]byte
		_, _, err = unix.Recvfrom(int(fd), peeked[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) // else it waits
	})
	return cmp.Or(waitErr, err)
}

// SetDeadline is until when Next waits; then its error is [os.ErrDeadlineExceeded].
// Zero: without end.
func (w *LinkWatch) SetDeadline(t time.Time) error { return w.conn.SetReadDeadline(t) }

// Close ends a Next that waits and frees the socket.
func (w *LinkWatch) Close() error { return w.conn.Close() }
