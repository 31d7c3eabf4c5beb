package packet

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
)

// Groups has an interface receive what is sent to any multicast group.
type Groups struct{ file *os.File }

// OpenGroups opens Groups on the interface in the network namespace of the calling thread,
// which needs CAP_NET_RAW there. No flag of the interface differs, and the kernel ends it
// with the process, and when the interface leaves the namespace. Close it.
func OpenGroups(name string) (*Groups, error) {
	// Without a protocol the socket itself receives nothing.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	g := &Groups{os.NewFile(uintptr(fd), "groups:"+name)}
	if err := join(fd, name); err != nil {
		return nil, errors.Join(fmt.Errorf("have %s receive all multicast groups: %w", name, err), g.Close())
	}
	return g, nil
}

func join(fd int, name string) error {
	links, err := nl.Open()
	if err != nil {
		return err
	}
	defer links.Close()
	index, err := links.Index(name)
	if err != nil {
		return err
	}
	return unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
		&unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_ALLMULTI})
}

// Close has it receive what it did before.
func (g *Groups) Close() error { return g.file.Close() }
