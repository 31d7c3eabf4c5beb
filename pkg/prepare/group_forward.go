package prepare

import (
	"encoding/binary"
	"fmt"

	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
)

// allGroups are the groups that bridges keep for themselves, 01:80:c2:00:00:00 to
// 0f, of LLDP, LACP, 802.1X and others, but for that of pause frames, which none
// passes on (BR_GROUPFWD_MACPAUSE, net/bridge/br_private.h).
const allGroups = 0xffff &^ (1 << 1)

// nearestBridge is LLDP's group, 01:80:c2:00:00:0e. A frame to it that a bridge does
// not pass on goes to the stack of the port itself, whatever is in it, and past all
// hooks of the bridge (br_handle_frame, net/bridge/br_input.c).
const nearestBridge = 1 << 0xe

// setGroupForward says which of these groups a bridge passes on from a port.
type setGroupForward struct {
	port     string
	from, to uint16
}

func (o setGroupForward) String() string {
	return fmt.Sprintf("ip link set %s type bridge_slave group_fwd_mask %d", o.port, o.to)
}

func (o setGroupForward) inverse() op { return setGroupForward{o.port, o.to, o.from} }

func (o setGroupForward) do(k *kernel) error {
	info := vnl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(vnl.IFLA_INFO_SLAVE_KIND, []byte("bridge"))
	info.AddRtAttr(vnl.IFLA_INFO_SLAVE_DATA, nil).AddRtAttr(vnl.IFLA_BRPORT_GROUP_FWD_MASK, binary.NativeEndian.AppendUint16(nil, o.to))
	index, err := k.conn.Index(o.port)
	if err != nil {
		return err
	}
	msg := vnl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	return k.conn.Request(unix.RTM_NEWLINK, 0, msg, info)
}

// groupForward is what the plan wants of both ports. A VM on a network without IPAM
// is on it as if by a cable; what a pod gets an address in is the node's affair.
// There the guard drops what is to such a group, and has to see it for that.
func (p Plan) groupForward() uint16 {
	if p.Interface.Addressed() {
		return nearestBridge
	}
	return allGroups
}

// groupOps has a port, which is l or a new one if that is nil or elsewhere, pass on
// what it should.
func (p Plan) groupOps(port string, l *nl.Link, isPort bool) []op {
	var now uint16
	if l != nil && isPort {
		now = l.GroupForward
	}
	if now == p.groupForward() {
		return nil
	}
	return []op{setGroupForward{port, now, p.groupForward()}}
}
