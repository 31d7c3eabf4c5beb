package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

const domainXML = `<domain type='qemu'><name>vm</name><devices/></domain>`

// podArgs are the flags for a pod in another namespace.
func podArgs(t *testing.T, pod *podtest.Pod, args ...string) []string {
	t.Helper()
	return append(args, "--netns", pod.Path(), "--state-dir", filepath.Join(t.TempDir(), "state"))
}

// What fails says so in one line that names the thing and the way out, and
// leaves the pod as it was.
func TestFailures(t *testing.T) {
	t.Parallel()
	notDir := filepath.Join(t.TempDir(), "file")
	badXML := filepath.Join(t.TempDir(), "network.xml")
	nameless := filepath.Join(t.TempDir(), "nameless.xml")
	goodXML := filepath.Join(t.TempDir(), "vm.xml")
	for path, content := range map[string]string{notDir: "", badXML: "<network/>", nameless: "<domain/>", goodXML: domainXML} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	silent := silentSocket(t)
	for _, c := range []struct {
		line string
		want []string
	}{
		{"plan -i eth7 --timeout 10ms", []string{"eth7", "there are: lo, eth0", "--interface"}},
		{"plan -i lo --timeout 10ms", []string{"lo"}},
		{"plan --netns /nowhere", []string{"/nowhere"}},
		{"plan --netns /etc/passwd", []string{"/etc/passwd: it is not a network namespace", "/proc/PID/ns/net"}},
		{"plan --netns /proc/self/ns/mnt", []string{"/proc/self/ns/mnt: it is not a network namespace"}},
		{"plan --resolv-conf /nowhere", []string{"/nowhere"}},
		{"plan --mtu 1000", []string{"MTU 1000", "1280", "no IPv6"}},
		{"plan --mtu 9000", []string{"MTU 9000", "eth0 carries"}},
		{"prepare --state-dir " + notDir + "/state", []string{notDir, "writable state directory"}},
		{"prepare --tap-name eth0", []string{"eth0 is used twice"}},
		{"serve", []string{"not prepared", "prepare it first"}},
		{"check", []string{"not prepared"}},
		{"check -i eth7", []string{"eth7", "not prepared"}},
		{"wait --for network --timeout 10ms", []string{"nobody serves", "start a server", "--state-dir"}},
		{"domain /nowhere.xml", []string{"/nowhere.xml"}},
		{"domain " + badXML, []string{badXML, "network", "domain"}},
		{"run --listen 192.0.2.1:80", []string{"probes and metrics", "192.0.2.1:80"}},
		{"run --listen unix:/nowhere/probes.sock", []string{"/nowhere/probes.sock"}},
		{"run --domain /nowhere.xml", []string{"/nowhere.xml"}},
		{"run --no-check --domain " + badXML, []string{badXML, "domain"}},
		{"run --no-check --domain " + nameless, []string{nameless, "has no <name>"}},
		{"run --no-check --domain " + goodXML + " --connect test+unix:///?socket=/nowhere", []string{"test+unix:///?socket=/nowhere", "--connect"}},
		{"run --no-check --start-timeout 1s --domain " + goodXML + " --connect test+unix:///?socket=" + silent, []string{silent, "no answer within 1s", "--start-timeout waits longer"}},
	} {
		t.Run(c.line, func(t *testing.T) {
			t.Parallel()
			pod := podtest.NewPod(t, podtest.CalicoDual)
			before := podtest.TakeSnapshot(t, pod.NS)
			args := podArgs(t, pod)
			r := runCLI(t, "", append(args, strings.Fields(c.line)...)...)
			lines := strings.Split(strings.TrimSpace(r.stderr), "\n")
			last := lines[len(lines)-1]
			if r.code != exitFailed || !strings.HasPrefix(last, "virt-launcher-net: ") {
				t.Errorf("exit code %d, printed %q", r.code, r.stderr)
			}
			for _, want := range c.want {
				if !strings.Contains(last, want) {
					t.Errorf("no %q in %q", want, last)
				}
			}
			if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
				t.Errorf("the pod has changed:\n%s", d)
			}
		})
	}
}

// silentSocket is a libvirt that takes connections and never answers.
func silentSocket(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "libvirt.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return path
}

// TestMain lets the test binary be the program, for tests in which it must have
// less than the tests.
func TestMain(m *testing.M) {
	if os.Getenv("VIRT_LAUNCHER_NET_TEST_MAIN") != "" {
		main()
	}
	os.Exit(m.Run())
}

func TestMissingPrivileges(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		wrap []string
		args []string
		want []string
	}{
		{
			"no NET_ADMIN",
			[]string{"setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin", "--"},
			[]string{"prepare"},
			[]string{"operation not permitted", "NET_ADMIN"},
		},
		{
			"no /dev/net/tun",
			[]string{"unshare", "-m", "sh", "-c", `mount -t tmpfs none /dev/net && exec "$0" "$@"`},
			[]string{"prepare"},
			[]string{"/dev/net/tun", "no such file", "hostPath"},
		},
		{
			"no /dev/net/tun, and only asked",
			[]string{"unshare", "-m", "sh", "-c", `mount -t tmpfs none /dev/net && exec "$0" "$@"`},
			[]string{"plan"},
			[]string{"/dev/net/tun", "no such file", "hostPath"},
		},
		{
			"unwritable state directory",
			[]string{"unshare", "-m", "sh", "-c", `mount -t tmpfs -o ro none /mnt && exec "$0" "$@"`},
			[]string{"prepare", "--state-dir", "/mnt/state"},
			[]string{"/mnt/state", "read-only", "writable state directory"},
		},
		{
			"no NET_RAW",
			[]string{"setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw", "--"},
			[]string{"run", "--no-check"},
			[]string{"operation not permitted", "NET_RAW"},
		},
		{
			"no SYS_ADMIN",
			[]string{"setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin", "--"},
			[]string{"prepare", "--netns", "/proc/self/ns/net"},
			[]string{"enter network namespace /proc/self/ns/net: operation not permitted", "SYS_ADMIN"},
		},
		{
			"not root",
			[]string{"unshare", "--user", "--map-user=65534", "--"},
			[]string{"prepare", "--netns", "/proc/self/ns/net"},
			[]string{"SYS_ADMIN", "not root's: sudo"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pod := podtest.NewPod(t, podtest.CalicoDual)
			before := podtest.TakeSnapshot(t, pod.NS)
			line := append(append([]string{}, c.wrap[1:]...), os.Args[0], "--state-dir", filepath.Join(t.TempDir(), "state"))
			cmd := pod.Command(t.Context(), c.wrap[0], append(line, c.args...)...)
			cmd.Env = append(os.Environ(), "VIRT_LAUNCHER_NET_TEST_MAIN=1")
			out, err := cmd.CombinedOutput()
			if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != exitFailed {
				t.Errorf("got %v: %s", err, out)
			}
			for _, want := range c.want {
				if !strings.Contains(string(out), want) {
					t.Errorf("no %q in: %s", want, out)
				}
			}
			if strings.Contains(string(out), "msg=prepared") {
				t.Errorf("it was found out after the first change: %s", out)
			}
			if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
				t.Errorf("the pod has changed:\n%s", d)
			}
		})
	}
}

// The verbs one after the other, as someone would type them.
func TestVerbs(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.CalicoDual)
	before := podtest.TakeSnapshot(t, pod.NS)
	common := podArgs(t, pod)
	run := func(stdin string, args ...string) string {
		t.Helper()
		r := runCLI(t, stdin, append(args, common...)...)
		if r.code != exitDone {
			t.Fatalf("%s: exit code %d: %s", strings.Join(args, " "), r.code, r.stderr)
		}
		return r.stdout
	}
	decode := func(text string, v any) {
		t.Helper()
		if err := json.Unmarshal([]byte(text), v); err != nil {
			t.Fatalf("%v in:\n%s", err, text)
		}
	}

	var discovered podView
	decode(run("", "discover", "-o", "json"), &discovered)
	if in := discovered.Interfaces[0]; in.Name != "eth0" || in.Addresses[0] != pod.IPv4 || in.Routes[0].Gateway != pod.Gateway {
		t.Errorf("discovered %+v", in)
	}
	if out := run("", "status", "-o", "json"); !strings.Contains(out, `"interfaces": []`) { // not null, which jq can't go through
		t.Errorf("status before: %s", out)
	}
	if out := run("", "plan"); !strings.Contains(out, "ip link set eth0 name up-eth0\n") {
		t.Errorf("planned:\n%s", out)
	}
	xml := run(domainXML, "domain", "-")
	var prepared struct {
		Interfaces []struct{ Name, Tap, MAC string }
	}
	for range 2 {
		decode(run("", "prepare", "-o", "json"), &prepared)
		if n := prepared.Interfaces[0]; n.Tap != "tap-eth0" || n.MAC != pod.MAC.String() {
			t.Errorf("prepared %+v", n)
		}
	}
	if again := run(xml, "domain", "-"); again != xml || !strings.Contains(xml, "tap-eth0") {
		t.Errorf("the domain was\n%s\nand is\n%s", xml, again)
	}
	var after podView
	decode(run("", "discover", "-o", "json"), &after)
	if after.Interfaces[0].Routes[0] != discovered.Interfaces[0].Routes[0] {
		t.Errorf("discover of a prepared pod says %+v", after)
	}

	// A process of its own: it gives up its privileges.
	serve := podtest.Command(t.Context(), nil, os.Args[0], append([]string{"serve", "--log-level", "error"}, common...)...)
	serve.Env = append(os.Environ(), "VIRT_LAUNCHER_NET_TEST_MAIN=1")
	serve.Stderr = os.Stderr
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	run("", "wait", "--for", "network", "--timeout", "60s")
	if out := run("", "check"); !strings.Contains(out, "offered "+pod.IPv4.Addr().String()) || !strings.Contains(out, "gateway "+pod.Gateway.String()) ||
		!strings.Contains(out, "router "+pod.IPv6Gateway.String()+" is at ") {
		t.Errorf("check says:\n%s", out)
	}
	var status struct {
		Server     struct{ Alive, Ready bool }
		Interfaces []struct {
			Lease struct{ State string }
			Links []struct {
				Name   string
				Exists bool
			}
		}
	}
	decode(run("", "status", "-o", "json"), &status)
	if !status.Server.Alive || !status.Server.Ready || status.Interfaces[0].Lease.State != "none" || len(status.Interfaces[0].Links) != 4 {
		t.Errorf("status is %+v", status)
	}
	if err := errors.Join(serve.Process.Signal(syscall.SIGTERM), serve.Wait()); err != nil {
		t.Errorf("serve ended with %v", err)
	}
	if out := run("", "status"); !strings.Contains(out, "nobody serves") {
		t.Errorf("status says:\n%s", out)
	}
	for _, want := range []string{"eth0", ""} { // the second time there is nothing to do
		var put struct{ Restored []string }
		out := run("", "restore", "-o", "json")
		decode(out, &put)
		if put.Restored == nil || strings.Join(put.Restored, " ") != want {
			t.Errorf("restored, want %q:\n%s", want, out)
		}
	}
	if out := run("", "restore"); out != "" {
		t.Errorf("restore prints:\n%s", out)
	}
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("after restore:\n%s", d)
	}
}

// startMain starts the program, which is this test binary, and returns once it has
// printed a line: it does so when it serves.
func startMain(cmd *podtest.Cmd) error {
	cmd.Env = append(os.Environ(), "VIRT_LAUNCHER_NET_TEST_MAIN=1")
	var said podtest.Buffer
	if cmd.Stderr == nil {
		cmd.Stderr = &said
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return fmt.Errorf("wait for what it prints once it serves: %w: %w: %s", err, cmd.Wait(), said.String())
	}
	return nil
}
