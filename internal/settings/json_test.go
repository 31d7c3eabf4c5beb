package settings

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// set decodes a JSON object and sets options from it.
func set(t *testing.T, text string) (Options, error) {
	t.Helper()
	var values map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &values); err != nil {
		t.Fatal(err)
	}
	var o Options
	return o, o.Set(values)
}

// Each flag is a key, and takes texts, numbers, booleans and lists.
func TestSet(t *testing.T) {
	var o Options
	err := o.Set(map[string]json.RawMessage{
		"datapath": []byte(`"redirect"`), "podPorts": []byte(`"8080,53/udp"`), "mtu": []byte(`1400`), "tapOwner": []byte(`"107:108"`),
		"guard": []byte(`false`), "tapName": []byte(`"tap0"`), "leaseTime": []byte(`"1h"`), "model": []byte(`"e1000e"`),
		"vmAlias": []byte(`["169.254.100.2","fd00:100::2"]`),
		"dns":     []byte(`["192.0.2.1","2001:db8::1"]`), "search": []byte(`"example.org"`),
	})
	if err != nil {
		t.Fatal(err)
	}
	n, l := o.Network, o.Lease
	if n.Datapath != "redirect" || n.PodPorts.IsZero() || n.MTU != 1400 || n.TapOwner.GID != 108 || !n.NoGuard || n.Names["tap"] != "tap0" ||
		l.Duration != time.Hour || n.VMAlias.String() != "169.254.100.2" || n.VMAlias6.String() != "fd00:100::2" || len(l.DNS) != 2 || !slices.Equal(l.Search, []string{"example.org"}) || o.Model != "e1000e" {
		t.Errorf("%+v", o)
	}
}

// What an interface has inherited and does not go with what is given for it gives way.
func TestSetOverInherited(t *testing.T) {
	for text, want := range map[string]string{
		`{"vmPorts": "22"}`:        "redirect  22 169.254.100.2",
		`{"podPorts": "9100"}`:     "redirect 9100  169.254.100.2",
		`{"mtu": 1400}`:            "redirect 8080  169.254.100.2",
		`{"datapath": "redirect"}`: "redirect 8080  169.254.100.2",
		`{"datapath": "bridge"}`:   "bridge   invalid IP",
		`{"datapath": "bridge", "podPorts": "1", "vmAlias": "169.254.100.6"}`: "bridge 1  169.254.100.6",
		`{"podPorts": "1", "vmPorts": "2"}`:                                   "redirect 1 2 169.254.100.2",
	} {
		o, err := set(t, `{"datapath": "redirect", "podPorts": "8080", "vmAlias": "169.254.100.2"}`)
		if err != nil {
			t.Fatal(err)
		}
		var values map[string]json.RawMessage
		if err := errors.Join(json.Unmarshal([]byte(text), &values), o.Set(values)); err != nil {
			t.Fatal(err)
		}
		if n := o.Network; fmt.Sprintf("%s %s %s %s", n.Datapath, n.PodPorts, n.VMPorts, n.VMAlias) != want {
			t.Errorf("%s: %s, pod's ports %s, VM's %s, alias %s; want %s", text, n.Datapath, n.PodPorts, n.VMPorts, n.VMAlias, want)
		}
	}
}

// What is wrong is named by its key, all of it.
func TestSetErrors(t *testing.T) {
	for text, wants := range map[string][]string{
		`{"mtu": -1, "guard": "maybe"}`:                              {"mtu: -1: want a whole number", `guard: "maybe": want on or off`},
		`{"pod-ports": "80"}`:                                        {"pod-ports is not an option", "podPorts"},
		`{"dns": ["192.0.2.1", "x"]}`:                                {"dns:", "want an IP address"},
		`{"mac": {"a": 1}}`:                                          {"mac:", "want a text"},
		`{"vmAlias": "0.0.0.1"}`:                                     {"vmAlias:", "is not an IPv4 address that a host can have"},
		`{"vmAlias": ["169.254.100.2", "fd00::2", "169.254.100.6"]}`: {"vmAlias:", "169.254.100.2 is given already"},
		`{"vmAlias": ["fd00::2", "ff02::1"]}`:                        {"vmAlias:", "fd00::2 is given already"},
		`{"mac": null}`:                                              {"mac:", "want a text"},
		`{"mtu": 1e99}`:                                              {"mtu:", "want a whole number"},
		`{"tapOwner": 107, "queues": "zwei"}`:                        {"queues:"},
	} {
		_, err := set(t, text)
		for _, want := range wants {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q is not in: %v", text, want, err)
			}
		}
	}
}
