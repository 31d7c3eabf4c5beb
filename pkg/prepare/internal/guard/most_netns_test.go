package guard

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// TestMostIsLetByTheGuard: what the rules for most frames let pass, the guard's chains let
// pass too, whatever is in the frame.
func TestMostIsLetByTheGuard(t *testing.T) {
	t.Parallel()
	own, other := net.HardwareAddr{2, 0, 0, 0, 0, 7}, net.HardwareAddr{2, 0, 0, 0, 0, 8}
	vm := endpoint{own, netip.MustParseAddr("10.244.1.7"), netip.MustParseAddr("fd00::7")}
	peer := endpoint{other, netip.MustParseAddr("10.244.1.1"), netip.MustParseAddr("fd00::1")}
	n := guest.NIC{
		MAC: mac.Of(own), Addressed: true,
		IPv4: &guest.IPv4{Address: netip.PrefixFrom(vm.v4, 24), Addresses: []netip.Prefix{netip.PrefixFrom(vm.v4, 24)}},
		IPv6: &guest.IPv6{Address: netip.PrefixFrom(vm.v6, 64)},
	}
	o := Outcome{Pass: nft.Accept, Drop: nft.GoTo(droppedChain)}
	t.Run("from the guest", func(t *testing.T) {
		t.Parallel()
		checkMost(t, MostFromGuest(n), FromGuest(n, o), FromGuestChain, vm, peer)
	})
	t.Run("to the guest", func(t *testing.T) {
		t.Parallel()
		checkMost(t, MostToGuest(n, nft.EtherDestination.Is(n.MAC)), ToGuest(n, o), ToGuestChain, peer, vm)
	})
}

// droppedChain is for what the guard drops.
const droppedChain = "dropped"

// endpoint is whom frames are from, or for.
type endpoint struct {
	mac    net.HardwareAddr
	v4, v6 netip.Addr
}

// checkMost sends frames of all kinds from one to the other. Those of most are marked, and
// then judged by the chains like all.
func checkMost(t *testing.T, most []Most, chains []nft.Chain, first string, from, to endpoint) {
	const (
		where                  = Direction("judged")
		all, isMost, wronglyIn = Reason("all"), Reason("most"), Reason("wrongly most")
		marked                 = nft.Mark(7)
	)
	rules := []nft.Rule{{Kept(where, all, nft.FrameMark.Set(0))}}
	for _, m := range most {
		rules = append(rules, append(m.Match, Kept(where, isMost, nft.FrameMark.Set(marked))))
	}
	table := nft.Table{Family: nft.Netdev, Name: nft.Prefix + "eth0", Chains: slices.Concat(
		[]nft.Chain{{Name: droppedChain, Rules: []nft.Rule{{nft.FrameMark.Is(marked), Dropped(where, wronglyIn)}, {nft.Drop}}}},
		chains,
		[]nft.Chain{{Name: "in", Hook: "ingress", Device: "in", Rules: append(rules, nft.Rule{nft.Jump(first)})}},
	)}
	ns := podtest.New(t)
	if err := ns.Sysctl("net/ipv6/conf/default/disable_ipv6", "1"); err != nil { // it would send by itself
		t.Fatal(err)
	}
	ns.IP(t, "link add in type veth peer out", "link set in up", "link set out up")
	if err := ns.Do(func() error {
		if err := nft.Write(nft.Change{Table: table}); err != nil {
			return err
		}
		reader, err := nft.OpenCounterReader()
		if err != nil {
			return err
		}
		defer reader.Close()
		random := rand.New(rand.NewPCG(1, 2))
		count := map[Reason]uint64{}
		const atOnce = 300 // the kernel queues a thousand
		for sent := uint64(atOnce); sent <= 20*atOnce; sent += atOnce {
			frames := make([][]byte, atOnce)
			for i := range frames {
				frames[i] = anyFrame(random, from, to)
			}
			if err := podtest.SendFrames(ns, "out", frames...); err != nil {
				return err
			}
			for deadline := time.Now().Add(podtest.Patience); count[all] < sent; {
				if time.Now().After(deadline) {
					return fmt.Errorf("%d of %d frames have come", count[all], sent)
				}
				counters, err := Counters(reader, table)
				if err != nil {
					return err
				}
				for _, c := range counters {
					if c.Direction == where {
						count[c.Reason] = c.Packets
					}
				}
			}
		}
		if count[wronglyIn] > 0 || count[isMost] == 0 {
			t.Errorf("of %d frames %d are most of what there is; the guard drops %d of these", count[all], count[isMost], count[wronglyIn])
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// anyFrame is a frame that may have everything wrong: tags, lengths, headers, fragments,
// ports of DHCP, addresses.
func anyFrame(r *rand.Rand, from, to endpoint) []byte {
	pick := func(v ...int) int { return v[r.IntN(len(v))] }
	ports := make([]byte, 24)
	binary.BigEndian.PutUint16(ports, uint16(pick(66, 67, 68, 69, 545, 546, 547, 548, 9, 0)))
	binary.BigEndian.PutUint16(ports[2:], uint16(pick(66, 67, 68, 69, 545, 546, 547, 548, 9, 0)))
	binary.BigEndian.PutUint16(ports[4:], 24)
	ports[12] = 0x50
	proto := byte(pick(6, 17, 6, 17, 1, 2, 51, 58, 0, 44, 60))
	f := slices.Concat(to.mac, from.mac)
	if r.IntN(3) == 0 {
		f[0] = byte(pick(1, 0x33, 0xff, 2))
	}
	if r.IntN(6) == 0 {
		f[11]++
	}
	switch r.IntN(10) {
	case 0:
		f = append(f, 0x81, 0, 0, byte(pick(0, 1, 5)))
	case 1:
		f = append(f, 0x88, 0xa8, 0, byte(pick(0, 1, 5)), 0x81, 0, 0, 0)
	case 2: // 802.3 with LLC and SNAP
		f = append(f, 0, byte(pick(40, 60)), 0xaa, 0xaa, 3, 0, 0, 0)
	}
	ip := anyIPv6(pick, proto, from, to)
	etherTypes := [][]byte{{0x86, 0xdd}, {0x86, 0xdd}, {0x86, 0xdd}, {8, 0}}
	if r.IntN(2) == 0 {
		ip = anyIPv4(pick, proto, from, to)
		etherTypes = [][]byte{{8, 0}, {8, 0}, {8, 0}, {0x86, 0xdd}}
	}
	f = slices.Concat(f, etherTypes[r.IntN(4)], ip, ports)
	if r.IntN(8) == 0 {
		f = f[:len(f)-pick(1, 4, 16, 20, 22, 24)]
	}
	return f
}

// anyIPv4 is a header of IPv4.
func anyIPv4(pick func(...int) int, proto byte, from, to endpoint) []byte {
	ip := make([]byte, 20)
	ip[0] = byte(pick(0x45, 0x45, 0x45, 0x45, 0x45, 0x46, 0x47, 0x4f, 0x44, 0x55, 0x65))
	for range max(0, int(ip[0]&15)-5) {
		ip = append(ip, byte(pick(0, 1, 7, 131)), byte(pick(0, 3, 4, 40)), 0, 67)
	}
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+pick(24, 24, 24, 4, 1, 0, 8, 100)))
	binary.BigEndian.PutUint16(ip[6:], uint16(pick(0, 0, 0, 0x4000, 0x2000, 1, 0x2001, 0x1fff, 0x8000)))
	ip[8], ip[9] = 64, proto
	copy(ip[12:], from.v4.AsSlice())
	copy(ip[16:], to.v4.AsSlice())
	ip[pick(12, 15, 16, 19)] ^= byte(pick(0, 0, 0, 0, 1, 0x80))
	return ip
}

// anyIPv6 is a header of IPv6, with extension headers or not.
func anyIPv6(pick func(...int) int, proto byte, from, to endpoint) []byte {
	ip := make([]byte, 40)
	ip[0], ip[6], ip[7] = byte(pick(0x60, 0x60, 0x60, 0x60, 0x45)), proto, byte(pick(64, 255))
	copy(ip[8:], from.v6.AsSlice())
	copy(ip[24:], to.v6.AsSlice())
	ip[pick(8, 23, 24, 39)] ^= byte(pick(0, 0, 0, 0, 1, 0x80))
	if pick(0, 1) == 1 {
		ip[6] = byte(pick(0, 43, 44, 60, 51))
		for range pick(1, 1, 2) {
			ip = append(ip, byte(pick(6, 17, int(proto), 44, 60)), 0, 0, byte(pick(0, 1, 8, 9)), 0, 0, 0, 0)
		}
	}
	binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-40+pick(24, 24, 24, 4, 0, 1, 200)))
	return ip
}
