package packet

import (
	"encoding/hex"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

func TestARPRequest(t *testing.T) {
	got := ARPRequest(mac.Addr{2, 0, 0, 0, 0, 7}, netip.MustParseAddr("10.244.1.7"), netip.MustParseAddr("10.244.1.1"))
	want := "ffffffffffff" + "020000000007" + "0806" + // to all, ARP
		"0001" + "0800" + "06" + "04" + "0001" +
		"020000000007" + "0af40107" + "000000000000" + "0af40101"
	if hex.EncodeToString(got) != want {
		t.Errorf("got %x, want %s", got, want)
	}
}

// arpAnswer is a reply as a gateway sends it.
func arpAnswer() []byte {
	b, _ := hex.DecodeString("020000000007" + "eeeeeeeeeeee" + "0806" + "0001" + "0800" + "06" + "04" + "0002" +
		"eeeeeeeeeeee" + "0af40101" + "020000000007" + "0af40107")
	return b
}

func TestParseARPReply(t *testing.T) {
	edit := func(at int, to byte) []byte {
		b := arpAnswer()
		b[at] = to
		return b
	}
	for _, c := range []struct {
		name  string
		frame []byte
		want  error
	}{
		{name: "whole", frame: arpAnswer()},
		{name: "padded", frame: append(arpAnswer(), make([]byte, 18)...)},
		{name: "empty", want: ErrBadFrame},
		{name: "cut", frame: arpAnswer()[:EthernetLen+arpLen-1], want: ErrBadFrame},
		{name: "IPv4", frame: edit(13, 0), want: ErrBadFrame},
		{name: "other hardware", frame: edit(15, 6), want: ErrBadFrame},
		{name: "other addresses", frame: edit(19, 16), want: ErrBadFrame},
		{name: "request", frame: edit(21, 1), want: ErrBadFrame},
	} {
		address, at, err := ParseARPReply(c.frame)
		if !errors.Is(err, c.want) || err == nil && (address != netip.MustParseAddr("10.244.1.1") || at != mac.Addr{0xee, 0xee, 0xee, 0xee, 0xee, 0xee}) {
			t.Errorf("%s: got %v at %v, %v", c.name, address, at, err)
		}
	}
}

func FuzzParseARPReply(f *testing.F) {
	f.Add(arpAnswer())
	f.Add(arpAnswer()[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		was := slices.Clone(b)
		if address, _, err := ParseARPReply(b); err == nil && !address.Is4() || !slices.Equal(was, b) {
			t.Fatalf("%x: %v", b, address)
		}
	})
}
