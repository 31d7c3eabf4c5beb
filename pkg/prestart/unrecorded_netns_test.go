package prestart_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// A pod that is prepared, and whose record can't be used, is not taken for one
// that is not: each verb says what is there and what can be done. With the
// record found again the pod can be put back.
func TestUnrecorded(t *testing.T) {
	t.Parallel()
	there := "br-eth0, up-eth0, tap-eth0"
	if podtest.Datapath(t) == redirect {
		there = "tap-eth0"
	}
	for _, c := range []struct {
		name string
		lose func(t *testing.T, h *prestart.Hook)
		want []string
	}{
		{
			"other directory",
			func(t *testing.T, h *prestart.Hook) { h.StateDir = t.TempDir() },
			[]string{"eth0 is prepared (there are " + there + ")", "no record of it", "state directory", "recreate the pod"},
		},
		{
			"damaged",
			func(t *testing.T, h *prestart.Hook) {
				if err := os.WriteFile(filepath.Join(h.StateDir, "eth0.json"), []byte("{"), 0o600); err != nil {
					t.Fatal(err)
				}
			},
			[]string{"eth0 is prepared", "eth0.json", "damaged", "recreate the pod"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pod := podtest.NewPod(t, podtest.CalicoDual)
			before := podtest.TakeSnapshot(t, pod.NS)
			h := newHook(t, pod)
			if _, err := h.Prepare(t.Context()); err != nil {
				t.Fatal(err)
			}
			whole := h
			record, err := os.ReadFile(filepath.Join(h.StateDir, "eth0.json"))
			if err != nil {
				t.Fatal(err)
			}
			c.lose(t, &h)
			for verb, do := range map[string]func() error{
				"discover": func() error { _, err := h.Discover(t.Context()); return err },
				"plan":     func() error { _, err := h.Plan(t.Context()); return err },
				"serve":    func() error { _, err := h.Serve(t.Context()); return err },
				"check":    func() error { _, err := h.Check(t.Context()); return err },
				"run":      func() error { _, err := h.Run(t.Context()); return err },
				"restore":  func() error { _, err := h.Restore(t.Context()); return err },
				"restore of eth0": func() error {
					h := h
					h.Interfaces = []string{"eth0"}
					_, err := h.Restore(t.Context())
					return err
				},
				"status": func() error {
					status, err := h.Status(t.Context())
					if err != nil || status.Prepared || len(status.Unrecorded) != 1 {
						t.Errorf("status is %+v, error %v", status, err)
						return nil
					}
					return status.Unrecorded[0]
				},
			} {
				err := do()
				for _, want := range c.want {
					if err == nil || !strings.Contains(err.Error(), want) {
						t.Errorf("%s: no %q in: %v", verb, want, err)
					}
				}
			}
			if err := os.WriteFile(filepath.Join(whole.StateDir, "eth0.json"), record, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := whole.Restore(t.Context()); err != nil {
				t.Fatal(err)
			}
			if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
				t.Errorf("after restore by the record:\n%s", d)
			}
		})
	}
}

// What is not prepared needs no restoring, and is not said to be.
func TestRestoreOfAnother(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Calico)
	h := newHook(t, pod)
	if _, err := h.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ interfaces, want string }{
		{"eth1", "nothing to restore: the interface is not prepared\" interface=eth1"},
		{"eth1 eth0", "nothing to restore: the interface is not prepared\" interface=eth1"},
		{"", "nothing to restore: no interface is recorded as prepared"},
	} {
		var said bytes.Buffer
		h.Log = slog.New(slog.NewTextHandler(&said, nil))
		h.Interfaces = strings.Fields(c.interfaces)
		if _, err := h.Restore(t.Context()); err != nil {
			t.Error(err)
		}
		if !strings.Contains(said.String(), c.want) || strings.Contains(said.String(), "restored") != (c.interfaces == "eth1 eth0") {
			t.Errorf("restore of %q says %s", c.interfaces, said.String())
		}
	}
}
