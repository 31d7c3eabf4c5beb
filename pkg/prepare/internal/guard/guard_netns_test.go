package guard

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// The rules judge without a switch, too, where the netdev family has what a link
// receives.
func TestGuardWithoutSwitch(t *testing.T) {
	t.Parallel()
	own, other := net.HardwareAddr{2, 0, 0, 0, 0, 7}, net.HardwareAddr{2, 0, 0, 0, 0, 8}
	v4, gateway := netip.MustParseAddr("10.244.1.7"), netip.MustParseAddr("10.244.1.1")
	n := guest.NIC{
		MAC: mac.Of(own), Addressed: true,
		IPv4: &guest.IPv4{Address: netip.PrefixFrom(v4, 24), Addresses: []netip.Prefix{netip.PrefixFrom(v4, 24)}},
	}
	ns := podtest.New(t)
	if err := ns.Sysctl("net/ipv6/conf/default/disable_ipv6", "1"); err != nil { // it would send by itself
		t.Fatal(err)
	}
	ns.IP(t, "link add in type veth peer out", "link set in up", "link set out up")
	table := nft.Table{Family: nft.Netdev, Name: nft.Prefix + "eth0", Chains: append(FromGuest(n, InPlace), nft.Chain{
		Name: "in", Hook: "ingress", Device: "in", Rules: []nft.Rule{{nft.Jump(FromGuestChain)}},
	})}
	udp := func(src net.HardwareAddr, from netip.Addr, port uint16) []byte {
		return podtest.UDPFrame(src, other, netip.AddrPortFrom(from, 68), netip.AddrPortFrom(gateway, port), make([]byte, 20))
	}
	frames := map[Reason][]byte{
		ForgedMAC:     udp(other, v4, 9),
		ForgedIP:      udp(own, gateway, 9),
		DHCPClient:    udp(own, v4, 67),
		NoIPv6:        podtest.ICMPv6Frame(own, other, n.MAC.LinkLocal(), netip.IPv6Unspecified(), 128, 64),
		Malformed:     append(append(other[:6:6], own...), 8, 6, 0, 1),                                        // ARP, cut short
		OtherProtocol: append(append(other[:6:6], own...), 0x81, 0, 0, 1, 8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 0), // a VLAN's
		"":            udp(own, v4, 9),
	}
	if err := ns.Do(func() error {
		if err := nft.Write(nft.Change{Table: table}); err != nil {
			return err
		}
		reader, err := nft.OpenCounterReader()
		if err != nil {
			return err
		}
		defer reader.Close()
		for reason, frame := range frames {
			before, err := counted(reader, table)
			if err != nil {
				return err
			}
			if err := podtest.SendFrames(ns, "out", frame); err != nil {
				return err
			}
			time.Sleep(20 * time.Millisecond)
			after, err := counted(reader, table)
			if err != nil {
				return err
			}
			for r := range after {
				want := before[r]
				if r == reason {
					want++
				}
				if after[r] != want {
					t.Errorf("a frame to be dropped for %q: %d are dropped for %s, want %d", reason, after[r], r, want)
				}
			}
			if _, is := after[reason]; !is && reason != "" {
				t.Errorf("nothing is counted for %s", reason)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func counted(r *nft.CounterReader, t nft.Table) (map[Reason]uint64, error) {
	counters, err := Counters(r, t)
	if err != nil {
		return nil, err
	}
	out := map[Reason]uint64{}
	for _, c := range counters {
		if c.Direction != FromVM {
			return nil, fmt.Errorf("counted %s", c.Direction)
		}
		out[c.Reason] = c.Packets
	}
	return out, nil
}
