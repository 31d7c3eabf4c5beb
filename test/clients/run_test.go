package clients

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// patience is how long a client may take for what it does.
const patience = podtest.Patience

// background runs a command until the test's end.
func background(t *testing.T, name string, cmd *podtest.Cmd, end os.Signal) {
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

// isContent checks that the server has nothing to complain of.
func (at *seat) isContent(t *testing.T, c client) {
	t.Helper()
	l := at.lease
	var said status
	at.program.Status(t, &said)
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
