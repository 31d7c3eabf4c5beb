package redirect

import (
	"net"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/guard"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// A connection that there is no room to note is counted; those that are noted are not.
func TestFullSetIsCounted(t *testing.T) {
	t.Parallel()
	ns := podtest.New(t)
	ns.IP(t, "link add v0 type veth peer name v1", "link set v1 up", "link set v0 up", "addr add 10.0.0.1/24 dev v0",
		"neigh add 10.0.0.2 lladdr 02:00:00:00:00:02 dev v0")
	f := families[0]
	flows := f.flows(pods)
	flows.Size = 2
	table := nft.Table{Family: nft.Netdev, Name: nft.Prefix + "v0", Sets: []nft.Set{flows}, Chains: []nft.Chain{{
		Name: fromPod, Hook: "egress", Device: "v0",
		Rules: f.noting(flows, nft.Accept, guard.Kept(guard.FromPod, guard.TooManyConnections, nft.Accept)),
	}}}
	ns.In(t, func() error {
		if err := nft.EgressSupported(); nft.Unsupported(err) {
			t.Skip("this kernel has no egress hook")
		}
		return nft.Write(nft.Change{Table: table})
	})
	for _, port := range []int{1, 2, 3, 1} {
		ns.In(t, func() error {
			conn, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1000 + port}, &net.UDPAddr{IP: net.IPv4(10, 0, 0, 2), Port: port})
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = conn.Write([]byte("x"))
			return err
		})
	}
	ns.In(t, func() error {
		r, err := nft.OpenCounterReader()
		if err != nil {
			return err
		}
		defer r.Close()
		counters, err := guard.Counters(r, table)
		var n uint64
		for _, c := range counters {
			n += c.Packets
		}
		if n != 1 {
			t.Errorf("counted are %d of one that there is no room for: %v", n, counters)
		}
		return err
	})
}
