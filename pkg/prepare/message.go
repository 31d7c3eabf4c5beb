package prepare

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

func addressChange(add bool, link string, a discover.Address) change {
	return change{"addr", add, a.Prefix.String() + " dev " + link, a.Message}
}

func neighborChange(add bool, link string, n discover.Neighbor) change {
	return change{"neigh", add, fmt.Sprintf("%s lladdr %s dev %s nud permanent", n.Address, n.MAC, link), n.Message}
}

func routeChange(add bool, link string, r discover.Route) change {
	return change{"route", add, routeText(link, r), routeRequest(r.Message)}
}

// routeText writes a route as ip-route(8) takes it.
func routeText(link string, r discover.Route) string {
	dst := r.Destination.String()
	if r.Destination.Bits() == 0 {
		dst = "default"
	}
	words := []string{dst}
	if r.Gateway.IsValid() {
		words = append(words, "via", r.Gateway.String())
	}
	words = append(words, "dev", link)
	if r.Table != unix.RT_TABLE_MAIN {
		words = append(words, fmt.Sprintf("table %d", r.Table))
	}
	if r.Scope != unix.RT_SCOPE_UNIVERSE {
		words = append(words, "scope", r.Scope.String())
	}
	if r.Source.IsValid() {
		words = append(words, "src", r.Source.String())
	}
	if r.Metric != 0 {
		words = append(words, fmt.Sprintf("metric %d", r.Metric))
	}
	if r.MTU != 0 {
		words = append(words, fmt.Sprintf("mtu %d", r.MTU))
	}
	if r.OnLink {
		words = append(words, "onlink")
	}
	return strings.Join(words, " ")
}

// routeRequest makes of the rtmsg that the kernel sent one that it accepts:
// without the flags that describe a route's condition (fib_create_info,
// net/ipv4/fib_semantics.c, refuses them).
func routeRequest(message []byte) []byte {
	if len(message) < unix.SizeofRtMsg {
		return message // the kernel refuses it
	}
	m := slices.Clone(message)
	flags := binary.NativeEndian.Uint32(m[8:12])
	binary.NativeEndian.PutUint32(m[8:12], flags&unix.RTNH_F_ONLINK)
	return m
}

// appendAttr appends a netlink attribute (struct nlattr, linux/netlink.h).
func appendAttr(m []byte, typ uint16, value []byte) []byte {
	m = binary.NativeEndian.AppendUint16(m, uint16(4+len(value)))
	m = binary.NativeEndian.AppendUint16(m, typ)
	m = append(m, value...)
	for len(m)%4 != 0 {
		m = append(m, 0)
	}
	return m
}
