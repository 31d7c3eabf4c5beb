package prepare

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"

	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/internal/tun"
)

// kernel is what ops act on: the namespace of the thread that opened it.
type kernel struct {
	conn *nl.Conn
	log  *slog.Logger
}

// execute does ops in order. If one fails or ctx ends, it undoes those that are
// done, last first, so that the namespace is as before.
func (k *kernel) execute(ctx context.Context, ops []op) error {
	for i, o := range ops {
		err := context.Cause(ctx)
		if err == nil {
			k.log.Debug("change", "do", o.String())
			err = o.do(k)
		}
		if err == nil {
			continue
		}
		return errors.Join(fmt.Errorf("%s: %w", headline(o), explain(err)), k.undo(ops[:i]))
	}
	return nil
}

// undo undoes ops that are done, last first.
func (k *kernel) undo(ops []op) error {
	var errs []error
	for _, done := range slices.Backward(ops) {
		undo := done.inverse()
		if undo == nil {
			continue
		}
		k.log.Debug("undo", "do", undo.String())
		if err := undo.do(k); err != nil {
			errs = append(errs, fmt.Errorf("undo: %s: %w", headline(undo), err))
		}
	}
	return errors.Join(errs...)
}

// headline is an op's first line.
func headline(o op) string {
	s := o.String()
	for i, c := range s {
		if c == '\n' {
			return s[:i]
		}
	}
	return s
}

// advised is an error that says the way out itself.
type advised struct{ error }

func (a advised) Unwrap() error { return a.error }

// explain adds the way out to what the kernel says.
func explain(err error) error {
	_, isAdvised := errors.AsType[advised](err)
	if _, isDevice := errors.AsType[*tun.DeviceError](err); isAdvised || isDevice {
		return err
	}
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: this needs the capability NET_ADMIN in the pod's network namespace "+
			"(securityContext.capabilities.add: [NET_ADMIN])", err)
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT):
		return fmt.Errorf("%w: the node's kernel does not support this (CONFIG_BRIDGE, CONFIG_TUN, CONFIG_NF_TABLES_BRIDGE; without the port guard nftables is not needed)", err)
	}
	return err
}

func (s sequence) do(k *kernel) error {
	return k.execute(context.Background(), s)
}

func (o addTap) do(k *kernel) error {
	fd, err := tun.OpenDevice(0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(o.tap.Name)
	if err != nil {
		return err
	}
	flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_TUN_EXCL)
	if o.tap.Queues > 1 {
		flags |= unix.IFF_MULTI_QUEUE
	}
	req.SetUint16(flags)
	if o.index != 0 {
		if err := unix.IoctlSetPointerInt(fd, unix.TUNSETIFINDEX, o.index); err != nil {
			return fmt.Errorf("set index: %w", err)
		}
	}
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return err
	}
	// By its MAC it is known as ours (ours.go), from the moment on that it stays.
	if err := setHardwareAddr(fd, o.tap.MAC); err != nil {
		return fmt.Errorf("set MAC: %w", err)
	}
	if err := o.tap.keep(fd); err != nil {
		return err
	}
	if o.again {
		k.log.Warn("the tap was missing and is made anew: a VM that had it open must be started again, or its NIC plugged in again", "tap", o.tap.Name)
	}
	return nil
}

func (o addBridge) do(k *kernel) error {
	info := vnl.NewIfInfomsg(unix.AF_UNSPEC)
	info.Index, info.Flags, info.Change = int32(o.index), unix.IFF_NOARP, unix.IFF_NOARP
	linkInfo := vnl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	linkInfo.AddRtAttr(vnl.IFLA_INFO_KIND, []byte("bridge"))
	data := linkInfo.AddRtAttr(vnl.IFLA_INFO_DATA, nil)
	data.AddRtAttr(vnl.IFLA_BR_FORWARD_DELAY, vnl.Uint32Attr(0))
	data.AddRtAttr(vnl.IFLA_BR_STP_STATE, vnl.Uint32Attr(0))
	data.AddRtAttr(vnl.IFLA_BR_MCAST_SNOOPING, []byte{0})
	return k.conn.Request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, info,
		vnl.NewRtAttr(unix.IFLA_IFNAME, vnl.ZeroTerminated(o.name)),
		vnl.NewRtAttr(unix.IFLA_MTU, vnl.Uint32Attr(uint32(o.mtu))),
		vnl.NewRtAttr(unix.IFLA_ADDRESS, o.mac[:]),
		linkInfo)
}

func (o delLink) do(k *kernel) error {
	err := k.conn.Request(unix.RTM_DELLINK, 0, vnl.NewIfInfomsg(unix.AF_UNSPEC),
		vnl.NewRtAttr(unix.IFLA_IFNAME, vnl.ZeroTerminated(o.name)))
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// setLink changes attributes of the link with that name.
func (k *kernel) setLink(link string, attrs ...vnl.NetlinkRequestData) error {
	index, err := k.conn.Index(link)
	if err != nil {
		return err
	}
	info := vnl.NewIfInfomsg(unix.AF_UNSPEC)
	info.Index = int32(index)
	return k.conn.Request(unix.RTM_SETLINK, 0, append([]vnl.NetlinkRequestData{info}, attrs...)...)
}

func (o setUp) do(k *kernel) error {
	index, err := k.conn.Index(o.link)
	if err != nil {
		return err
	}
	info := vnl.NewIfInfomsg(unix.AF_UNSPEC)
	info.Index, info.Change = int32(index), unix.IFF_UP
	if o.up {
		info.Flags = unix.IFF_UP
	}
	return k.conn.Request(unix.RTM_NEWLINK, 0, info)
}

func (o rename) do(k *kernel) error {
	err := k.setLink(o.from, vnl.NewRtAttr(unix.IFLA_IFNAME, vnl.ZeroTerminated(o.to)))
	if errors.Is(err, unix.EBUSY) { // before Linux 6.2 it has to be down for that (dev_change_name, net/core/dev.c)
		return k.execute(context.Background(), []op{setUp{o.from, false}, renameDown{o}, setUp{o.to, true}})
	}
	return err
}

func (o renameDown) do(k *kernel) error {
	return k.setLink(o.from, vnl.NewRtAttr(unix.IFLA_IFNAME, vnl.ZeroTerminated(o.to)))
}

func (o setMAC) do(k *kernel) error {
	err := k.setLink(o.link, vnl.NewRtAttr(unix.IFLA_ADDRESS, o.to[:]))
	if errors.Is(err, unix.EBUSY) { // a device that has to be down for that (eth_prepare_mac_addr_change, net/ethernet/eth.c)
		return k.execute(context.Background(), []op{setUp{o.link, false}, setMACDown{o}, setUp{o.link, true}})
	}
	return err
}

func (o setMACDown) do(k *kernel) error {
	return k.setLink(o.link, vnl.NewRtAttr(unix.IFLA_ADDRESS, o.to[:]))
}

func (o setMTU) do(k *kernel) error {
	return k.setLink(o.link, vnl.NewRtAttr(unix.IFLA_MTU, vnl.Uint32Attr(uint32(o.to))))
}

func (o setAddrGenMode) do(k *kernel) error {
	spec := vnl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	spec.AddRtAttr(unix.AF_INET6, nil).AddRtAttr(unix.IFLA_INET6_ADDR_GEN_MODE, []byte{byte(o.to)})
	err := k.setLink(o.link, spec)
	if errors.Is(err, unix.EAFNOSUPPORT) { // a link without IPv6 makes no addresses
		return nil
	}
	return err
}

func (o setMaster) do(k *kernel) error {
	var master int
	if o.to != "" {
		var err error
		if master, err = k.conn.Index(o.to); err != nil {
			return err
		}
	}
	err := k.setLink(o.link, vnl.NewRtAttr(unix.IFLA_MASTER, vnl.Uint32Attr(uint32(master))))
	if errors.Is(err, unix.EBUSY) { // netdev_rx_handler_register, net/core/dev.c
		return advised{fmt.Errorf("%w: something else gets its frames already, as a macvlan or ipvlan on it does, perhaps in another network namespace: delete that", err)}
	}
	return err
}

func (o setLearning) do(k *kernel) error {
	var on byte
	if o.on {
		on = 1
	}
	info := vnl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(vnl.IFLA_INFO_SLAVE_KIND, []byte("bridge"))
	info.AddRtAttr(vnl.IFLA_INFO_SLAVE_DATA, nil).AddRtAttr(vnl.IFLA_BRPORT_LEARNING, []byte{on})
	index, err := k.conn.Index(o.port)
	if err != nil {
		return err
	}
	msg := vnl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	return k.conn.Request(unix.RTM_NEWLINK, 0, msg, info)
}

func (o setKnob) do(*kernel) error {
	return os.WriteFile(knobPath(o.name), []byte(o.to), 0)
}

// raw is a message that was built before.
type raw []byte

func (r raw) Len() int          { return len(r) }
func (r raw) Serialize() []byte { return r }

func (o change) do(k *kernel) error {
	add := map[string]int{"addr": unix.RTM_NEWADDR, "route": unix.RTM_NEWROUTE, "neigh": unix.RTM_NEWNEIGH}
	del := map[string]int{"addr": unix.RTM_DELADDR, "route": unix.RTM_DELROUTE, "neigh": unix.RTM_DELNEIGH}
	if o.add {
		flags := unix.NLM_F_CREATE | unix.NLM_F_EXCL
		switch {
		case o.first: // before its rivals (fib_table_insert, net/ipv4/fib_trie.c), also if the kernel has just added it behind them
			if err := o.inverse().do(k); err != nil {
				return err
			}
			flags = unix.NLM_F_CREATE
		case o.kind == "route": // beside one to the same destination, as it was
			flags = unix.NLM_F_CREATE | unix.NLM_F_APPEND
		}
		return ignore(k.conn.Request(add[o.kind], flags, raw(o.message)), unix.EEXIST)
	}
	// What the kernel has already taken away along with something else.
	return ignore(k.conn.Request(del[o.kind], 0, raw(o.message)), unix.ESRCH, unix.EADDRNOTAVAIL, unix.ENOENT)
}

func (o othersRoute) do(k *kernel) error {
	if err := o.change.do(k); err != nil {
		k.log.Warn("a route that the pod's interface shares with others can't be put back", "route", o.text, "error", err)
	}
	return nil
}

func (o placeAddress) do(k *kernel) error {
	index, err := k.conn.Index(o.link)
	if err != nil {
		return err
	}
	addr := o.addr.Prefix.Addr()
	family := byte(unix.AF_INET)
	if addr.Is6() {
		family = unix.AF_INET6
	}
	// struct ifaddrmsg, linux/if_addr.h
	m := []byte{family, byte(o.addr.Prefix.Bits()), 0, byte(o.addr.Scope)}
	m = binary.NativeEndian.AppendUint32(m, uint32(index))
	m = appendAttr(m, unix.IFA_LOCAL, addr.AsSlice())
	m = appendAttr(m, unix.IFA_ADDRESS, addr.AsSlice())
	m = appendAttr(m, unix.IFA_FLAGS, binary.NativeEndian.AppendUint32(nil, unix.IFA_F_PERMANENT|unix.IFA_F_NOPREFIXROUTE))
	if o.add {
		return ignore(k.conn.Request(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, raw(m)), unix.EEXIST)
	}
	return ignore(k.conn.Request(unix.RTM_DELADDR, 0, raw(m)), unix.EADDRNOTAVAIL)
}

// ignore turns errors that mean that nothing is left to do into success.
func ignore(err error, done ...error) error {
	for _, d := range done {
		if errors.Is(err, d) {
			return nil
		}
	}
	return err
}
