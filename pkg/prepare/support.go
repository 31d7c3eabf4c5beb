package prepare

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/google/nftables"
	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/internal/tun"
)

// CheckSupport finds out whether the kernel and the container have what the
// plans need, and changes nothing. What the kernel tells only those who have
// NET_ADMIN is left out without it. It takes some milliseconds where a plan has
// tables.
func CheckSupport(plans ...Plan) error {
	conn, err := nl.Open()
	if err != nil {
		return err
	}
	defer conn.Close()
	var todo []op
	for _, p := range plans {
		ops, err := p.applyOps(p.original())
		if err != nil {
			return err
		}
		todo = append(todo, ops...)
	}
	if err := devicesSupported(conn, todo); err != nil {
		return err
	}
	asked := map[family]bool{}
	for _, o := range todo {
		t, ok := o.(addTable)
		if !ok || asked[t.table.family] {
			continue
		}
		asked[t.table.family] = true
		if err := familySupported(families[t.table.family]); err != nil {
			return fmt.Errorf("%s: %w", headline(t), withoutTables(t.table, err))
		}
	}
	return nil
}

// devicesSupported is quick: a tap and a bridge can be made if ops make one.
func devicesSupported(conn *nl.Conn, ops []op) error {
	var tap, bridge bool
	for _, o := range ops {
		switch o.(type) {
		case addTap:
			tap = true
		case addBridge:
			bridge = true
		}
	}
	if tap {
		if err := tun.Supported(); err != nil {
			return err
		}
	}
	if bridge {
		return kindSupported(conn, "bridge")
	}
	return nil
}

// kindSupported asks for a link of the kind that the kernel can't make, because
// its address is a group's: a kernel that has the kind says so (br_validate,
// net/bridge/br_netlink.c), one that has not says that.
func kindSupported(conn *nl.Conn, kind string) error {
	info := vnl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(vnl.IFLA_INFO_KIND, []byte(kind))
	err := conn.Request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, vnl.NewIfInfomsg(unix.AF_UNSPEC),
		vnl.NewRtAttr(unix.IFLA_ADDRESS, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}), info)
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return advised{fmt.Errorf("make a %s: %w: the node's kernel has none (CONFIG_BRIDGE): load the module %s on the node", kind, err, kind)}
}

// familySupported asks for a table without a name, which no kernel makes: one
// that has the family says that the name is missing (nf_tables_newtable,
// net/netfilter/nf_tables_api.c).
func familySupported(f nftables.TableFamily) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("open nftables socket: %w", err)
	}
	defer unix.Close(fd)
	const newTable = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWTABLE
	// Without an end the kernel takes back all of a batch, were there anything.
	batch := append(
		nfMessage(unix.NFNL_MSG_BATCH_BEGIN, unix.NLM_F_REQUEST, 0, unix.NFNL_SUBSYS_NFTABLES),
		nfMessage(newTable, unix.NLM_F_REQUEST|unix.NLM_F_ACK|unix.NLM_F_CREATE, byte(f), 0)...)
	if err := unix.Sendto(fd, batch, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("ask nftables: %w", err)
	}
	answer := make([]byte, os.Getpagesize())
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return fmt.Errorf("ask nftables: %w", err)
	}
	if n < unix.SizeofNlMsghdr+4 || binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR {
		return errors.New("ask nftables: no answer")
	}
	switch errno := unix.Errno(-int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:]))); errno {
	case unix.EOPNOTSUPP, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT:
		return errno
	}
	return nil
}

// nfMessage is a message of nothing but its headers (struct nlmsghdr,
// linux/netlink.h; struct nfgenmsg, linux/netfilter/nfnetlink.h).
func nfMessage(kind, flags uint16, family byte, resource uint16) []byte {
	const length = unix.SizeofNlMsghdr + 4
	m := binary.NativeEndian.AppendUint32(nil, length)
	m = binary.NativeEndian.AppendUint16(m, kind)
	m = binary.NativeEndian.AppendUint16(m, flags)
	m = append(m, make([]byte, 8)...) // sequence, port
	return binary.BigEndian.AppendUint16(append(m, family, unix.NFNETLINK_V0), resource)
}

// withoutTables adds the way out where the kernel has no tables of a family.
func withoutTables(t table, err error) error {
	remedy := "the node's kernel has no nftables for bridges (CONFIG_NF_TABLES_BRIDGE), which the port guard is made of: " +
		"load the module nf_tables on the node, or do without the port guard"
	if t.family == netdevFamily {
		remedy = "the node's kernel has no nftables for devices (CONFIG_NF_TABLES_NETDEV), by which the VM finds the gateway of this network: " +
			"load the module nf_tables on the node"
	}
	return advised{fmt.Errorf("%w: %s", err, remedy)}
}
