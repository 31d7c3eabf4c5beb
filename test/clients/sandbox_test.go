package clients

import (
	"context"
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

//go:embed sandbox
var scripts embed.FS

// newGuest seats a guest at the pod's tap whose eth0 is of a kind that all
// clients take for Ethernet, as they would a virtio device; a tap is not.
func newGuest(t *testing.T, pod *podtest.Pod) *podtest.Guest {
	t.Helper()
	guest := podtest.NewGuest(t, pod.NS, "tap-eth0", pod.MAC)
	guest.IP(t,
		"link set eth0 down",
		"link set eth0 name nic address 02:00:00:00:00:01",
		"link add wire type bridge forward_delay 0 mcast_snooping 0",
		"link add eth0 address "+pod.MAC.String()+" type veth peer name plug")
	for _, device := range []string{"nic", "wire", "plug"} { // they only pass on
		if err := guest.Sysctl("net/ipv6/conf/"+device+"/disable_ipv6", "1"); err != nil {
			t.Fatal(err)
		}
	}
	guest.IP(t,
		"link set nic master wire up",
		"link set plug master wire up",
		"link set wire up",
		"link set eth0 up")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := podtest.WaitSettled(ctx, guest.NS); err != nil {
		t.Fatal(err)
	}
	return guest
}

// sandbox is a client at work in a guest, in namespaces of its own.
type sandbox struct {
	guest  *podtest.Guest
	script string
	root   string // of the clients that are not installed
	pid    int
}

// inSandbox starts a client in a guest without a virtual machine.
func inSandbox(t *testing.T, c client, at *seat) running {
	t.Helper()
	return startIn(t, newGuest(t, at.pod), c.name, "start")
}

// startIn has a client's script start it in a guest. It ends with the test, and
// all its processes with it.
func startIn(t *testing.T, guest *podtest.Guest, name, verb string) *sandbox {
	t.Helper()
	r := &sandbox{guest: guest, root: filepath.Join(podtest.Built(t, "clients"), "root")}
	for _, file := range []string{"common.sh", name + ".sh"} {
		text, err := scripts.ReadFile("sandbox/" + file)
		if err != nil {
			t.Fatal(err)
		}
		r.script += string(text)
	}
	cmd := guest.NS.Command(t.Context(), "unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc",
		"sh", "-c", r.script, name, verb)
	cmd.Env = append(os.Environ(), "CLIENTS="+r.root)
	background(t, name, cmd, syscall.SIGKILL)
	r.pid = cmd.Process.Pid
	return r
}

// do runs the client's script in the client's namespaces.
func (c *sandbox) do(t *testing.T, verb string) string {
	t.Helper()
	cmd := podtest.Command(t.Context(), nil, "nsenter", "--target", fmt.Sprint(c.pid), "--net", "--mount", "--uts",
		fmt.Sprintf("--pid=/proc/%d/ns/pid_for_children", c.pid), "--", "sh", "-c", c.script, "client", verb)
	out, _ := cmd.Output() // files that the client has not written yet
	return string(out)
}

func (c *sandbox) renew(t *testing.T) { c.do(t, "renew") }

func (c *sandbox) state(t *testing.T) state {
	t.Helper()
	ip := func(args ...string) []byte {
		return []byte(c.guest.NS.Run(t, "ip", append([]string{"-json"}, args...)...))
	}
	s := kernelState(t, ip("address", "show", "dev", "eth0"), ip("-4", "route", "show"))
	c.told(t, &s)
	return s
}

// told reads what the client told programs: a line each, a word first.
func (c *sandbox) told(t *testing.T, s *state) {
	t.Helper()
	for line := range strings.Lines(c.do(t, "state")) {
		if words := strings.Fields(line); len(words) > 0 {
			s.say(t, words[0], words[1:]...)
		}
	}
}
