package clients

import (
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// patience is how long a client may take for what it does.
const patience = time.Minute

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
	process  *os.Process
}

func (s *server) common() []string {
	return []string{"--netns", s.pod.Path(), "--state-dir", s.stateDir}
}

// start starts the program and waits until it listens.
func (s *server) start(t *testing.T, args []string) {
	t.Helper()
	cmd := s.pod.Node.Command(t.Context(), s.binary, append(append([]string{"run"}, args...), s.common()...)...)
	background(t, "virt-launcher-net", cmd, syscall.SIGTERM)
	s.process = cmd.Process
	s.verb(t, "wait", "--for", "network", "--timeout", patience.String())
}

// verb runs another verb of the program and returns what it prints.
func (s *server) verb(t *testing.T, args ...string) string {
	t.Helper()
	return s.pod.Node.Run(t, s.binary, append(args, s.common()...)...)
}

// kill kills the program.
func (s *server) kill(t *testing.T) {
	t.Helper()
	if err := s.process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = s.process.Wait()
}

// status is what the program says of its only interface.
type status struct {
	Lease, Lease6 leaseStatus
	Router        struct {
		Sent    map[string]uint64 `json:"sent"`
		Dropped map[string]uint64 `json:"dropped"`
	}
}

type leaseStatus struct {
	State   string            `json:"state"`
	Sent    map[string]uint64 `json:"sent"`
	Dropped map[string]uint64 `json:"dropped"`
	Notes   []string          `json:"notes"`
}

func (s *server) status(t *testing.T) status {
	t.Helper()
	var said struct {
		Interfaces []status `json:"interfaces"`
	}
	if err := json.Unmarshal([]byte(s.verb(t, "status", "-o", "json")), &said); err != nil || len(said.Interfaces) != 1 {
		t.Fatalf("status is %+v: %v", said, err)
	}
	return said.Interfaces[0]
}

// isContent checks that the server has nothing to complain of.
func (s *server) isContent(t *testing.T, c client, l lease) {
	t.Helper()
	said := s.status(t)
	lease := said.Lease
	if l.six {
		lease = said.Lease6
	}
	notes := slices.DeleteFunc(slices.Clone(lease.Notes), func(note string) bool {
		// Microsoft's copy of the routes, for a client that has them by 121.
		return strings.HasPrefix(note, "option 249 ")
	})
	// One that does not renew may have lost a lease that ends.
	lost := lease.State != "bound" && (c.renews(l) || !l.renew) && c.name != kernel
	if lost || len(lease.Dropped) != 0 || lease.Sent["NAK"] != 0 || len(notes) != 0 || l.six && (len(said.Router.Dropped) != 0 || len(said.Router.Sent) == 0) {
		t.Errorf("%s, given %s: the server says %+v", c.name, l.name, said)
	}
}
