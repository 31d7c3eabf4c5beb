package dhcp

import (
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
)

func BenchmarkReply(b *testing.B) {
	l, req := testLease(), discover(dhcpv4.OptParameterRequestList(linuxList...))
	r, _, err := l.compile()
	if err != nil {
		b.Fatal(err)
	}
	b.Run("compiled", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := r.reply(req); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("lease", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := l.Reply(req); err != nil {
				b.Fatal(err)
			}
		}
	})
	reply, err := r.reply(req)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		buf := make([]byte, 0, 1514)
		for b.Loop() {
			out, _ := appendMessage(buf[:packet.UDP4Len], reply, req.Options[optParameters], 548)
			sealed(out, reply, l.MAC, l.Server)
		}
	})
}
