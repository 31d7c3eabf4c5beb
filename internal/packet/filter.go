package packet

import (
	"encoding/binary"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// UDP4Filter lets unfragmented IPv4/UDP to the port pass that came in without a VLAN
// tag. It runs for every frame of the guest, so that it decides early: for all but
// UDP after three loads.
func UDP4Filter(port uint16) []bpf.Instruction {
	return append([]bpf.Instruction{
		bpf.LoadAbsolute{Off: etherTypeAt, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_IP, SkipFalse: 12},
		bpf.LoadAbsolute{Off: EthernetLen + protocolAt, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_UDP, SkipFalse: 10},
		bpf.LoadAbsolute{Off: EthernetLen + fragmentAt, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: fragmentMask, SkipTrue: 8},
		bpf.LoadMemShift{Off: EthernetLen}, // X = 4 × the header length field
		bpf.LoadIndirect{Off: EthernetLen + 2, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(port), SkipFalse: 5},
	}, fromGuest...)
}

// IPv6Filter lets IPv6 pass that came in without a VLAN tag, holds the protocol
// without a header between, and has a value of one or two bytes at an offset in
// the protocol's header.
func IPv6Filter(protocol uint8, at uint32, size int, value uint32) []bpf.Instruction {
	return append([]bpf.Instruction{
		bpf.LoadAbsolute{Off: etherTypeAt, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_IPV6, SkipFalse: 9},
		bpf.LoadAbsolute{Off: EthernetLen + nextHeaderAt, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(protocol), SkipFalse: 7},
		bpf.LoadAbsolute{Off: Head6Len + at, Size: size},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: value, SkipFalse: 5},
	}, fromGuest...)
}

// fromGuest is how each filter ends: no VLAN tag, and not sent by us. Its last
// instruction refuses.
var fromGuest = []bpf.Instruction{
	bpf.LoadExtension{Num: bpf.ExtVLANTagPresent},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 3},
	bpf.LoadExtension{Num: bpf.ExtType},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.PACKET_OUTGOING, SkipTrue: 1},
	bpf.RetConstant{Val: 1 << 18}, // the whole frame
	bpf.RetConstant{Val: 0},
}

func setFilter(fd int, program []bpf.Instruction) error {
	code, err := bpf.Assemble(program)
	if err != nil {
		return err
	}
	insns := make([]unix.SockFilter, len(code))
	for i, c := range code {
		insns[i] = unix.SockFilter{Code: c.Op, Jt: c.Jt, Jf: c.Jf, K: c.K}
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(insns)), Filter: &insns[0]})
}

// htons gives a number in network byte order as the kernel's structures want it.
func htons(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}
