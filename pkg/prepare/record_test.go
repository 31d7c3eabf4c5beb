package prepare

import (
	"encoding/json"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

// What is taken for a record says what it said once more.
func FuzzRecord(f *testing.F) {
	p, err := NewPlan(discover.Interface{
		Name: "eth0", Index: 2, Kind: "veth", MAC: discover.HardwareAddr{0x0a, 0x58, 0x0a, 0xf4, 1, 7}, MTU: 1450,
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
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRecord("eth0", b)
		if err != nil {
			return
		}
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
