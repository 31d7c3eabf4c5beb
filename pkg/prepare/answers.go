package prepare

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
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
	for _, n := range p.Interface.Neighbors {
		if n.Address.Is6() && len(n.MAC) == 6 && p.IPv6 != nil {
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

// answer turns a request for n into its reply: all of the fields are known,
// since there is only one guest, with this address.
func (p Plan) answer(n discover.Neighbor, guest []byte) rule {
	// operation, sender's MAC and address; then the target's
	sender := slices.Concat(binary.BigEndian.AppendUint16(nil, arpReply), n.MAC, n.Address.AsSlice())
	target := slices.Concat(p.MAC, guest)
	r := ruleOf(
		etherType("arp"), etherSource("==", p.MAC), isARPRequest(),
		match{"arp daddr ip " + n.Address.String(), comparePayload(expr.PayloadBaseNetworkHeader, 24, n.Address.AsSlice())},
		match{"counter", []expr.Any{&expr.Counter{}}},
		match{
			fmt.Sprintf("ether daddr set %s ether saddr set %s", p.MAC, n.MAC),
			writePayload(expr.PayloadBaseLLHeader, 0, slices.Concat(p.MAC, n.MAC)),
		},
		match{
			fmt.Sprintf("arp operation set reply arp saddr ether set %s arp saddr ip set %s", n.MAC, n.Address),
			writePayload(expr.PayloadBaseNetworkHeader, 6, sender),
		},
		match{
			fmt.Sprintf("arp daddr ether set %s arp daddr ip set %s", p.MAC, p.ipv4()[0].Addr()),
			writePayload(expr.PayloadBaseNetworkHeader, 18, target),
		},
	)
	r.text += " dup to " + p.Tap.Name + " drop"
	r.sendTo = p.Tap.Name
	return r
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
