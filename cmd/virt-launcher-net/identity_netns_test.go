package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// Who is in the pod's namespace itself has the pod's name; who names it from
// elsewhere has not.
func TestHostnameIsThePods(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Calico)
	program := podtest.Built(t, "virt-launcher-net")
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "state")
	for _, c := range []struct {
		ns   *podtest.NS
		args []string
		want string
	}{
		{pod.NS, nil, name},
		{pod.NS, []string{"--netns", "/proc/self/ns/net"}, name},
		{pod.Node, []string{"--netns", pod.Path()}, ""},
	} {
		var got podView
		text := c.ns.Run(t, program, append([]string{"discover", "-o", "json", "--state-dir", dir}, c.args...)...)
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatal(err)
		}
		if got.Hostname != c.want || (got.DNS.Unknown != "") != (c.want == "") {
			t.Errorf("%q: hostname %q, DNS %+v", c.args, got.Hostname, got.DNS)
		}
	}
}
