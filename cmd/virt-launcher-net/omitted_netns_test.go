package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

// Whatever the VM does not get of what the pod has is said by discover, in the log,
// once, and by status.
func TestOmittedIsSaid(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.BridgeDual)
	pod.IP(t,
		"addr add 10.22.0.8/24 dev eth0",
		"addr add fd00:10:22::8/64 dev eth0 nodad",
		"route add 172.16.0.0/12 via 10.22.0.1 mtu 1300",
		"route add 172.31.0.0/16 via 10.22.0.1 table 100",
		"route add fd00:99::/64 via fd00:10:22::9 dev eth0",
		"route add blackhole 198.51.100.0/24")
	dir, common := t.TempDir(), podArgs(t, pod)
	resolv := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(resolv, []byte("nameserver 239.0.0.53\nnameserver 10.96.0.10\nsearch ok.example b*d.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	things := []string{
		"address 10.22.0.8/24", "address fd00:10:22::8/64", "a setting of route 172.16.0.0/12", "route 172.31.0.0/16",
		"route fd00:99::/64", "route blackhole 198.51.100.0/24", "DNS server 239.0.0.53", `search domain "b*d.example"`,
	}
	isSaid := func(who string, omitted []discover.Omission) {
		t.Helper()
		for _, thing := range things {
			found := 0
			for _, o := range omitted {
				if strings.HasPrefix(o.What, thing) && o.Why != "" {
					found++
				}
			}
			if found != 1 {
				t.Errorf("%s tells %d times of %s: %v", who, found, thing, omitted)
			}
		}
		if len(omitted) != len(things) {
			t.Errorf("%s tells of %d things, not %d: %v", who, len(omitted), len(things), omitted)
		}
	}
	type interfaces struct {
		Interfaces []struct{ Omitted []discover.Omission }
	}
	say := func(args ...string) (said interfaces) {
		t.Helper()
		args = slices.Concat(args, common)
		r := runCLI(t, "", args...)
		text := strings.Join(strings.Fields(r.stdout), " ")
		for _, thing := range things {
			if strings.Count(text, "left out "+thing) != 1 {
				t.Errorf("%v does not tell, once, of %s:\n%s", args, thing, r.stdout)
			}
		}
		if err := json.Unmarshal([]byte(runCLI(t, "", append(args, "-o", "json")...).stdout), &said); err != nil || len(said.Interfaces) != 1 {
			t.Fatalf("%v: %v, %+v", args, err, said)
		}
		return said
	}
	before := say("discover", "--resolv-conf", resolv)
	isSaid("discover", before.Interfaces[0].Omitted)

	var log podtest.Buffer
	cmd := podtest.Command(t.Context(), nil, os.Args[0], append([]string{"run", "--no-check", "--resolv-conf", resolv}, common...)...)
	cmd.Env = append(os.Environ(), "VIRT_LAUNCHER_NET_TEST_MAIN=1")
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	if r := runCLI(t, "", append([]string{"wait", "--for", "network", "--timeout", "60s"}, common...)...); r.code != exitDone {
		t.Fatal(r.stderr, log.String())
	}
	isSaid("status", say("status").Interfaces[0].Omitted)
	isSaid("discover of a prepared pod", say("discover", "--resolv-conf", resolv).Interfaces[0].Omitted)
	for _, thing := range things {
		if n := strings.Count(strings.ReplaceAll(log.String(), "\\", ""), "what=\""+thing); n != 1 {
			t.Errorf("the log tells %d times of %s:\n%s", n, thing, log.String())
		}
	}
}
