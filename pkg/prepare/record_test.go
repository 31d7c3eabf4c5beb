package prepare

import (
	"encoding/json"
	"net/netip"
	"regexp"
	"slices"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// What is taken for a record says what it said once more, and can be worked with:
// whatever is in the file, nothing that is made of it panics.
func FuzzRecord(f *testing.F) {
	p, err := NewPlan(discover.Interface{
		Name: "eth0", Index: 2, Kind: "veth", MAC: mac.Addr{0x0a, 0x58, 0x0a, 0xf4, 1, 7}, MTU: 1450,
		Up: true, ARP: true, Ethernet: true,
	}, Options{})
	if err != nil {
		f.Fatal(err)
	}
	whole, err := json.Marshal(record{Version: recordVersion, Knobs: map[string]string{"a": "1"}, Plan: p})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte("null"))
	dual, err := NewPlan(discover.Interface{
		Name: "eth0", Index: 2, Kind: "veth", MAC: mac.Addr{0x0a, 0x58, 0x0a, 0xf4, 1, 7}, MTU: 1450, Up: true, ARP: true, Ethernet: true,
		Addresses: []discover.Address{
			{Prefix: netip.MustParsePrefix("10.244.1.7/24"), Message: make([]byte, 8)}, {Prefix: netip.MustParsePrefix("fd00::7/64"), Message: make([]byte, 8)},
		},
		Routes:     []discover.Route{{Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("10.244.1.1"), Links: []int{2}, Message: make([]byte, 12)}},
		Dependents: []discover.Route{{Destination: netip.MustParsePrefix("::/0"), Links: []int{3}, Message: make([]byte, 12)}},
		Neighbors:  []discover.Neighbor{{Address: netip.MustParseAddr("10.244.1.1"), MAC: mac.Addr{2, 0, 0, 0, 0, 1}, Message: make([]byte, 12)}},
		Gateway6:   &discover.Neighbor{Address: netip.MustParseAddr("fe80::1"), MAC: mac.Addr{2, 0, 0, 0, 0, 1}},
	}, Options{})
	if err != nil {
		f.Fatal(err)
	}
	text, err := json.Marshal(record{Version: recordVersion, Plan: dual})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	// Each value of a whole record, in turn, is something else.
	for _, bad := range []string{`""`, "null", "-1", "[]", "{}", `"x"`, "999999999999"} {
		for _, at := range regexp.MustCompile(`:("[^"]*"|[0-9.-]+|true|false|null)`).FindAllSubmatchIndex(text, -1) {
			f.Add(slices.Concat(text[:at[2]], []byte(bad), text[at[3]:]))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRecord("eth0", b)
		if err != nil {
			return
		}
		for _, s := range []state{r.Plan.original(), {}} {
			_, _ = applyOps(s, []Plan{r.Plan}, nil)
			_ = restoreOps(s, []Plan{r.Plan}, nil)
		}
		for _, mac := range []mac.Addr{r.Plan.MAC, r.Plan.Bridge.MAC, r.Plan.Interface.MAC} {
			_ = LinkLocal(mac) // as leases do
		}
		_, _, _ = r.Plan.String(), r.Plan.Network(), r.Plan.Addresses()
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseRecord("eth0", text)
		if err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		if twice, err := json.Marshal(again); err != nil || string(twice) != string(text) {
			t.Errorf("%s became %s (%v)", text, twice, err)
		}
	})
}
