package dhcp

import (
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Offsets in an Ethernet frame that holds IPv4.
const (
	etherTypeAt  = 12
	fragmentAt   = ethLen + 6
	protocolAt   = ethLen + 9
	udpDstPortAt = ethLen + 2 // from there the IP header's length further on
)

// filter lets unfragmented IPv4/UDP to the server port pass that came in
// without a VLAN tag. It runs for every frame of the guest, so that it decides
// early: for all but UDP after three loads.
var filter = []bpf.Instruction{
	bpf.LoadAbsolute{Off: etherTypeAt, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: etherTypeIPv4, SkipFalse: 12},
	bpf.LoadAbsolute{Off: protocolAt, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: protoUDP, SkipFalse: 10},
	bpf.LoadAbsolute{Off: fragmentAt, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: fragmentMask, SkipTrue: 8},
	bpf.LoadMemShift{Off: ethLen}, // X = 4 × the header length field
	bpf.LoadIndirect{Off: udpDstPortAt, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: serverPort, SkipFalse: 5},
	bpf.LoadExtension{Num: bpf.ExtVLANTagPresent},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 3},
	bpf.LoadExtension{Num: bpf.ExtType},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.PACKET_OUTGOING, SkipTrue: 1},
	bpf.RetConstant{Val: 1 << 18}, // the whole frame
	bpf.RetConstant{Val: 0},
}
