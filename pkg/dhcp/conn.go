package dhcp

import (
	"fmt"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
)

// ErrGone means that the interface a Conn was opened on does not exist any
// more, or was moved to another network namespace.
var ErrGone = packet.ErrGone

// Conn is a packet socket on one Ethernet interface that receives what was sent
// to the DHCP server port, and nothing else. It works where the interface is
// down, has no carrier, or is a bridge's port, and needs no address there.
type Conn struct {
	link *packet.Conn
}

// Listen opens a Conn on the interface in the network namespace of the calling
// thread, which needs CAP_NET_RAW there. The Conn can be used by any goroutine
// then, by one Server at a time. Close it.
func Listen(name string) (*Conn, error) {
	link, err := packet.Listen(name, filter)
	if err != nil {
		return nil, fmt.Errorf("listen for DHCP on %s: %w", name, err)
	}
	return &Conn{link}, nil
}

// Close ends a Serve that is under way and frees the sockets.
func (c *Conn) Close() error { return c.link.Close() }
