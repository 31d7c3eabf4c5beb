package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// link finds the link of that name, for the library's writes, which go by its index.
func (k *Kernel) link(name string) (netlink.Link, error) {
	index, err := k.Conn.Index(name)
	if err != nil {
		return nil, err
	}
	return &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: index}}, nil
}

// Change changes the link of that name by the library, whose functions go by its
// index.
func (k *Kernel) Change(name string, do func(*netlink.Handle, netlink.Link) error) error {
	return k.change(name, func(l netlink.Link) error { return do(k.links, l) })
}

// change changes the link of that name.
func (k *Kernel) change(name string, do func(netlink.Link) error) error {
	l, err := k.link(name)
	if err != nil {
		return err
	}
	return do(l)
}

// onOff is ip(8)'s and bridge(8)'s word.
func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
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
	return Ignore(k.change(o.Name, k.links.LinkDel), unix.ENODEV)
}

// SetUp sets a link up or down.
type SetUp struct {
	Link string
	Up   bool
}

func (o SetUp) String() string {
	if o.Up {
		return "ip link set " + o.Link + " up"
	}
	return "ip link set " + o.Link + " down"
}

// Inverse sets it down or up.
func (o SetUp) Inverse() Op { return SetUp{o.Link, !o.Up} }

// Do sets it.
func (o SetUp) Do(k *Kernel) error {
	if o.Up {
		return k.change(o.Link, k.links.LinkSetUp)
	}
	return k.change(o.Link, k.links.LinkSetDown)
}

// whileDown does what only a link that is down takes: it sets it down for that.
func (k *Kernel) whileDown(before, after string, o Op) error {
	return k.Execute(context.Background(), []Op{SetUp{before, false}, down{o}, SetUp{after, true}})
}

// down is an op whose link is down.
type down struct{ Op }

// Inverse is one, too.
func (o down) Inverse() Op { return down{o.Op.Inverse()} }

// Do does it without the way around.
func (o down) Do(k *Kernel) error { return o.Op.(interface{ set(*Kernel) error }).set(k) }

// Rename gives a link another name.
type Rename struct{ From, To string }

func (o Rename) String() string { return "ip link set " + o.From + " name " + o.To }

// Inverse gives it its name back.
func (o Rename) Inverse() Op { return Rename{o.To, o.From} }

// Do renames it. Before Linux 6.2 a link has to be down for that (dev_change_name,
// net/core/dev.c).
func (o Rename) Do(k *Kernel) error {
	err := o.set(k)
	if errors.Is(err, unix.EBUSY) {
		return k.whileDown(o.From, o.To, o)
	}
	return err
}

func (o Rename) set(k *Kernel) error {
	return k.change(o.From, func(l netlink.Link) error { return k.links.LinkSetName(l, o.To) })
}

// SetMAC changes a link's MAC.
type SetMAC struct {
	Link     string
	From, To mac.Addr
}

func (o SetMAC) String() string { return "ip link set " + o.Link + " address " + o.To.String() }

// Inverse sets the MAC that it had.
func (o SetMAC) Inverse() Op { return SetMAC{o.Link, o.To, o.From} }

// Do sets it. Some devices have to be down for that (eth_prepare_mac_addr_change,
// net/ethernet/eth.c).
func (o SetMAC) Do(k *Kernel) error {
	err := o.set(k)
	if errors.Is(err, unix.EBUSY) {
		return k.whileDown(o.Link, o.Link, o)
	}
	return err
}

func (o SetMAC) set(k *Kernel) error {
	return k.change(o.Link, func(l netlink.Link) error { return k.links.LinkSetHardwareAddr(l, o.To[:]) })
}

// SetMTU changes a link's MTU.
type SetMTU struct {
	Link     string
	From, To int
}

func (o SetMTU) String() string { return fmt.Sprintf("ip link set %s mtu %d", o.Link, o.To) }

// Inverse sets the MTU that it had.
func (o SetMTU) Inverse() Op { return SetMTU{o.Link, o.To, o.From} }

// Do sets it.
func (o SetMTU) Do(k *Kernel) error {
	return k.change(o.Link, func(l netlink.Link) error { return k.links.LinkSetMTU(l, o.To) })
}

// SetARP says whether a link resolves neighbors, and answers those who do.
type SetARP struct {
	Link string
	On   bool
}

func (o SetARP) String() string { return "ip link set " + o.Link + " arp " + onOff(o.On) }

// Inverse turns it back.
func (o SetARP) Inverse() Op { return SetARP{o.Link, !o.On} }

// Do sets it.
func (o SetARP) Do(k *Kernel) error {
	if o.On {
		return k.change(o.Link, k.links.LinkSetARPOn)
	}
	return k.change(o.Link, k.links.LinkSetARPOff)
}

// SetAddrGenMode changes how the kernel makes IPv6 link-local addresses
// (IN6_ADDR_GEN_MODE_EUI64, …, linux/if_link.h).
type SetAddrGenMode struct {
	Link     string
	From, To int
}

// addrGenModes are ip(8)'s words.
var addrGenModes = []string{"eui64", "none", "stable_secret", "random"}

// AddrGenModeNone is IN6_ADDR_GEN_MODE_NONE.
const AddrGenModeNone = 1

func (o SetAddrGenMode) String() string {
	return "ip link set " + o.Link + " addrgenmode " + addrGenModes[o.To]
}

// Inverse sets the mode that it had.
func (o SetAddrGenMode) Inverse() Op { return SetAddrGenMode{o.Link, o.To, o.From} }

// Do sets it. A link without IPv6 makes no addresses.
func (o SetAddrGenMode) Do(k *Kernel) error {
	err := k.change(o.Link, func(l netlink.Link) error { return k.links.LinkSetIP6AddrGenMode(l, o.To) })
	return Ignore(err, unix.EAFNOSUPPORT)
}

// SetMaster makes a link another's port; to "" takes it out.
type SetMaster struct {
	Link     string
	From, To string
}

func (o SetMaster) String() string {
	if o.To == "" {
		return "ip link set " + o.Link + " nomaster"
	}
	return "ip link set " + o.Link + " master " + o.To
}

// Inverse makes it what it was.
func (o SetMaster) Inverse() Op { return SetMaster{o.Link, o.To, o.From} }

// Do sets it.
func (o SetMaster) Do(k *Kernel) error {
	master := 0
	if o.To != "" {
		var err error
		if master, err = k.Conn.Index(o.To); err != nil {
			return err
		}
	}
	err := k.change(o.Link, func(l netlink.Link) error { return k.links.LinkSetMasterByIndex(l, master) })
	if errors.Is(err, unix.EBUSY) { // netdev_rx_handler_register, net/core/dev.c
		return Advised{fmt.Errorf("%w: something else gets its frames already, as a macvlan or ipvlan on it does, perhaps in another network namespace: delete that", err)}
	}
	return err
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
