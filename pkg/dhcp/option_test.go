package dhcp

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/rfc1035label"
)

func TestParseOption(t *testing.T) {
	for _, c := range []struct {
		in   string
		code uint8
		want string // hexadecimal
		err  string // within the error
	}{
		{in: "252=http://proxy/wpad.dat", code: 252, want: hex.EncodeToString([]byte("http://proxy/wpad.dat"))},
		{in: "60=HTTPClient", code: 60, want: hex.EncodeToString([]byte("HTTPClient"))},
		{in: "17=a=b", code: 17, want: hex.EncodeToString([]byte("a=b"))},
		{in: "43=0x0102", code: 43, want: "0102"},
		{in: "43=hex:01:02", code: 43, want: "0102"},
		{in: "43=text:0x01", code: 43, want: hex.EncodeToString([]byte("0x01"))},
		{in: "6=1.1.1.1,8.8.8.8", code: 6, want: "0101010108080808"},
		{in: "42=10.0.0.1 10.0.0.2", code: 42, want: "0a0000010a000002"},
		{in: "28=10.244.1.255", code: 28, want: "0af401ff"},
		{in: "33=10.1.0.0,10.0.0.1", code: 33, want: "0a0100000a000001"},
		{in: "26=1400", code: 26, want: "0578"},
		{in: "23=64", code: 23, want: "40"},
		{in: "2=-3600", code: 2, want: "fffff1f0"},
		{in: "35=60", code: 35, want: "0000003c"},
		{in: "119=a.example,b.example", code: 119, want: "0161076578616d706c6500" + "0162c002"},
		{in: "121=10.0.0.0/8,10.244.1.1,0.0.0.0/0,10.244.1.1", code: 121, want: "080a0af40101" + "000af40101"},
		{in: "249=0x00010203 04", code: 249, want: "0001020304"},
		{in: "3=", code: 3},

		{in: "no sign", err: "CODE=VALUE"},
		{in: "=1", err: "code"},
		{in: "256=x", err: "code"},
		{in: "-1=x", err: "code"},
		{in: "6=dns.example", err: "IPv4"},
		{in: "6=fd00::1", err: "IPv4"},
		{in: "6=,", err: "no address"},
		{in: "28=10.0.0.1,10.0.0.2", err: "8 bytes"},
		{in: "33=10.0.0.1", err: "4 bytes"},
		{in: "6=0x010203", err: "3 bytes"},
		{in: "26=70000", err: "number"},
		{in: "26=10", err: "MTU"},
		{in: "2=x", err: "is not a whole number"},
		{in: "43=0xzz", err: "hexadecimal"},
		{in: "43=0x", err: "empty"},
		{in: "119=a..b", err: "empty label"},
		{in: "119=,", err: "no domain"},
		{in: "121=10.0.0.0/8", err: "pairs"},
		{in: "121=10.0.0.0,1.1.1.1", err: "prefix"},
		{in: "121=10.0.0.0/8,x", err: "address"},
		{in: "43=" + strings.Repeat("x", 1025), err: "1025"},
		{in: "53=1", err: "type"},
		{in: "54=1.1.1.1", err: "identifier"},
		{in: "51=60", err: "duration"},
		{in: "1=255.0.0.0", err: "address"},
		{in: "50=1.1.1.1", err: "client"},
		{in: "55=x", err: "client"},
		{in: "61=x", err: "repeats"},
		{in: "82=x", err: "relay"},
		{in: "0=x", err: "padding"},
		{in: "255=x", err: "end"},
		{in: "52=1", err: "size"},
		{in: "58=1", err: "duration"},
		{in: "59=1", err: "duration"},
	} {
		got, err := ParseOption(c.in)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: got error %v, want %q", c.in, err, c.err)
		}
		if err == nil && (got.Code != c.code || hex.EncodeToString(got.Value) != c.want) {
			t.Errorf("%s: got %d %x, want %d %s", c.in, got.Code, got.Value, c.code, c.want)
		}
	}
}

// decodeSearch reads a list with another implementation, which follows a
// pointer but not a second one.
func decodeSearch(t *testing.T, b []byte) []string {
	t.Helper()
	labels, err := rfc1035label.FromBytes(b)
	if err != nil {
		t.Fatalf("read search list %x: %v", b, err)
	}
	return labels.Labels
}

func TestEncodeSearch(t *testing.T) {
	for _, c := range []struct {
		names []string
		size  int
	}{
		{nil, 0},
		{[]string{"local"}, 7},
		{[]string{"a.b", "a.b.c", "b.c"}, 5 + 7 + 2},
		{[]string{"default.svc.cluster.local", "svc.cluster.local", "cluster.local"}, 27 + 2 + 2},
		{[]string{"cluster.local", "svc.cluster.local", "default.svc.cluster.local"}, 15 + 6 + 14}, // no pointer to a pointer
		{[]string{"eng.apple.com", "marketing.apple.com"}, 27},                                     // RFC 3397 §3's own example
	} {
		got := encodeSearch(c.names)
		if len(got) != c.size {
			t.Errorf("%v: %d bytes, want %d: %q", c.names, len(got), c.size, got)
		}
		if back := decodeSearch(t, got); !slices.Equal(back, c.names) {
			t.Errorf("%v: reads as %v", c.names, back)
		}
	}
	want := []byte("\x03eng\x05apple\x03com\x00\x09marketing\xc0\x04")
	if got := encodeSearch([]string{"eng.apple.com", "marketing.apple.com"}); !bytes.Equal(got, want) {
		t.Errorf("RFC 3397's example is %q, want %q", got, want)
	}
}

// TestEncodeSearchLong: names beyond the reach of a pointer are written out.
func TestEncodeSearchLong(t *testing.T) {
	var names []string
	for i := range 100 {
		names = append(names, strings.Repeat(string(rune('a'+i%26))+strings.Repeat("x", i%50)+".", 4)+strings.Repeat("tail.", 30)+"local")
	}
	names = slices.Compact(names)
	if back := decodeSearch(t, encodeSearch(names)); !slices.Equal(back, names) {
		t.Errorf("reads as %q", back)
	}
}

func TestEncodeRoutes(t *testing.T) {
	gw := netip.MustParseAddr("10.0.0.1")
	// RFC 3442's table of descriptors.
	for dst, want := range map[string]string{
		"0.0.0.0/0":        "00",
		"10.0.0.0/8":       "080a",
		"10.0.0.0/24":      "180a0000",
		"10.17.0.0/16":     "100a11",
		"10.27.129.0/24":   "180a1b81",
		"10.229.0.128/25":  "190a e500 80",
		"10.198.122.47/32": "200ac67a2f",
	} {
		want = strings.ReplaceAll(want, " ", "")
		p := netip.MustParsePrefix(dst)
		if got := hex.EncodeToString(encodeRoutes([]Route{{p, gw}})); got != want+"0a000001" {
			t.Errorf("%s: got %s", dst, got)
		}
		if got := hex.EncodeToString(encodeRoutes([]Route{{Destination: p}})); got != want+"00000000" {
			t.Errorf("%s on-link: got %s", dst, got)
		}
		var back dhcpv4.Routes
		if err := back.FromBytes(encodeRoutes([]Route{{p, gw}, {Destination: p}})); err != nil || len(back) != 2 {
			t.Errorf("%s: another implementation reads %v, %v", dst, back, err)
		}
	}
}
