package podtest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Frames stops the capture as [Capture.Stop] does and returns the Ethernet
// frames that it saw, byte by byte.
func (c *Capture) Frames() [][]byte {
	c.t.Helper()
	c.Stop()
	b, err := os.ReadFile(c.PCAP)
	if err != nil {
		c.t.Fatal(err)
	}
	frames, err := parsePCAP(b)
	if err != nil {
		c.t.Fatalf("read %s: %v", c.PCAP, err)
	}
	return frames
}

// parsePCAP takes the packets out of a capture file of this machine's byte
// order (pcap-savefile(5)).
func parsePCAP(b []byte) ([][]byte, error) {
	const fileHeader, packetHeader = 24, 16
	if len(b) < fileHeader {
		return nil, errors.New("no capture file")
	}
	var frames [][]byte
	for b = b[fileHeader:]; len(b) > 0; {
		if len(b) < packetHeader {
			return nil, errors.New("packet header is cut off")
		}
		captured := int(binary.NativeEndian.Uint32(b[8:]))
		if b = b[packetHeader:]; len(b) < captured {
			return nil, errors.New("packet is cut off")
		}
		frames = append(frames, b[:captured])
		b = b[captured:]
	}
	return frames, nil
}

// SendFrames sends whole Ethernet frames out of an interface of the namespace,
// as they are.
func SendFrames(ns *NS, iface string, frames ...[]byte) error {
	return sendFrames(ns, iface, false, frames)
}

// SendAsking sends a whole Ethernet frame with a request out of an interface of
// the namespace.
func SendAsking(ns *NS, iface string, r Request, frame []byte) error {
	const header = 10 // sizeof(struct virtio_net_hdr)
	return sendFrames(ns, iface, true, [][]byte{append(r.header(header), frame...)})
}

func sendFrames(ns *NS, iface string, asking bool, frames [][]byte) error {
	return ns.Do(func() error {
		link, err := net.InterfaceByName(iface)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		defer unix.Close(fd)
		if asking {
			if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
				return os.NewSyscallError("setsockopt PACKET_VNET_HDR", err)
			}
		}
		for _, frame := range frames {
			if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Index}); err != nil {
				return fmt.Errorf("send frame on %s: %w", iface, err)
			}
		}
		return nil
	})
}
