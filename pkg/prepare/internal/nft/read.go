package nft

import (
	"errors"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Read returns our tables in the network namespace of the calling thread; none where
// the kernel can have none. Without the capability NET_ADMIN the error wraps
// [unix.EPERM].
func Read() (map[ID]Present, error) {
	all := tables{}
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if Unsupported(err) {
		return all, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open nftables socket: %w", err)
	}
	defer conn.Close()
	for _, kind := range []int{unix.NFT_MSG_GETTABLE, unix.NFT_MSG_GETCHAIN, unix.NFT_MSG_GETRULE} {
		messages, err := dump(conn, kind, Family{}, "")
		// A kernel without nftables says to a question what has other causes too
		// (nfnetlink_rcv_msg, net/netfilter/nfnetlink.c).
		if Unsupported(err) || errors.Is(err, unix.EINVAL) && Unsupported(Supported(Netdev)) {
			return tables{}, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read nftables: %w", err)
		}
		for _, m := range messages {
			all.apply(m)
		}
	}
	return all, nil
}

// dump asks for all objects of a kind, of one family and table if they are named.
func dump(conn *netlink.Conn, kind int, f Family, table string) ([]message, error) {
	data := header(byte(f.Number), 0)
	if table != "" {
		attrs, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NFTA_RULE_TABLE, Data: append([]byte(table), 0)}})
		if err != nil {
			return nil, err
		}
		data = append(data, attrs...)
	}
	var replies []netlink.Message
	for range 10 { // as long as somebody changes tables meanwhile
		var err error
		if replies, err = conn.Execute(netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind), Flags: netlink.Request | netlink.Dump},
			Data:   data,
		}); err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(replies, func(m netlink.Message) bool { return m.Header.Flags&netlink.DumpInterrupted != 0 }) {
			break
		}
	}
	var out []message
	for _, reply := range replies {
		m, ok := parse(reply)
		if !ok {
			return nil, errors.New("the kernel's answer can't be read")
		}
		out = append(out, m)
	}
	return out, nil
}

// Unsupported reports whether a kernel without nftables, or without the family, has
// said so.
func Unsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EAFNOSUPPORT)
}

// Supported asks the kernel for a table without a name, which none makes: one that
// has the family says that the name is missing (nf_tables_newtable,
// net/netfilter/nf_tables_api.c). [Unsupported] is true of the error of any other.
func Supported(f Family) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return fmt.Errorf("open nftables socket: %w", err)
	}
	defer conn.Close()
	// Without an end the kernel takes back all of a batch, were there anything.
	if _, err := conn.SendMessages([]netlink.Message{
		{Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_BEGIN, Flags: netlink.Request}, Data: header(0, unix.NFNL_SUBSYS_NFTABLES)},
		{
			Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWTABLE, Flags: netlink.Request | netlink.Acknowledge | netlink.Create},
			Data:   header(byte(f.Number), 0),
		},
	}); err != nil {
		return fmt.Errorf("ask nftables: %w", err)
	}
	if _, err := conn.Receive(); Unsupported(err) {
		return err
	}
	return nil
}
