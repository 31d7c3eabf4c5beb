package main

import (
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// A mistyped --state-dir is not taken for a pod that is not prepared.
func TestOtherStateDir(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Calico)
	if r := runCLI(t, "", podArgs(t, pod, "prepare")...); r.code != exitDone {
		t.Fatal(r.stderr)
	}
	for verb, want := range map[string]int{"status": exitDone, "status -o json": exitDone, "restore": exitFailed, "discover": exitFailed} {
		r := runCLI(t, "", podArgs(t, pod, strings.Fields(verb)...)...)
		said := r.stdout + r.stderr
		if r.code != want || !strings.Contains(said, "has no record of it") || !strings.Contains(said, "tap-eth0") || strings.Contains(said, "not prepared") {
			t.Errorf("%s: exit code %d, printed %s", verb, r.code, said)
		}
	}
}
