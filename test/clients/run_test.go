package clients

import (
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// patience is how long a client may take for what it does.
const patience = 30 * time.Second

//go:embed sandbox
var scripts embed.FS

// background runs a command until the test's end.
func background(t *testing.T, name string, cmd *exec.Cmd, end os.Signal) {
	t.Helper()
	out := &podtest.Buffer{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(end) // an error: it has ended
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s printed:\n%s", name, out)
		}
	})
}

// server is the program in a pod.
type server struct {
	binary   string
	pod      *podtest.Pod
	stateDir string
}

func (s *server) common() []string {
	return []string{"--netns", s.pod.Pod.Path(), "--state-dir", s.stateDir}
}

// start starts the program and waits until it listens.
func (s *server) start(t *testing.T, args []string) {
	t.Helper()
	cmd := s.pod.Node.Command(t.Context(), s.binary, append(append([]string{"run"}, args...), s.common()...)...)
	background(t, "virt-launcher-net", cmd, syscall.SIGTERM)
	s.verb(t, "wait", "--for", "network", "--timeout", patience.String())
}

// verb runs another verb of the program and returns what it prints.
func (s *server) verb(t *testing.T, args ...string) string {
	t.Helper()
	return s.pod.Node.Run(t, s.binary, append(args, s.common()...)...)
}

// leaseStatus is what the server says of its only lease.
type leaseStatus struct {
	State   string            `json:"state"`
	Sent    map[string]uint64 `json:"sent"`
	Dropped map[string]uint64 `json:"dropped"`
	Notes   []string          `json:"notes"`
}

func (s *server) lease(t *testing.T) leaseStatus {
	t.Helper()
	var status struct {
		Interfaces []struct {
			Lease leaseStatus `json:"lease"`
		} `json:"interfaces"`
	}
	if err := json.Unmarshal([]byte(s.verb(t, "status", "-o", "json")), &status); err != nil || len(status.Interfaces) != 1 {
		t.Fatalf("status is %+v: %v", status, err)
	}
	return status.Interfaces[0].Lease
}

// isContent checks that the server has nothing to complain of.
func (s *server) isContent(t *testing.T, c client, l lease) {
	t.Helper()
	status := s.lease(t)
	notes := slices.DeleteFunc(slices.Clone(status.Notes), func(note string) bool {
		// Microsoft's copy of the routes, for a client that has them by 121.
		return strings.HasPrefix(note, "option 249 ")
	})
	if status.State != "bound" || len(status.Dropped) != 0 || status.Sent["NAK"] != 0 || len(notes) != 0 {
		t.Errorf("%s, given %s: the server says %+v", c.name, l.name, status)
	}
}

// newGuest seats a guest at the pod's tap whose eth0 is of a kind that all
// clients take for Ethernet, as they would a virtio device; a tap is not.
func newGuest(t *testing.T, pod *podtest.Pod) *podtest.Guest {
	t.Helper()
	guest := podtest.NewGuest(t, pod.Pod, "tap-eth0", pod.MAC)
	guest.IP(t,
		"link set eth0 down",
		"link set eth0 name nic address 02:00:00:00:00:01",
		"link add wire type bridge forward_delay 0 mcast_snooping 0",
		"link add eth0 address "+pod.MAC.String()+" type veth peer name plug",
		"link set nic master wire addrgenmode none up",
		"link set plug master wire addrgenmode none up",
		"link set wire addrgenmode none up",
		"link set eth0 up")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := podtest.WaitSettled(ctx, guest.NS); err != nil {
		t.Fatal(err)
	}
	return guest
}

// running is a client at work in a guest, in namespaces of its own.
type running struct {
	guest  *podtest.Guest
	script string
	root   string // of the clients that are not installed
	pid    int
}

// start starts a client in the guest. It ends with the test, and all its
// processes with it.
func (c client) start(t *testing.T, guest *podtest.Guest) *running {
	t.Helper()
	r := &running{guest: guest, root: filepath.Join(podtest.Built(t, "clients"), "root")}
	for _, name := range []string{"common.sh", c.name + ".sh"} {
		text, err := scripts.ReadFile("sandbox/" + name)
		if err != nil {
			t.Fatal(err)
		}
		r.script += string(text)
	}
	cmd := guest.NS.Command(t.Context(), "unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc",
		"sh", "-c", r.script, c.name, "start")
	cmd.Env = append(os.Environ(), "CLIENTS="+r.root)
	background(t, c.name, cmd, syscall.SIGKILL)
	r.pid = cmd.Process.Pid
	return r
}

// do runs the client's script in the client's namespaces.
func (c *running) do(t *testing.T, verb string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "nsenter", "--target", fmt.Sprint(c.pid), "--net", "--mount", "--uts",
		fmt.Sprintf("--pid=/proc/%d/ns/pid_for_children", c.pid), "--", "sh", "-c", c.script, "client", verb)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, _ := cmd.Output() // files that the client has not written yet
	return string(out)
}
