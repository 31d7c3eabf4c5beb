package ra

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// frameOf is a message as it goes out to all.
func frameOf(message []byte) []byte {
	b := append(make([]byte, packet.Head6Len), message...)
	packet.Seal6(b, packet.Packet6{
		SrcMAC: routerMAC, DstMAC: packet.MulticastMAC(allNodes), Src: router, Dst: allNodes,
		Protocol: unix.IPPROTO_ICMPV6, HopLimit: packet.HopLimitND,
	})
	return b
}

// TestGolden keeps what goes onto the wire: the frame's bytes, and what another
// program reads in them.
func TestGolden(t *testing.T) {
	unnamed := onLink()
	unnamed.DNS, unnamed.Search, unnamed.Routes, unnamed.MTU = nil, nil, nil, 0
	unnamed.RouterLifetime, unnamed.Managed = 0, false
	for name, a := range map[string]Advertisement{"calico": calico(), "on-link": onLink(), "bare": unnamed} {
		t.Run(name, func(t *testing.T) {
			messages, left, err := a.encode()
			if err != nil || len(left) != 0 || len(messages) != 1 {
				t.Fatalf("%d messages, left out %q, error %v", len(messages), left, err)
			}
			frame := frameOf(messages[0])
			golden(t, name+".golden", tcpdump(t, frame)+"\n"+hex.Dump(frame))
		})
	}
}

// tcpdump is what tcpdump(8) reads in a frame.
func tcpdump(t *testing.T, frame []byte) string {
	t.Helper()
	pcap := binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
	pcap = append(pcap, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 1, 0, 0, 0)
	pcap = append(pcap, make([]byte, 8)...)
	pcap = binary.LittleEndian.AppendUint32(pcap, uint32(len(frame)))
	pcap = binary.LittleEndian.AppendUint32(pcap, uint32(len(frame)))
	cmd := exec.CommandContext(t.Context(), "tcpdump", "-n", "-e", "-t", "-vvv", "-r", "-")
	cmd.Stdin = bytes.NewReader(append(pcap, frame...))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("run tcpdump: %v\n%s", err, &stderr)
	}
	if text := string(out); !strings.Contains(text, "[icmp6 sum ok]") || strings.Contains(text, "truncated") || strings.Contains(text, "bad") {
		t.Errorf("tcpdump objects:\n%s", text)
	}
	return string(out)
}

// TestSeveralMessages: what is too long for one goes into more; nothing is lost.
func TestSeveralMessages(t *testing.T) {
	a := onLink()
	a.Routes, a.Search, a.DNS = nil, nil, nil
	for i := range maxRoutes {
		a.Routes = append(a.Routes, netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, byte(i)}), 64))
	}
	for i := range 32 {
		a.Search = append(a.Search, strings.Repeat("a.", 120)+fmt.Sprintf("example%d", i))
		a.DNS = append(a.DNS, netip.AddrFrom16([16]byte{0xfd, 15: byte(1 + i)}))
	}
	messages, left, err := a.encode()
	if err != nil || len(left) != 0 {
		t.Fatalf("left out %q, error %v", left, err)
	}
	count := map[byte]int{}
	for i, m := range messages {
		if len(m) > maxMessage {
			t.Errorf("message %d has %d bytes", i, len(m))
		}
		if !bytes.Equal(m[:headLen], messages[0][:headLen]) {
			t.Errorf("message %d begins with %x", i, m[:headLen])
		}
		for rest := m[headLen:]; len(rest) > 0; rest = rest[8*int(rest[1]):] {
			count[rest[0]]++
			if rest[0] == optSearch {
				count[0] += strings.Count(string(rest[:8*int(rest[1])]), "example")
			}
		}
		tcpdump(t, frameOf(m))
	}
	if count[packet.OptionSourceMAC] != 0 || count[optRoute] != maxRoutes || count[optDNS] != 1 || count[optPrefix] != 1 || count[0] != 32 {
		t.Errorf("options are %v", count)
	}
}

func TestNormalize(t *testing.T) {
	a := calico()
	prefix := netip.MustParsePrefix
	a.MTU = 1000
	a.Router = router.WithZone("eth0")
	a.Routes = []netip.Prefix{prefix("fd00::7/64"), prefix("fd00::8/64"), prefix("10.0.0.0/8"), prefix("fe80::/64"), {}}
	a.Prefixes = []netip.Prefix{prefix("fd00::7/64"), prefix("fd00::/64"), prefix("fe80::/10"), prefix("10.0.0.0/8")}
	a.DNS = []netip.Addr{netip.MustParseAddr("::1"), netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fe80::1%eth0"), netip.MustParseAddr("ff02::1"), netip.MustParseAddr("fe80::1")}
	a.Search = []string{"Example.COM.", "bad domain", "example.com"}
	got, left := a.Normalize()
	if len(got.Routes) != 1 || got.Routes[0] != prefix("fd00::/64") || len(got.Prefixes) != 1 || got.Prefixes[0] != prefix("fd00::/64") || got.MTU != 0 ||
		len(got.DNS) != 1 || got.DNS[0] != netip.MustParseAddr("fe80::1") || len(got.Search) != 1 || got.Search[0] != "example.com" || got.Router != router {
		t.Errorf("got %+v", got)
	}
	if len(left) != 4+3+4+2+1 {
		t.Errorf("left out %d: %q", len(left), left)
	}
	if again, left := got.Normalize(); len(left) != 0 || fmt.Sprint(again) != fmt.Sprint(got) {
		t.Errorf("once more: %+v, %q", again, left)
	}
}

func TestValidate(t *testing.T) {
	for name, change := range map[string]func(*Advertisement){
		"no router":       func(a *Advertisement) { a.Router = netip.Addr{} },
		"global router":   func(a *Advertisement) { a.Router = netip.MustParseAddr("fd00::1") },
		"IPv4 router":     func(a *Advertisement) { a.Router = netip.MustParseAddr("169.254.1.1") },
		"no MAC":          func(a *Advertisement) { a.MAC = mac.Addr{} },
		"group MAC":       func(a *Advertisement) { a.MAC[0] |= 1 },
		"router lifetime": func(a *Advertisement) { a.RouterLifetime = MaxRouterLifetime + time.Second },
		"half a second":   func(a *Advertisement) { a.RouterLifetime = time.Second / 2 },
		"negative":        func(a *Advertisement) { a.RouterLifetime = -time.Second },
		"MTU":             func(a *Advertisement) { a.MTU = 1 << 16 },
	} {
		a := calico()
		change(&a)
		if _, _, err := a.encode(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := calico().Validate(); err != nil {
		t.Error(err)
	}
}

func TestEmptyAdvertisement(t *testing.T) {
	err := Advertisement{}.Validate()
	for _, want := range []string{"MAC is not set", "Router is not set"} {
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "invalid IP") {
			t.Errorf("got error %v, want %q", err, want)
		}
	}
}
