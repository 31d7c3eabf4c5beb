package engine

// The program that this file makes runs in the kernel, and may be used under the
// GPL, version 2, too: the kernel has bpf_probe_read_kernel for such programs only.
// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only

import (
	"fmt"
	"math"
	"slices"

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

// Places on the program's stack, below the frame pointer. Further down are skbFields, as
// they are in the kernel: the verifier takes the longer, the deeper the stack is.
const (
	stackHeader  = -24             // of what was loaded of the frame
	stackNetwork = stackHeader + 2 // of the network header, loaded with the EtherType
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
	stackFields := stackHeader - size
	at := func(name string) int16 { return int16(stackFields + fields[name].Offset - first) }

	return bpf.Assemble(slices.Concat(
		[]bpf.Instruction{
			bpf.Mov.Reg(bpf.R6, bpf.R1),
			// The context of a classifier is the kernel's struct sk_buff.
			bpf.Mov.Reg(bpf.R1, bpf.R10),
			bpf.Add.Imm(bpf.R1, int32(stackFields)),
			bpf.Mov.Imm(bpf.R2, int32(size)),
			bpf.Mov.Reg(bpf.R3, bpf.R6),
			bpf.Add.Imm(bpf.R3, int32(first)),
			bpf.ProbeReadKernel.Call(),
			bpf.JNE.Imm(bpf.R0, 0, "drop"),
			bpf.LoadMem(bpf.R1, bpf.R10, at("ip_summed"), bpf.Byte),
			bpf.RSh.Imm(bpf.R1, int32(summed.Shift)),
			bpf.And.Imm(bpf.R1, 3),
			bpf.JNE.Imm(bpf.R1, checksumPartial, "pass"),
			// R7 is where the sum begins, in the frame; R8 where the next header does,
			// R9 which it is.
			bpf.LoadMem(bpf.R7, bpf.R10, at("csum_start"), bpf.Half),
			bpf.LoadMem(bpf.R1, bpf.R10, at("mac_header"), bpf.Half),
			bpf.Sub.Reg(bpf.R7, bpf.R1),
			bpf.JGT.Imm(bpf.R7, math.MaxUint16, "drop"), // it is negative
			bpf.Mov.Imm(bpf.R2, etherTypeAt),
		},
		loadHeader(22),
		[]bpf.Instruction{
			bpf.LoadMem(bpf.R1, bpf.R10, stackHeader, bpf.Byte),
			bpf.LoadMem(bpf.R2, bpf.R10, stackHeader+1, bpf.Byte),
			bpf.LSh.Imm(bpf.R1, 8),
			bpf.Or.Reg(bpf.R1, bpf.R2),
			bpf.JEq.Imm(bpf.R1, unix.ETH_P_IPV6, "IPv6"),
			bpf.JNE.Imm(bpf.R1, unix.ETH_P_IP, "drop"),
		},
		skipIPv4(),
		skipIPv6(),
		[]bpf.Instruction{
			bpf.JNE.Imm(bpf.R9, unix.IPPROTO_UDP, check(0)).Labelled("transport"),
			bpf.LoadMem(bpf.R1, bpf.R10, at("encapsulation"), bpf.Byte),
			bpf.RSh.Imm(bpf.R1, int32(encapsulation.Shift)),
			bpf.And.Imm(bpf.R1, 1),
			bpf.JEq.Imm(bpf.R1, 0, check(0)), // no tunnel is segmented
			bpf.LoadMem(bpf.R1, bpf.R10, at("inner_network_header"), bpf.Half),
			bpf.LoadMem(bpf.R2, bpf.R10, at("mac_header"), bpf.Half),
			bpf.Sub.Reg(bpf.R1, bpf.R2),
			bpf.Sub.Reg(bpf.R1, bpf.R8),
			bpf.JSLT.Imm(bpf.R1, udpHeader, "drop"),
		},
		judgeChecksum(at("csum_offset")),
		[]bpf.Instruction{
			bpf.Mov.Imm(bpf.R0, verdictContinue).Labelled("pass"),
			bpf.Return(),
			bpf.Mov.Imm(bpf.R0, verdictDrop).Labelled("drop"),
			bpf.Return(),
		},
	))
}

// loadHeader loads some bytes of the frame, from R2 on.
func loadHeader(size int32) []bpf.Instruction {
	return []bpf.Instruction{
		bpf.Mov.Reg(bpf.R1, bpf.R6),
		bpf.Mov.Reg(bpf.R3, bpf.R10),
		bpf.Add.Imm(bpf.R3, stackHeader),
		bpf.Mov.Imm(bpf.R4, size),
		bpf.SkbLoadBytes.Call(),
		bpf.JNE.Imm(bpf.R0, 0, "drop"),
	}
}

// skipIPv4 finds the transport header of an IPv4 packet (RFC 791 section 3.1).
func skipIPv4() []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadMem(bpf.R1, bpf.R10, stackNetwork, bpf.Byte),
		bpf.Mov.Reg(bpf.R8, bpf.R1),
		bpf.RSh.Imm(bpf.R1, 4),
		bpf.JNE.Imm(bpf.R1, 4, "drop"), // its version
		bpf.And.Imm(bpf.R8, 0xf),
		bpf.JLT.Imm(bpf.R8, 5, "drop"), // its length, in words
		bpf.LSh.Imm(bpf.R8, 2),
		bpf.Add.Imm(bpf.R8, networkHeader),
		bpf.LoadMem(bpf.R1, bpf.R10, stackNetwork+6, bpf.Byte),
		bpf.And.Imm(bpf.R1, 0x1f),
		bpf.LoadMem(bpf.R2, bpf.R10, stackNetwork+7, bpf.Byte),
		bpf.Or.Reg(bpf.R1, bpf.R2),
		bpf.JNE.Imm(bpf.R1, 0, "drop"), // a later fragment
		bpf.LoadMem(bpf.R9, bpf.R10, stackNetwork+9, bpf.Byte),
		bpf.Jump("transport"),
	}
}

// skipIPv6 finds the transport header of an IPv6 packet (RFC 8200 sections 3 and 4),
// or one header more, which is no protocol that passes; "transport" follows.
func skipIPv6() []bpf.Instruction {
	out := []bpf.Instruction{
		bpf.LoadMem(bpf.R1, bpf.R10, stackNetwork, bpf.Byte).Labelled("IPv6"),
		bpf.RSh.Imm(bpf.R1, 4),
		bpf.JNE.Imm(bpf.R1, 6, "drop"),
		bpf.LoadMem(bpf.R9, bpf.R10, stackNetwork+6, bpf.Byte),
		bpf.Mov.Imm(bpf.R8, networkHeader+ipv6Header),
	}
	header := func(n int) string { return fmt.Sprintf("header %d", n) }
	for n := range maxHeaders {
		fragment, next := fmt.Sprintf("fragment %d", n), header(n+1)
		if n == maxHeaders-1 {
			next = "transport"
		}
		// One comparison for all of them: the verifier follows each.
		out = append(out, slices.Concat(
			[]bpf.Instruction{
				bpf.JGT.Imm(bpf.R9, 63, "transport").Labelled(header(n)),
				bpf.Mov.Imm(bpf.R1, int32(extensions>>32)),
				bpf.LSh.Imm(bpf.R1, 32),
				bpf.Or.Imm(bpf.R1, int32(extensions&math.MaxInt32)),
				bpf.RSh.Reg(bpf.R1, bpf.R9),
				bpf.And.Imm(bpf.R1, 1),
				bpf.JEq.Imm(bpf.R1, 0, "transport"),
				bpf.Mov.Reg(bpf.R2, bpf.R8),
			},
			loadHeader(4), // each has eight bytes or more
			[]bpf.Instruction{
				bpf.LoadMem(bpf.R1, bpf.R10, stackHeader+1, bpf.Byte), // its length, but for the first 8 bytes, in eights of bytes
				bpf.JEq.Imm(bpf.R9, unix.IPPROTO_FRAGMENT, fragment),
				bpf.Add.Imm(bpf.R1, 1),
				bpf.LSh.Imm(bpf.R1, 3),
				bpf.Add.Reg(bpf.R8, bpf.R1),
				bpf.LoadMem(bpf.R9, bpf.R10, stackHeader, bpf.Byte),
				bpf.Jump(next),
				bpf.LoadMem(bpf.R1, bpf.R10, stackHeader+2, bpf.Byte).Labelled(fragment),
				bpf.LoadMem(bpf.R2, bpf.R10, stackHeader+3, bpf.Byte),
				bpf.And.Imm(bpf.R2, 0xf8),
				bpf.Or.Reg(bpf.R1, bpf.R2),
				bpf.JNE.Imm(bpf.R1, 0, "drop"), // a later fragment
				bpf.Add.Imm(bpf.R8, 8),
				bpf.LoadMem(bpf.R9, bpf.R10, stackHeader, bpf.Byte),
			})...)
	}
	return out
}

// extensions are the extension headers that are looked behind, a bit for each.
const extensions = 1<<unix.IPPROTO_HOPOPTS | 1<<unix.IPPROTO_ROUTING | 1<<unix.IPPROTO_FRAGMENT | 1<<unix.IPPROTO_DSTOPTS

// check is the label of the checks by judgeChecksum.
func check(n int) string { return fmt.Sprintf("check %d", n) }

// judgeChecksum drops what asks for another sum than one of checksums, and not in
// the payload of one of tunnels.
func judgeChecksum(offset int16) []bpf.Instruction {
	out := []bpf.Instruction{
		bpf.LoadMem(bpf.R2, bpf.R10, offset, bpf.Half).Labelled(check(0)),
		bpf.Sub.Reg(bpf.R7, bpf.R8), // from the transport header on
	}
	n := 1
	for _, c := range checksums {
		out = append(out,
			bpf.JNE.Imm(bpf.R9, c.protocol, check(n+1)).Labelled(check(n)),
			bpf.JNE.Imm(bpf.R7, 0, check(n+1)),
			bpf.JEq.Imm(bpf.R2, c.offset, "pass"))
		n++
	}
	for _, t := range tunnels {
		out = append(out,
			bpf.JNE.Imm(bpf.R9, t.protocol, check(n+1)).Labelled(check(n)),
			bpf.JSGE.Imm(bpf.R7, t.header, "pass"))
		n++
	}
	return append(out, bpf.Jump("drop").Labelled(check(n)))
}
