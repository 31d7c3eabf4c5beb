package prepare

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
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
	whole, err := json.Marshal(record{Version: recordVersion, Sysctls: map[string]string{"a": "1"}, Plan: p})
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
		Routes:    []discover.Route{{Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("10.244.1.1"), Links: []int{2}, Message: make([]byte, 12)}},
		Neighbors: []discover.Neighbor{{Address: netip.MustParseAddr("10.244.1.1"), MAC: mac.Addr{2, 0, 0, 0, 0, 1}, Message: make([]byte, 12)}},
		Gateway6:  &discover.Neighbor{Address: netip.MustParseAddr("fe80::1"), MAC: mac.Addr{2, 0, 0, 0, 0, 1}},
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
		for _, s := range []*engine.State{engine.Original(r.Plan.Interface), {}} {
			_, _ = applyOps(s, []Plan{r.Plan})
			_, _, _ = restoreOps(s, []record{r}, nil)
			_ = differencesOf(s, []Plan{r.Plan})
		}
		_, _ = r.Plan.String(), r.Plan.NIC().Addresses()
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

// A record that the version before has written is read, and written anew says the
// same. Its placeholder is as it was made.
func TestRecordOfVersion1(t *testing.T) {
	text, err := os.ReadFile("testdata/record-1.json")
	if err != nil {
		t.Fatal(err)
	}
	r, err := parseRecord("eth0", text)
	if err != nil {
		t.Fatal(err)
	}
	n := r.Plan.NIC()
	if !r.isApplied() || len(r.Plan.Interface.Routes) == 0 || n.Tap != "tap-eth0" || !n.Guard || n.MTU != 1500 ||
		fmt.Sprint(n.Addresses()) != "[10.244.1.7/24 fd00:244::7/64]" {
		t.Errorf("it says %+v of %+v", n, r)
	}
	var was struct {
		Plan struct {
			MAC mac.Addr
			Tap struct{ MAC mac.Addr }
		}
	}
	if err := json.Unmarshal(text, &was); err != nil {
		t.Fatal(err)
	}
	if n.MAC != was.Plan.MAC || n.TapMAC != was.Plan.Tap.MAC {
		t.Errorf("the MACs are %s and %s, and were %+v", n.MAC, n.TapMAC, was)
	}
	once, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	again, err := parseRecord("eth0", once)
	if err != nil {
		t.Fatal(err)
	}
	if twice, err := json.Marshal(again); err != nil || string(twice) != string(once) || again.Version != 2 {
		t.Errorf("%s became %s (%v)", once, twice, err)
	}
	shared := strings.Replace(string(text), `"routes": [`, `"dependents": [{}], "routes": [`, 1)
	if _, err := parseRecord("eth0", []byte(shared)); err == nil || !strings.Contains(err.Error(), "restore the pod with the version that prepared it") {
		t.Errorf("with a route of several interfaces: %v", err)
	}
	for record, by := range map[string]string{
		`{"version": 3}`: "a newer virt-launcher-net:", `{"version": 3, "writer": "v9.1.0"}`: `a newer virt-launcher-net, "v9.1.0":`,
		`{"version": 3, "writer": "v9.1.0", "order": "first"}`: `"v9.1.0":`,
	} {
		if _, err := parseRecord("eth0", []byte(record)); err == nil || !strings.Contains(err.Error(), by+" its version is 3, and this program reads 1 to 2") {
			t.Errorf("%s: %v", record, err)
		}
	}
}
