package prepare

import (
	"encoding/binary"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// answersChain is the one chain of the answers.
const answersChain = "from_guest"

// answers is the table that answers the guest for the pod's permanent
// neighbours. Some CNIs give the pod a gateway that answers no ARP, and the
// neighbour's MAC along with it; the guest can't be told that by DHCP. A request
// from the tap is turned into the reply and sent back, by the kernel alone, so
// that the guest finds its gateway also when nobody serves any more. So is one for
// the DHCP server of a network without a gateway. It has no chains where nothing
// needs an answer.
func (p Plan) answers() table {
	t := table{family: netdevFamily, name: tablePrefix + p.Interface.Name}
	var out []rule
	if addresses := p.ipv4(); len(addresses) > 0 {
		for _, n := range p.answered4() {
			out = append(out, p.answer(n, addresses[0].Addr().AsSlice()))
		}
	}
	for _, n := range p.neighbors() {
		if n.Address.Is6() && p.IPv6 != nil {
			out = append(out, p.answers6(n.Address, n.MAC)...)
		}
	}
	if p.IPv6 != nil && p.IPv6.Router != nil && p.IPv6.Router.Answered {
		out = append(out, p.answers6(p.IPv6.Router.LinkLocal, p.IPv6.Router.MAC)...)
	}
	if len(out) > 0 {
		t.chains = []chain{{name: answersChain, hook: "ingress", device: p.Tap.Name, rules: out}}
	}
	return t
}

// neighbors are the pod's permanent ones. The kernel lists them in any order; the
// plan of a pod is always the same.
func (p Plan) neighbors() []discover.Neighbor {
	var out []discover.Neighbor
	for _, n := range p.Interface.Neighbors {
		if !n.MAC.IsZero() {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b discover.Neighbor) int { return a.Address.Compare(b.Address) })
	return out
}

// answer turns a request for n into its reply: all of the fields are known,
// since there is one guest. The frame begins with the destination.
func (p Plan) answer(n discover.Neighbor, guest []byte) rule {
	address, own := n.Address.String(), p.ipv4()[0].Addr().String()
	r := ruleOf(append([]match{
		onEthernet(), etherSourceAndType(p.MAC, "arp"),
		arpFields(arpField{"arp operation request", arpOperation, bigEndian(arpRequest)}),
		arpFields(arpField{"arp daddr ip " + address, arpTargetIP, n.Address.AsSlice()}),
		counted(),
	}, slices.Concat(p.toGuestFrom(n.MAC), []match{
		writeARP("operation", "reply", arpOperation, bigEndian(arpReply)),
		writeARP("saddr ether", n.MAC.String(), arpSenderMAC, n.MAC[:]),
		writeARP("saddr ip", address, arpSenderIP, n.Address.AsSlice()),
		writeARP("daddr ether", p.MAC.String(), arpTargetMAC, p.MAC[:]),
		writeARP("daddr ip", own, arpTargetIP, guest),
	})...)...)
	r.text += " dup to " + p.Tap.Name + " drop"
	r.sendTo = p.Tap.Name
	return r
}

// onEthernet is what nft(8) begins a rule about Ethernet with where a link may
// be of another kind.
func onEthernet() match {
	return match{text: "meta iiftype ether", exprs: compareMeta(expr.MetaKeyIIFTYPE, binary.NativeEndian.AppendUint16(nil, unix.ARPHRD_ETHER))}
}

// etherSourceAndType matches both, which lie one behind the other.
func etherSourceAndType(mac mac.Addr, name string) match {
	source, kind := etherSource("==", mac), etherType(name)
	value := slices.Concat(mac[:], kind.exprs[1].(*expr.Cmp).Data)
	return match{text: source.text + " " + kind.text, exprs: comparePayload(expr.PayloadBaseLLHeader, 6, value)}
}

func counted() match { return match{text: "counter", exprs: []expr.Any{&expr.Counter{}}} }

// toGuestFrom makes a frame one from a MAC to the VM.
func (p Plan) toGuestFrom(mac mac.Addr) []match {
	return []match{
		{text: "ether daddr set " + p.MAC.String(), exprs: writePayload(expr.PayloadBaseLLHeader, 0, p.MAC[:])},
		{text: "ether saddr set " + mac.String(), exprs: writePayload(expr.PayloadBaseLLHeader, 6, mac[:])},
	}
}

func writeARP(field, text string, offset uint32, value []byte) match {
	return match{text: "arp " + field + " set " + text, exprs: writePayload(expr.PayloadBaseNetworkHeader, offset, value)}
}

func writePayload(base expr.PayloadBase, offset uint32, value []byte) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: unix.NFT_REG_1, Data: value},
		&expr.Payload{
			OperationType: expr.PayloadWrite, SourceRegister: unix.NFT_REG_1,
			Base: base, Offset: offset, Len: uint32(len(value)),
		},
	}
}
