package engine

// The program that this file makes runs in the kernel, and may be used under the
// GPL, version 2, too: the kernel has bpf_probe_read_kernel for such programs only.
// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only

import (
	"fmt"
	"math"
	"slices"

	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/bpf"
)

// skbFields are what the program reads of struct sk_buff (linux/skbuff.h).
var skbFields = []string{"ip_summed", "csum_start", "csum_offset", "mac_header", "encapsulation", "inner_network_header"}

// Numbers of linux/skbuff.h and linux/pkt_cls.h, and limits of ours.
const (
	checksumPartial  = 3  // CHECKSUM_PARTIAL
	verdictContinue  = -1 // TC_ACT_UNSPEC: the next filter, if there is one
	verdictDrop      = 2  // TC_ACT_SHOT
	maxHeaders       = 6  // extension headers of an IPv6 packet that are looked behind
	maxFieldDistance = 256
)

// Places in a frame, and lengths of headers.
const (
	etherTypeAt   = 12
	networkHeader = 14
	ipv6Header    = 40
	udpHeader     = 8
)

// Places on the program's stack, below the frame pointer.
const (
	stackFields  = -maxFieldDistance - 32 // of skbFields, as they are in the kernel
	stackHeader  = -32                    // of what was loaded of the frame
	stackNetwork = stackHeader + 2        // of the network header, loaded with the EtherType
)

// checksums are the protocols whose checksum a device may be asked for, by where
// it is in the header.
var checksums = []struct{ protocol, offset int32 }{
	{unix.IPPROTO_TCP, 16}, {unix.IPPROTO_UDP, 6}, {unix.IPPROTO_SCTP, 8},
}

// tunnels are the protocols in whose payload there may be such a packet, by how
// long their header is at least.
var tunnels = []struct{ protocol, header int32 }{
	{unix.IPPROTO_UDP, udpHeader}, {unix.IPPROTO_GRE, 4}, {unix.IPPROTO_IPIP, 20}, {unix.IPPROTO_IPV6, 40},
}

// checksumProgram makes the program that judges a frame at a tap. Who sends a
// frame with a virtio header, or one with PACKET_VNET_HDR, can ask for a checksum
// anywhere in it: the kernel writes it there once the frame leaves by a device
// that computes none itself (skb_checksum_help, net/core/dev.c), behind all
// filters. So it drops a frame that asks for one, unless it is written to
//
//   - the checksum of the transport header, by which no rule judges, or
//   - the payload of UDP or of a tunnel, which its sender may fill as it likes.
//
// Since Linux 6.17 such a sender can also ask for segments of what is in a tunnel by
// UDP, and says where that begins. The kernel writes lengths and sums of each segment
// there (__skb_udp_tunnel_segment, net/ipv4/udp_offload.c), so it must be in the
// payload as well, not on the ports.
//
// What can't be told is dropped. An outer VLAN tag is off the frame by now
// (__netif_receive_skb_core, net/core/dev.c); inside another none is looked for.
func checksumProgram(fields map[string]bpf.Field) ([]byte, error) {
	first, last := math.MaxInt, 0
	for _, f := range fields {
		first, last = min(first, f.Offset), max(last, f.Offset+2)
	}
	size := (last - first + 7) / 8 * 8
	summed, encapsulation := fields["ip_summed"], fields["encapsulation"]
	if size > maxFieldDistance || summed.Bits != 2 || summed.Shift < 0 || summed.Shift > 6 || encapsulation.Bits != 1 {
		return nil, fmt.Errorf("the kernel's struct sk_buff has an unknown layout: %v", fields)
	}
	at := func(name string) int16 { return int16(stackFields + fields[name].Offset - first) }

	return bpf.Assemble(slices.Concat(
		asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R1),
			// The context of a classifier is the kernel's struct sk_buff.
			asm.Mov.Reg(asm.R1, asm.R10),
			asm.Add.Imm(asm.R1, stackFields),
			asm.Mov.Imm(asm.R2, int32(size)),
			asm.Mov.Reg(asm.R3, asm.R6),
			asm.Add.Imm(asm.R3, int32(first)),
			asm.FnProbeReadKernel.Call(),
			asm.JNE.Imm(asm.R0, 0, "drop"),
			asm.LoadMem(asm.R1, asm.R10, at("ip_summed"), asm.Byte),
			asm.RSh.Imm(asm.R1, int32(summed.Shift)),
			asm.And.Imm(asm.R1, 3),
			asm.JNE.Imm(asm.R1, checksumPartial, "pass"),
			// R7 is where the sum begins, in the frame; R8 where the next header does,
			// R9 which it is.
			asm.LoadMem(asm.R7, asm.R10, at("csum_start"), asm.Half),
			asm.LoadMem(asm.R1, asm.R10, at("mac_header"), asm.Half),
			asm.Sub.Reg(asm.R7, asm.R1),
			asm.JGT.Imm(asm.R7, math.MaxUint16, "drop"), // it is negative
			asm.Mov.Imm(asm.R2, etherTypeAt),
		},
		loadHeader(22),
		asm.Instructions{
			asm.LoadMem(asm.R1, asm.R10, stackHeader, asm.Byte),
			asm.LoadMem(asm.R2, asm.R10, stackHeader+1, asm.Byte),
			asm.LSh.Imm(asm.R1, 8),
			asm.Or.Reg(asm.R1, asm.R2),
			asm.JEq.Imm(asm.R1, unix.ETH_P_IPV6, "IPv6"),
			asm.JNE.Imm(asm.R1, unix.ETH_P_IP, "drop"),
		},
		skipIPv4(),
		skipIPv6(),
		asm.Instructions{
			asm.JNE.Imm(asm.R9, unix.IPPROTO_UDP, check(0)).WithSymbol("transport"),
			asm.LoadMem(asm.R1, asm.R10, at("encapsulation"), asm.Byte),
			asm.RSh.Imm(asm.R1, int32(encapsulation.Shift)),
			asm.And.Imm(asm.R1, 1),
			asm.JEq.Imm(asm.R1, 0, check(0)), // no tunnel is segmented
			asm.LoadMem(asm.R1, asm.R10, at("inner_network_header"), asm.Half),
			asm.LoadMem(asm.R2, asm.R10, at("mac_header"), asm.Half),
			asm.Sub.Reg(asm.R1, asm.R2),
			asm.Sub.Reg(asm.R1, asm.R8),
			asm.JSLT.Imm(asm.R1, udpHeader, "drop"),
		},
		judgeChecksum(at("csum_offset")),
		asm.Instructions{
			asm.Mov.Imm(asm.R0, verdictContinue).WithSymbol("pass"),
			asm.Return(),
			asm.Mov.Imm(asm.R0, verdictDrop).WithSymbol("drop"),
			asm.Return(),
		},
	))
}

// loadHeader loads some bytes of the frame, from R2 on.
func loadHeader(size int32) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R3, asm.R10),
		asm.Add.Imm(asm.R3, stackHeader),
		asm.Mov.Imm(asm.R4, size),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "drop"),
	}
}

// skipIPv4 finds the transport header of an IPv4 packet (RFC 791 section 3.1).
func skipIPv4() asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R1, asm.R10, stackNetwork, asm.Byte),
		asm.Mov.Reg(asm.R8, asm.R1),
		asm.RSh.Imm(asm.R1, 4),
		asm.JNE.Imm(asm.R1, 4, "drop"), // its version
		asm.And.Imm(asm.R8, 0xf),
		asm.JLT.Imm(asm.R8, 5, "drop"), // its length, in words
		asm.LSh.Imm(asm.R8, 2),
		asm.Add.Imm(asm.R8, networkHeader),
		asm.LoadMem(asm.R1, asm.R10, stackNetwork+6, asm.Byte),
		asm.And.Imm(asm.R1, 0x1f),
		asm.LoadMem(asm.R2, asm.R10, stackNetwork+7, asm.Byte),
		asm.Or.Reg(asm.R1, asm.R2),
		asm.JNE.Imm(asm.R1, 0, "drop"), // a later fragment
		asm.LoadMem(asm.R9, asm.R10, stackNetwork+9, asm.Byte),
		asm.Ja.Label("transport"),
	}
}

// skipIPv6 finds the transport header of an IPv6 packet (RFC 8200 sections 3 and 4),
// or one header more, which is no protocol that passes; "transport" follows.
func skipIPv6() asm.Instructions {
	out := asm.Instructions{
		asm.LoadMem(asm.R1, asm.R10, stackNetwork, asm.Byte).WithSymbol("IPv6"),
		asm.RSh.Imm(asm.R1, 4),
		asm.JNE.Imm(asm.R1, 6, "drop"),
		asm.LoadMem(asm.R9, asm.R10, stackNetwork+6, asm.Byte),
		asm.Mov.Imm(asm.R8, networkHeader+ipv6Header),
	}
	header := func(n int) string { return fmt.Sprintf("header %d", n) }
	for n := range maxHeaders {
		fragment, options, next := fmt.Sprintf("fragment %d", n), fmt.Sprintf("options %d", n), header(n+1)
		if n == maxHeaders-1 {
			next = "transport"
		}
		out = slices.Concat(out,
			asm.Instructions{
				asm.JEq.Imm(asm.R9, unix.IPPROTO_FRAGMENT, fragment).WithSymbol(header(n)),
				asm.JEq.Imm(asm.R9, unix.IPPROTO_HOPOPTS, options),
				asm.JEq.Imm(asm.R9, unix.IPPROTO_ROUTING, options),
				asm.JEq.Imm(asm.R9, unix.IPPROTO_DSTOPTS, options),
				asm.Ja.Label("transport"),
				asm.Mov.Reg(asm.R2, asm.R8).WithSymbol(options),
			},
			loadHeader(2),
			asm.Instructions{
				asm.LoadMem(asm.R9, asm.R10, stackHeader, asm.Byte),
				asm.LoadMem(asm.R1, asm.R10, stackHeader+1, asm.Byte), // its length, but for the first 8 bytes, in eights of bytes
				asm.Add.Imm(asm.R1, 1),
				asm.LSh.Imm(asm.R1, 3),
				asm.Add.Reg(asm.R8, asm.R1),
				asm.Ja.Label(next),
				asm.Mov.Reg(asm.R2, asm.R8).WithSymbol(fragment),
			},
			loadHeader(4),
			asm.Instructions{
				asm.LoadMem(asm.R9, asm.R10, stackHeader, asm.Byte),
				asm.LoadMem(asm.R1, asm.R10, stackHeader+2, asm.Byte),
				asm.LoadMem(asm.R2, asm.R10, stackHeader+3, asm.Byte),
				asm.And.Imm(asm.R2, 0xf8),
				asm.Or.Reg(asm.R1, asm.R2),
				asm.JNE.Imm(asm.R1, 0, "drop"), // a later fragment
				asm.Add.Imm(asm.R8, 8),
			})
	}
	return out
}

// check is the label of the checks by judgeChecksum.
func check(n int) string { return fmt.Sprintf("check %d", n) }

// judgeChecksum drops what asks for another sum than one of checksums, and not in
// the payload of one of tunnels.
func judgeChecksum(offset int16) asm.Instructions {
	out := asm.Instructions{
		asm.LoadMem(asm.R2, asm.R10, offset, asm.Half).WithSymbol(check(0)),
		asm.Sub.Reg(asm.R7, asm.R8), // from the transport header on
	}
	n := 1
	for _, c := range checksums {
		out = append(out,
			asm.JNE.Imm(asm.R9, c.protocol, check(n+1)).WithSymbol(check(n)),
			asm.JNE.Imm(asm.R7, 0, check(n+1)),
			asm.JEq.Imm(asm.R2, c.offset, "pass"))
		n++
	}
	for _, t := range tunnels {
		out = append(out,
			asm.JNE.Imm(asm.R9, t.protocol, check(n+1)).WithSymbol(check(n)),
			asm.JSGE.Imm(asm.R7, t.header, "pass"))
		n++
	}
	return append(out, asm.Ja.Label("drop").WithSymbol(check(n)))
}
