package engine

// The program that this file makes runs in the kernel, and may be used under the
// GPL, version 2, too: the kernel has bpf_probe_read_kernel for such programs only.
// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only

import (
	"fmt"
	"math"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/bpf"
)

// skbFields are what the program reads of struct sk_buff (linux/skbuff.h).
var skbFields = []string{"ip_summed", "csum_start", "csum_offset", "mac_header", "encapsulation", "inner_network_header"}

// Numbers of linux/bpf.h, linux/skbuff.h and linux/pkt_cls.h.
const (
	helperLoadBytes  = 26  // bpf_skb_load_bytes
	helperProbeRead  = 113 // bpf_probe_read_kernel
	checksumPartial  = 3   // CHECKSUM_PARTIAL
	verdictGoOn      = -1  // TC_ACT_UNSPEC: the next filter, if there is one
	verdictDrop      = 2   // TC_ACT_SHOT
	maxHeaders       = 6   // extension headers of an IPv6 packet that are looked behind
	maxFieldDistance = 256
)

const udpHeader = 8 // its length

// Places on the program's stack, below the frame pointer.
const (
	stackFields = -maxFieldDistance - 32 // of skbFields, as they are in the kernel
	stackHeader = -32                    // of what was loaded of the frame
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
		return nil, fmt.Errorf("struct sk_buff is unlike any that is known: %v", fields)
	}
	at := func(name string) int16 { return int16(stackFields + fields[name].Offset - first) }

	var p bpf.Program
	p.Move(bpf.R6, bpf.R1)
	// The context of a classifier is the kernel's struct sk_buff.
	p.Move(bpf.R1, bpf.R10)
	p.Do(unix.BPF_ADD, bpf.R1, stackFields)
	p.Set(bpf.R2, int32(size))
	p.Move(bpf.R3, bpf.R6)
	p.Do(unix.BPF_ADD, bpf.R3, int32(first))
	p.Call(helperProbeRead)
	p.JumpIf(unix.BPF_JNE, bpf.R0, 0, "drop")
	p.Load(unix.BPF_B, bpf.R1, bpf.R10, at("ip_summed"))
	p.Do(unix.BPF_RSH, bpf.R1, int32(summed.Shift))
	p.Do(unix.BPF_AND, bpf.R1, 3)
	p.JumpIf(unix.BPF_JNE, bpf.R1, checksumPartial, "pass")
	// R7 is where the sum begins, in the frame; R8 where the next header does, R9
	// which it is.
	p.Load(unix.BPF_H, bpf.R7, bpf.R10, at("csum_start"))
	p.Load(unix.BPF_H, bpf.R1, bpf.R10, at("mac_header"))
	p.DoWith(unix.BPF_SUB, bpf.R7, bpf.R1)
	p.JumpIf(unix.BPF_JGT, bpf.R7, math.MaxUint16, "drop") // it is negative
	const etherType = 12                                   // the frame's header, then 2 bytes of which network protocol it is
	p.Set(bpf.R2, etherType)
	loadHeader(&p, 22)
	p.Load(unix.BPF_B, bpf.R1, bpf.R10, stackHeader)
	p.Load(unix.BPF_B, bpf.R2, bpf.R10, stackHeader+1)
	p.Do(unix.BPF_LSH, bpf.R1, 8)
	p.DoWith(unix.BPF_OR, bpf.R1, bpf.R2)
	p.JumpIf(unix.BPF_JEQ, bpf.R1, unix.ETH_P_IPV6, "IPv6")
	p.JumpIf(unix.BPF_JNE, bpf.R1, unix.ETH_P_IP, "drop")
	skipIPv4(&p)
	p.Label("IPv6")
	skipIPv6(&p)
	p.JumpIf(unix.BPF_JNE, bpf.R9, unix.IPPROTO_UDP, "no tunnel is segmented")
	p.Load(unix.BPF_B, bpf.R1, bpf.R10, at("encapsulation"))
	p.Do(unix.BPF_RSH, bpf.R1, int32(encapsulation.Shift))
	p.Do(unix.BPF_AND, bpf.R1, 1)
	p.JumpIf(unix.BPF_JEQ, bpf.R1, 0, "no tunnel is segmented")
	p.Load(unix.BPF_H, bpf.R1, bpf.R10, at("inner_network_header"))
	p.Load(unix.BPF_H, bpf.R2, bpf.R10, at("mac_header"))
	p.DoWith(unix.BPF_SUB, bpf.R1, bpf.R2)
	p.DoWith(unix.BPF_SUB, bpf.R1, bpf.R8)
	p.JumpIf(unix.BPF_JSLT, bpf.R1, udpHeader, "drop")
	p.Label("no tunnel is segmented")
	judgeChecksum(&p, at("csum_offset"))
	p.Label("pass")
	p.Set(bpf.R0, verdictGoOn)
	p.Exit()
	p.Label("drop")
	p.Set(bpf.R0, verdictDrop)
	p.Exit()
	return p.Bytes()
}

// loadHeader loads some bytes of the frame, from R2 on.
func loadHeader(p *bpf.Program, size int32) {
	p.Move(bpf.R1, bpf.R6)
	p.Move(bpf.R3, bpf.R10)
	p.Do(unix.BPF_ADD, bpf.R3, stackHeader)
	p.Set(bpf.R4, size)
	p.Call(helperLoadBytes)
	p.JumpIf(unix.BPF_JNE, bpf.R0, 0, "drop")
}

// Where the network header is, in the frame and on the stack, and how long IPv6's
// is.
const (
	networkHeader = 14
	stackNetwork  = stackHeader + 2
	ipv6Header    = 40
)

// skipIPv4 goes to the transport header of an IPv4 packet (RFC 791 section 3.1).
func skipIPv4(p *bpf.Program) {
	p.Load(unix.BPF_B, bpf.R1, bpf.R10, stackNetwork)
	p.Move(bpf.R8, bpf.R1)
	p.Do(unix.BPF_RSH, bpf.R1, 4)
	p.JumpIf(unix.BPF_JNE, bpf.R1, 4, "drop") // its version
	p.Do(unix.BPF_AND, bpf.R8, 0xf)
	p.JumpIf(unix.BPF_JLT, bpf.R8, 5, "drop") // its length, in words
	p.Do(unix.BPF_LSH, bpf.R8, 2)
	p.Do(unix.BPF_ADD, bpf.R8, networkHeader)
	p.Load(unix.BPF_B, bpf.R1, bpf.R10, stackNetwork+6)
	p.Do(unix.BPF_AND, bpf.R1, 0x1f)
	p.Load(unix.BPF_B, bpf.R2, bpf.R10, stackNetwork+7)
	p.DoWith(unix.BPF_OR, bpf.R1, bpf.R2)
	p.JumpIf(unix.BPF_JNE, bpf.R1, 0, "drop") // a later fragment
	p.Load(unix.BPF_B, bpf.R9, bpf.R10, stackNetwork+9)
	p.Jump("transport")
}

// skipIPv6 goes to the transport header of an IPv6 packet (RFC 8200 sections 3 and
// 4), and falls through there.
func skipIPv6(p *bpf.Program) {
	p.Load(unix.BPF_B, bpf.R1, bpf.R10, stackNetwork)
	p.Do(unix.BPF_RSH, bpf.R1, 4)
	p.JumpIf(unix.BPF_JNE, bpf.R1, 6, "drop")
	p.Load(unix.BPF_B, bpf.R9, bpf.R10, stackNetwork+6)
	p.Set(bpf.R8, networkHeader+ipv6Header)
	for n := range maxHeaders {
		fragment, options, next := fmt.Sprintf("fragment %d", n), fmt.Sprintf("options %d", n), fmt.Sprintf("header %d", n+1)
		p.JumpIf(unix.BPF_JEQ, bpf.R9, unix.IPPROTO_FRAGMENT, fragment)
		p.JumpIf(unix.BPF_JEQ, bpf.R9, unix.IPPROTO_HOPOPTS, options)
		p.JumpIf(unix.BPF_JEQ, bpf.R9, unix.IPPROTO_ROUTING, options)
		p.JumpIf(unix.BPF_JEQ, bpf.R9, unix.IPPROTO_DSTOPTS, options)
		p.Jump("transport")

		p.Label(options)
		p.Move(bpf.R2, bpf.R8)
		loadHeader(p, 2)
		p.Load(unix.BPF_B, bpf.R9, bpf.R10, stackHeader)
		p.Load(unix.BPF_B, bpf.R1, bpf.R10, stackHeader+1) // its length, but for the first 8 bytes, in eights of bytes
		p.Do(unix.BPF_ADD, bpf.R1, 1)
		p.Do(unix.BPF_LSH, bpf.R1, 3)
		p.DoWith(unix.BPF_ADD, bpf.R8, bpf.R1)
		p.Jump(next)

		p.Label(fragment)
		p.Move(bpf.R2, bpf.R8)
		loadHeader(p, 4)
		p.Load(unix.BPF_B, bpf.R9, bpf.R10, stackHeader)
		p.Load(unix.BPF_B, bpf.R1, bpf.R10, stackHeader+2)
		p.Load(unix.BPF_B, bpf.R2, bpf.R10, stackHeader+3)
		p.Do(unix.BPF_AND, bpf.R2, 0xf8)
		p.DoWith(unix.BPF_OR, bpf.R1, bpf.R2)
		p.JumpIf(unix.BPF_JNE, bpf.R1, 0, "drop") // a later fragment
		p.Do(unix.BPF_ADD, bpf.R8, 8)
		p.Label(next)
	}
	p.Label("transport") // or one header more, which is no protocol that passes
}

// judgeChecksum drops what asks for another sum than one of checksums, and not in
// the payload of one of tunnels.
func judgeChecksum(p *bpf.Program, offset int16) {
	p.Load(unix.BPF_H, bpf.R2, bpf.R10, offset)
	p.DoWith(unix.BPF_SUB, bpf.R7, bpf.R8) // from the transport header on
	for _, c := range checksums {
		other := fmt.Sprintf("not the checksum of %d", c.protocol)
		p.JumpIf(unix.BPF_JNE, bpf.R9, c.protocol, other)
		p.JumpIf(unix.BPF_JNE, bpf.R7, 0, other)
		p.JumpIf(unix.BPF_JEQ, bpf.R2, c.offset, "pass")
		p.Label(other)
	}
	for _, t := range tunnels {
		other := fmt.Sprintf("no tunnel by %d", t.protocol)
		p.JumpIf(unix.BPF_JNE, bpf.R9, t.protocol, other)
		p.JumpIf(unix.BPF_JSGE, bpf.R7, t.header, "pass")
		p.Label(other)
	}
	p.Jump("drop")
}
