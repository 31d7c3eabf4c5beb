package prepare_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// A record that somebody has changed does not widen the port guard.
func TestForgedRecord(t *testing.T) {
	t.Parallel()
	address := func(a, family string) func(plan map[string]any) {
		return func(plan map[string]any) {
			in := plan["interface"].(map[string]any)
			in["addresses"] = append(in["addresses"].([]any), map[string]any{"prefix": a, "scope": "global", "message": "AgAAAAAAAAA="})
			given := plan["wiring"].(map[string]any)["nic"].(map[string]any)[family].(map[string]any)
			if family == "ipv6" {
				given["address"] = a
			} else {
				given["addresses"] = append(given["addresses"].([]any), a)
			}
		}
	}
	for _, c := range []struct {
		name  string
		forge func(plan map[string]any)
		want  string
	}{
		{"IPv4 address", address("10.244.1.1/24", "ipv4"), "it gives the VM the address 10.244.1.1, which the port guard blocks"},
		{"IPv6 address", address("fd00:666::1/64", "ipv6"), "it gives the VM the address fd00:666::1, which the port guard blocks"},
	} {
		for _, datapath := range []string{"bridge", "redirect"} {
			t.Run(c.name+" "+datapath, func(t *testing.T) {
				t.Parallel()
				o := prepare.Options{Datapath: datapath}
				pod := podtest.NewPod(t, podtest.CalicoDual)
				before := podtest.TakeSnapshot(t, pod.NS)
				dir := t.TempDir()
				pod.In(t, func() error { return prepare.ApplyAll(t.Context(), dir, o, pod.Interface) })
				path := filepath.Join(dir, "eth0.json")
				genuine, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				var record map[string]any
				if err := json.Unmarshal(genuine, &record); err != nil {
					t.Fatal(err)
				}
				c.forge(record["plan"].(map[string]any))
				forged, err := json.Marshal(record)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, forged, 0o600); err != nil {
					t.Fatal(err)
				}
				refused(t, pod, dir, o, c.want, "was changed by something else")
				pod.In(t, func() error {
					if err := prepare.RestoreAll(t.Context(), dir); err == nil || !strings.Contains(err.Error(), c.want) {
						t.Errorf("restore: %v", err)
					}
					return os.WriteFile(path, genuine, 0o600)
				})
				pod.In(t, func() error { return prepare.RestoreAll(t.Context(), dir) })
				if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
					t.Errorf("after restore by the genuine one:\n%s", d)
				}
			})
		}
	}
}

// A record of what was never prepared is left out, whatever it says: the pod is
// read, and nothing of it is lost.
func TestRecordOfNothing(t *testing.T) {
	t.Parallel()
	for _, old := range []string{`"index": %d`, `"prefix": "%s"`} {
		for _, datapath := range []string{"bridge", "redirect"} {
			t.Run(old[1:6]+" "+datapath, func(t *testing.T) {
				t.Parallel()
				o := prepare.Options{Datapath: datapath}
				pod := podtest.NewPod(t, podtest.CalicoDual)
				before := podtest.TakeSnapshot(t, pod.NS)
				dir := t.TempDir()
				pod.In(t, func() error {
					p, err := prepare.ApplyOne(t.Context(), dir, o, pod.Interface)
					if err != nil {
						return err
					}
					record, err := os.ReadFile(filepath.Join(dir, "eth0.json"))
					if err != nil {
						return err
					}
					if err := prepare.RestoreAll(t.Context(), dir); err != nil {
						return err
					}
					replace := strings.NewReplacer(fmt.Sprintf(`"index": %d`, p.Interface.Index), `"index": 999`)
					if strings.Contains(old, "prefix") {
						a := p.NIC().Addresses()[0].String()
						replace = strings.NewReplacer(`"prefix": "`+a+`"`, `"prefix": "10.66.0.1/24"`)
					}
					return os.WriteFile(filepath.Join(dir, "eth0.json"), []byte(replace.Replace(string(record))), 0o600)
				})
				pod.In(t, func() error { return prepare.RestoreAll(t.Context(), dir) })
				if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
					t.Errorf("after restore:\n%s", d)
				}
				pod.In(t, func() error {
					p, err := prepare.ApplyOne(t.Context(), dir, o, pod.Interface)
					if err == nil && p.NIC().Addresses()[0] != pod.IPv4 {
						t.Errorf("the VM has %s, the pod %s", p.NIC().Addresses(), pod.IPv4)
					}
					return err
				})
				pod.In(t, func() error { return prepare.RestoreAll(t.Context(), dir) })
				if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
					t.Errorf("after prepare and restore:\n%s", d)
				}
			})
		}
	}
}
