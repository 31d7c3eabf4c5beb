package engine

import (
	"errors"
	"fmt"

	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// Property is something that can be changed of a link.
type Property[T comparable] struct {
	Text  string         // the change in the words of ip(8) or its like, of the link and the value
	Words func(T) string // the value in these; nil: as fmt prints it
	Do    func(*nl.Conn, nl.Ref, T) error
	down  bool // some links take it only while they are down
}

// Set is the change from what is to what is wanted; none if these are the same.
func (p *Property[T]) Set(link string, is, want T) []Op {
	if is == want {
		return nil
	}
	return []Op{set[T]{p, link, is, want}}
}

// set changes a property of a link.
type set[T comparable] struct {
	property *Property[T]
	link     string
	from, to T
}

func (o set[T]) String() string {
	if o.property.Words == nil {
		return fmt.Sprintf(o.property.Text, o.link, fmt.Sprint(o.to))
	}
	return fmt.Sprintf(o.property.Text, o.link, o.property.Words(o.to))
}

// Inverse sets what was.
func (o set[T]) Inverse() Op { return set[T]{o.property, o.link, o.to, o.from} }

// Do sets it.
func (o set[T]) Do(k *Kernel) error {
	link := nl.Ref{Name: o.link}
	do := func(v T) func() error { return func() error { return o.property.Do(k.Conn, link, v) } }
	if o.property.down {
		return k.whileDown(link, do(o.to), do(o.from))
	}
	return do(o.to)()
}

// whileDown does what some links take only while they are down: it sets such a one
// down for that.
func (k *Kernel) whileDown(l nl.Ref, do, undo func() error) error {
	err := do()
	if !errors.Is(err, unix.EBUSY) {
		return err
	}
	if err := setUp(k.Conn, l, false); err != nil {
		return err
	}
	if err := do(); err != nil {
		return errors.Join(err, setUp(k.Conn, l, true))
	}
	if err := setUp(k.Conn, l, true); err != nil {
		return errors.Join(err, undo(), setUp(k.Conn, l, true))
	}
	return nil
}

func setUp(c *nl.Conn, l nl.Ref, up bool) error {
	if up {
		return c.SetFlags(l, unix.IFF_UP, unix.IFF_UP)
	}
	return c.SetFlags(l, 0, unix.IFF_UP)
}

// Either is the words of a property that is, or is not.
func Either(is, isNot string) func(bool) string {
	return func(yes bool) string {
		if yes {
			return is
		}
		return isNot
	}
}

// AddrGenModeNone is IN6_ADDR_GEN_MODE_NONE (linux/if_link.h).
const AddrGenModeNone = 1

// What can be changed of any link.
var (
	Up = &Property[bool]{
		Text: "ip link set %s %s", Words: Either("up", "down"),
		Do: setUp,
	}
	MTU = &Property[int]{
		Text: "ip link set %s mtu %s",
		Do: func(c *nl.Conn, l nl.Ref, mtu int) error {
			return c.Set(l, vnl.NewRtAttr(unix.IFLA_MTU, vnl.Uint32Attr(uint32(mtu))))
		},
	}
	// MAC: see eth_prepare_mac_addr_change, net/ethernet/eth.c.
	MAC = &Property[mac.Addr]{
		Text: "ip link set %s address %s", down: true,
		Do: func(c *nl.Conn, l nl.Ref, a mac.Addr) error { return c.Set(l, vnl.NewRtAttr(unix.IFLA_ADDRESS, a[:])) },
	}
	// ARP is whether a link resolves neighbors, and answers those who do.
	ARP = &Property[bool]{
		Text: "ip link set %s arp %s", Words: Either("on", "off"),
		Do: func(c *nl.Conn, l nl.Ref, on bool) error {
			if on {
				return c.SetFlags(l, 0, unix.IFF_NOARP)
			}
			return c.SetFlags(l, unix.IFF_NOARP, unix.IFF_NOARP)
		},
	}
	// AddrGenMode is how the kernel makes IPv6 link-local addresses
	// (IN6_ADDR_GEN_MODE_EUI64, …, linux/if_link.h). A link without IPv6 makes none.
	AddrGenMode = &Property[int]{
		Text:  "ip link set %s addrgenmode %s",
		Words: func(mode int) string { return []string{"eui64", "none", "stable_secret", "random"}[mode] },
		Do: func(c *nl.Conn, l nl.Ref, mode int) error {
			spec := vnl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
			spec.AddRtAttr(unix.AF_INET6, nil).AddRtAttr(unix.IFLA_INET6_ADDR_GEN_MODE, []byte{byte(mode)})
			return Ignore(c.Set(l, spec), unix.EAFNOSUPPORT)
		},
	}
	// Master is the name of what a link is a port of; empty: of nothing.
	Master = &Property[string]{
		Text: "ip link set %s %s",
		Words: func(master string) string {
			if master == "" {
				return "nomaster"
			}
			return "master " + master
		},
		Do: setMaster,
	}
)

func setMaster(c *nl.Conn, l nl.Ref, master string) (err error) {
	index := 0
	if master != "" {
		if index, err = c.Index(master); err != nil {
			return err
		}
	}
	err = c.Set(l, vnl.NewRtAttr(unix.IFLA_MASTER, vnl.Uint32Attr(uint32(index))))
	if errors.Is(err, unix.EBUSY) { // netdev_rx_handler_register, net/core/dev.c
		return Advised{fmt.Errorf("%w: another link on it (macvlan, ipvlan) receives its frames already, perhaps in another network namespace: delete that link", err)}
	}
	return err
}

// Rename gives a link another name, if that is another.
func Rename(from, to string) []Op {
	if from == to {
		return nil
	}
	return []Op{rename{from, to}}
}

type rename struct{ from, to string }

func (o rename) String() string { return "ip link set " + o.from + " name " + o.to }

// Inverse gives it its name back.
func (o rename) Inverse() Op { return rename{o.to, o.from} }

// Do renames it. Before Linux 6.2 a link has to be down for that (dev_change_name,
// net/core/dev.c).
func (o rename) Do(k *Kernel) error {
	index, err := k.Conn.Index(o.from)
	if err != nil {
		return err
	}
	link := nl.Ref{Index: index}
	name := func(n string) func() error {
		return func() error { return k.Conn.Set(link, vnl.NewRtAttr(unix.IFLA_IFNAME, vnl.ZeroTerminated(n))) }
	}
	return k.whileDown(link, name(o.to), name(o.from))
}

// DelLink deletes a device; Rebuild makes it again as it was.
type DelLink struct {
	Name    string
	Rebuild Sequence
}

func (o DelLink) String() string { return "ip link delete " + o.Name }

// Inverse makes the device again.
func (o DelLink) Inverse() Op { return o.Rebuild }

// Do deletes it. One that is gone is deleted.
func (o DelLink) Do(k *Kernel) error {
	return Ignore(k.Conn.Delete(nl.Ref{Name: o.Name}), unix.ENODEV)
}

// KindSupported finds out whether the kernel can make links of a kind, without making
// one: it asks for one with a group's address, which a kernel that has the kind
// refuses in other words (rtnl_newlink, net/core/rtnetlink.c).
func (k *Kernel) KindSupported(kind, config string) error {
	info := vnl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(vnl.IFLA_INFO_KIND, []byte(kind))
	err := k.Conn.Request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, vnl.NewIfInfomsg(unix.AF_UNSPEC),
		vnl.NewRtAttr(unix.IFLA_ADDRESS, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}), info)
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return Advised{fmt.Errorf("make a %s: %w: the node's kernel has none (%s): load the module %s on the node", kind, err, config, kind)}
}
