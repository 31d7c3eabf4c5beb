package dhcp

import (
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
)

func BenchmarkReply(b *testing.B) {
	lease, req := testLease(), discover(dhcpv4.OptParameterRequestList(linuxList...))
	r, _, err := lease.Compile()
	if err != nil {
		b.Fatal(err)
	}
	b.Run("compiled", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := r.Reply(req); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("lease", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := lease.Reply(req); err != nil {
				b.Fatal(err)
			}
		}
	})
	reply, err := r.Reply(req)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		buf := make([]byte, 0, 1514)
		for b.Loop() {
			out, _ := appendMessage(buf[:headLen], reply, req.Options[optParameters], 548)
			seal(out, reply, packet.MACOf(lease.MAC), lease.Server)
		}
	})
}
