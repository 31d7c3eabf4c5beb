package dhcp

import (
	"encoding/binary"
	"fmt"

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

func attachFilter(fd int) error {
	if err := setFilter(fd, filter); err != nil {
		return fmt.Errorf("attach filter for DHCP: %w", err)
	}
	return nil
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

// htonl is htons for 32 bits.
func htonl(v uint32) uint32 {
	return binary.NativeEndian.Uint32(binary.BigEndian.AppendUint32(nil, v))
}

func nativeUint32(b []byte) uint32 { return binary.NativeEndian.Uint32(b) }
