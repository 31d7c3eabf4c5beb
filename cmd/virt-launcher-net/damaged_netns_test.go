package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A program that has given up its privileges notices what becomes of the pod, the
// port guard included, and that it was put right; whoever asks is told.
func TestDamageIsTold(t *testing.T) {
	t.Parallel()
	c := newConfined(t, "0")
	probes := filepath.Join(c.stateDir, "probes.sock")
	both, admin := []string{"net_admin", "net_raw"}, []string{"net_admin"}
	for _, d := range []struct{ damage, says string }{
		{"nft delete table bridge virt-launcher-net-eth0", "the port guard is missing"},
		{"ip link set br-eth0 down", "br-eth0 is down, not up"},
	} {
		_, end := c.start(both, "run", "--listen", "unix:"+probes)
		c.must(nil, "wait", "--for", "network", "--timeout", "1m")
		words := strings.Fields(d.damage)
		c.pod.Run(t, words[0], words[1:]...)
		var out []byte
		for { // until it is noticed, that is
			var err error
			out, err = c.command(nil, "wait", "--for", "network", "--timeout", "1s").CombinedOutput()
			if err != nil && !strings.Contains(string(out), "does not answer") { // on a busy machine not within a second
				break
			}
		}
		for _, want := range []string{"wait for network: timed out after 1", "eth0: " + d.says, "run virt-launcher-net prepare"} {
			if !strings.Contains(string(out), want) {
				t.Errorf("wait says %s, without %q", out, want)
			}
		}
		if out := c.must(nil, "status"); !strings.Contains(out, "not as planned") || !strings.Contains(out, d.says) {
			t.Errorf("status says %s", out)
		}
		if out := ask(t, probes, "/readyz"); !strings.Contains(out, d.says) || !strings.HasSuffix(out, " 503") {
			t.Errorf("/readyz says %s", out)
		}
		if out := ask(t, probes, "/metrics"); !strings.Contains(out, "virt_launcher_net_ready 0\n") {
			t.Errorf("it is ready by the metrics:\n%s", out)
		}
		c.must(admin, "prepare")
		c.must(nil, "wait", "--for", "network", "--timeout", "1m")
		if out := c.must(nil, "status"); strings.Contains(out, "not as planned") {
			t.Errorf("status says %s", out)
		}
		end()
	}
	_, end := c.start([]string{"net_raw"}, "serve")
	if out := c.must(nil, "status"); !strings.Contains(out, "not watched: ") || !strings.Contains(out, "NET_ADMIN") {
		t.Errorf("status of who can't see the guard says %s", out)
	}
	end()
}

// ask returns what a probe is told, and the status code.
func ask(t *testing.T, socket, resource string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "curl", "-sS", "-w", " %{http_code}", "--unix-socket", socket, "http://probes"+resource).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", resource, err, out)
	}
	return string(out)
}
