package prestart_test

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// A pod that another version of the program prepared, which planned it otherwise, is served
// as it was prepared: what a session finds not as planned nobody could repair.
func TestPreparedByAnotherVersion(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.CalicoDual)
	h := newHook(t, pod)
	h.SkipCheck = true
	if _, err := h.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	// This one had the kernel answer for one neighbor more.
	router := guest.Neighbor{Address: netip.MustParseAddr("fe80::1234"), MAC: mac.Addr{2, 0, 0, 0, 0, 0x99}}
	answerToo(t, filepath.Join(h.StateDir, "eth0.json"), router)
	for _, what := range []string{"upgraded", "started again"} {
		session := run(t, h)
		if s := session.Status(); !s.Ready || len(s.Interfaces[0].Differences) > 0 {
			t.Errorf("%s: not ready: %+v", what, s.Interfaces[0].Differences)
		}
		if err := session.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// answerToo has the record's NIC answer for a neighbor.
func answerToo(t *testing.T, path string, n guest.Neighbor) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var record map[string]any
	if err := json.Unmarshal(text, &record); err != nil {
		t.Fatal(err)
	}
	nic := record["plan"].(map[string]any)["wiring"].(map[string]any)["nic"].(map[string]any)
	answers, _ := nic["answers"].([]any)
	nic["answers"] = append(answers, n)
	if text, err = json.Marshal(record); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}
