package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// confined runs the program as a container runtime would: in the pod, with a
// read-only root file system and a read-only /proc/sys, no_new_privs, and no
// capability but those given.
type confined struct {
	t        *testing.T
	pod      *podtest.Pod
	program  string
	stateDir string
	user     string // its numeric id
}

func newConfined(t *testing.T, user string) confined {
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { //nolint:gosec // another user comes through
		t.Fatal(err)
	}
	c := confined{t, podtest.NewPod(t, podtest.CalicoDual), filepath.Join(dir, "virt-launcher-net"), filepath.Join(dir, "state"), user}
	if err := os.Mkdir(c.stateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.program, program, 0o755); err != nil { //nolint:gosec // another user runs it
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "chown", user, c.stateDir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return c
}

const confine = `set -e
mount --bind "$1" "$1"
mount -t tmpfs none /dev/net
mknod -m 0666 /dev/net/tun c 10 200
mount -o remount,bind,ro /
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
user=$2 caps=$3
shift 3
if [ "$user" = 0 ]
then exec setpriv --bounding-set="$caps" --inh-caps=-all --no-new-privs "$@"
else exec setpriv --reuid "$user" --regid "$user" --clear-groups --bounding-set="$caps" --inh-caps="$caps" --ambient-caps="$caps" --no-new-privs "$@"
fi`

func (c confined) command(caps []string, args ...string) *podtest.Cmd {
	set := "-all"
	for _, name := range caps {
		set += ",+" + name
	}
	line := append([]string{"-m", "sh", "-c", confine, "sh", c.stateDir, c.user, set, c.program, "--state-dir", c.stateDir}, args...)
	cmd := c.pod.Command(c.t.Context(), "unshare", line...)
	cmd.Env = append(os.Environ(), "VIRT_LAUNCHER_NET_TEST_MAIN=1")
	cmd.Stdin = strings.NewReader(domainXML)
	return cmd
}

func (c confined) must(caps []string, args ...string) string {
	c.t.Helper()
	out, err := c.command(caps, args...).CombinedOutput()
	if err != nil {
		c.t.Fatalf("%v with %v: %v: %s", args, caps, err, out)
	}
	return string(out)
}

// lacking must fail and name what it lacks, and leave the pod alone.
func (c confined) lacking(name string, caps []string, args ...string) {
	c.t.Helper()
	before := podtest.TakeSnapshot(c.t, c.pod.NS)
	out, err := c.command(caps, args...).CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != exitFailed || !strings.Contains(string(out), name) {
		c.t.Errorf("%v with %v: %v: %s", args, caps, err, out)
	}
	if d := podtest.Diff(before, podtest.TakeSnapshot(c.t, c.pod.NS)); d != "" {
		c.t.Errorf("%v with %v changed the pod:\n%s", args, caps, d)
	}
}

// start starts a verb that stays and returns once it has printed its table, and
// how to end it.
func (c confined) start(caps []string, args ...string) (process *os.Process, end func()) {
	c.t.Helper()
	cmd := c.command(caps, args...)
	var log podtest.Buffer
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		c.t.Fatalf("%v with %v: %v: %s", args, caps, errors.Join(err, cmd.Wait()), log.String())
	}
	return cmd.Process, func() {
		c.t.Helper()
		if err := errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()); err != nil {
			c.t.Errorf("%v ended with %v: %s", args, err, log.String())
		}
	}
}

// What each verb needs; docs/operations.md says the same.
func TestLeastPrivilege(t *testing.T) {
	t.Parallel()
	admin, raw, both := []string{"net_admin"}, []string{"net_raw"}, []string{"net_admin", "net_raw"}
	filter := []string{"net_admin", "bpf", "perfmon"}
	for _, user := range []string{"0", "1000"} {
		t.Run("uid "+user, func(t *testing.T) {
			t.Parallel()
			c := newConfined(t, user)
			before := podtest.TakeSnapshot(t, c.pod.NS)
			c.must(nil, "discover")
			c.must(nil, "plan")
			c.must(nil, "domain", "-")
			c.lacking("NET_ADMIN", raw, "prepare")
			c.lacking("NET_ADMIN", raw, "run")
			c.lacking("NET_RAW", admin, "run", "--no-check")
			for range 2 {
				c.must(admin, "prepare")
			}
			c.lacking("NET_ADMIN", nil, "restore")
			c.lacking("NET_RAW", nil, "serve")
			_, end := c.start(raw, "serve")
			c.must(nil, "wait", "--for", "network", "--timeout", "60s")
			if out := c.must(nil, "check"); !strings.Contains(out, "offered") {
				t.Errorf("check says %s", out)
			}
			if out := c.must(nil, "status"); !strings.Contains(out, "tap-eth0") {
				t.Errorf("status says %s", out)
			}
			end()
			if out := c.must(nil, "status"); !strings.Contains(out, "off: it is not loaded: prepare needs the capabilities BPF and PERFMON") {
				t.Errorf("status says %s", out)
			}
			if out := c.must(admin, "prepare"); strings.Count(out, "no checksum filter") != 1 || strings.Contains(out, "msg=prepared") {
				t.Errorf("prepare without BPF says %s", out)
			}
			for _, want := range []string{"msg=prepared", ""} {
				if out := c.must(filter, "prepare"); strings.Contains(out, "no checksum filter") || strings.Contains(out, "msg=prepared") != (want != "") {
					t.Errorf("prepare with BPF says %s", out)
				}
			}
			if out := c.must(nil, "status", "-o", "json"); !strings.Contains(out, `"checksumFilter": true`) {
				t.Errorf("status says %s", out)
			}
			c.must(admin, "restore")
			if d := podtest.Diff(before, podtest.TakeSnapshot(t, c.pod.NS)); d != "" {
				t.Errorf("after restore:\n%s", d)
			}
			_, end = c.start(both, "run")
			end()
		})
	}
}

var capabilities = regexp.MustCompile(`(?m)^(CapInh|CapPrm|CapEff|CapAmb|NoNewPrivs):\s+(\S+)$`)

// threads returns what each thread of a process may do, each thing once.
func threads(t *testing.T, pid int) []string {
	t.Helper()
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(paths) < 2 {
		t.Fatalf("the threads of %d are %v: %v", pid, paths, err)
	}
	var all []string
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range capabilities.FindAllStringSubmatch(string(b), -1) {
			all = append(all, m[1]+" "+m[2])
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Once it listens, the program can do nothing that any process couldn't, and
// still serves. For metrics it keeps NET_ADMIN at hand, but not in effect.
func TestGivesUpPrivileges(t *testing.T) {
	t.Parallel()
	program := newConfined(t, "0").program
	pod := podtest.NewPod(t, podtest.CalicoDual)
	stateDir := t.TempDir()
	probes := filepath.Join(stateDir, "probes.sock")
	const none, netAdmin = "0000000000000000", "0000000000001000"
	for _, c := range []struct {
		args      []string
		permitted string
	}{
		{[]string{"run"}, none},
		{[]string{"serve"}, none},
		{[]string{"run", "--listen", "unix:" + probes}, netAdmin},
		{[]string{"run", "--netns", pod.Path(), "--listen", "unix:" + probes}, netAdmin},
		{[]string{"run", "--restore"}, netAdmin},
	} {
		cmd := pod.Command(t.Context(), program, append(c.args, "--state-dir", stateDir)...)
		if slices.Contains(c.args, "--netns") { // from elsewhere
			cmd = podtest.Command(t.Context(), nil, program, append(c.args, "--state-dir", stateDir)...)
		}
		if err := startMain(cmd); err != nil {
			t.Fatal(err)
		}
		guest, err := podtest.StartGuest(t.Context(), pod.NS, "tap-eth0", pod.MAC)
		if err != nil {
			t.Fatal(err)
		}
		if lease, err := guest.Udhcpc(t.Context()); err != nil || lease["ip"] != pod.IPv4.Addr().String() {
			t.Errorf("%v leases %v: %v", c.args, lease, err)
		}
		if slices.Contains(c.args, "--listen") {
			checkMetrics(t, probes)
		}
		want := []string{"CapAmb " + none, "CapEff " + none, "CapInh " + none, "CapPrm " + c.permitted, "NoNewPrivs 1"}
		if got := threads(t, cmd.Process.Pid); !slices.Equal(got, want) {
			t.Errorf("%v has %v", c.args, got)
		}
		if err := guest.Close(); err != nil {
			t.Error(err)
		}
		if err := errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()); err != nil {
			t.Errorf("%v ended with %v", c.args, err)
		}
		if out := pod.Run(t, "ip", "-o", "link"); strings.Contains(out, "tap-eth0") == slices.Contains(c.args, "--restore") {
			t.Errorf("%v left\n%s", c.args, out)
		}
		if left, err := filepath.Glob(filepath.Join(stateDir, "*.sock")); err != nil || len(left) > 0 {
			t.Errorf("%v left %v", c.args, left)
		}
	}
}

// checkMetrics looks at what a running program tells of a guest with a lease.
func checkMetrics(t *testing.T, socket string) {
	t.Helper()
	get := func(resource string) string {
		out, err := exec.CommandContext(t.Context(), "curl", "-sS", "--fail", "--unix-socket", socket, "http://probes"+resource).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v: %s", resource, err, out)
		}
		return string(out)
	}
	get("/healthz")
	get("/readyz")
	metrics := get("/metrics")
	for _, want := range []string{
		`virt_launcher_net_dhcp_lease_state{interface="eth0",protocol="dhcpv4",state="bound"} 1`,
		`virt_launcher_net_messages_sent_total{interface="eth0",protocol="dhcpv4",type="ACK"}`,
		`virt_launcher_net_guard_dropped_packets_total{direction="from_guest",interface="eth0",reason="forged-ip"} 0`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s in:\n%s", want, metrics)
		}
	}
	if want := regexp.MustCompile(`\nvirt_launcher_net_prepare_duration_seconds \d+\.\d+\n`); !want.MatchString(metrics) {
		t.Errorf("no %v in:\n%s", want, metrics)
	}
}
