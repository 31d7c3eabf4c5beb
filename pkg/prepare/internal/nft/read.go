package nft

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
)

// Read returns our tables in the network namespace of the calling thread; none where
// the kernel can have none. Without the capability NET_ADMIN the error wraps
// [unix.EPERM].
func Read() (map[ID]Present, error) {
	all := tables{}
	conn, err := nl.OpenSocket(unix.NETLINK_NETFILTER)
	if Unsupported(err) {
		return all, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open nftables socket: %w", err)
	}
	defer conn.Close()
	for _, kind := range []int{unix.NFT_MSG_GETTABLE, unix.NFT_MSG_GETCHAIN, unix.NFT_MSG_GETRULE, unix.NFT_MSG_GETSET} {
		messages, err := dump(conn, kind, nftables.TableFamilyUnspecified)
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
		if len(all) == 0 { // what others have, as a service mesh, may be thousands of rules
			return all, nil
		}
	}
	for id, t := range all {
		for name, s := range t.sets {
			if s.dynamic() {
				continue
			}
			messages, err := dump(conn, unix.NFT_MSG_GETSETELEM, id.Family, id.Name, name)
			if err != nil && !errors.Is(err, unix.ENOENT) { // it may have just gone
				return nil, fmt.Errorf("read nftables: %w", err)
			}
			for _, m := range messages {
				all.apply(m)
			}
		}
	}
	return all, nil
}

// dump asks for all objects of a kind: of any family and table, of one table, or of one
// set of it.
func dump(s *nl.Socket, kind int, family nftables.TableFamily, names ...string) ([]message, error) {
	request := attributes(header(byte(family), 0))
	request.names(names)
	replies, err := s.Dump(kindOf(kind), request)
	if err != nil {
		return nil, err
	}
	out := make([]message, len(replies))
	for i, reply := range replies {
		var ok bool
		if out[i], ok = parse(reply); !ok {
			return nil, errors.New("the kernel's answer can't be read")
		}
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
	b := newBatch(f.Number)
	b.add(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, nil, nil)
	if err := b.try(); Unsupported(err) {
		return err
	}
	return nil
}

// EgressSupported asks the kernel for a chain at an egress hook of the family netdev
// (Linux 5.16, CONFIG_NETFILTER_EGRESS), and makes none. [Unsupported] is true of the
// error of a kernel without.
func EgressSupported() error {
	const table = Prefix + "egress"
	b := newBatch(Netdev.Number)
	b.addTable(table)
	b.addChain(table, Chain{Name: "egress", Hook: "egress", Device: "lo"}, Netdev)
	return b.try()
}
