// Package clients lets real DHCP clients judge the built program: each takes
// leases of several shapes from it, in a guest behind a pod's tap.
package clients

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

var update = flag.Bool("update", false, "write docs/clients.md and the recorded messages anew")

// result is what a client did with a lease.
type result struct {
	state   state
	renewed string // how; empty: the lease has no end
}

func TestClients(t *testing.T) {
	fetch(t)
	var mu sync.Mutex
	results := map[string]result{}
	// They mostly wait, so more at once than there are processors.
	slots := make(chan struct{}, 8)
	var all sync.WaitGroup
	for _, l := range slices.Backward(leases()) { // those that wait longest first
		for _, c := range clients() {
			slots <- struct{}{}
			all.Go(func() {
				defer func() { <-slots }()
				t.Run(l.name+"/"+c.name, func(t *testing.T) {
					r := take(t, c, l)
					mu.Lock()
					defer mu.Unlock()
					results[l.name+"/"+c.name] = r
				})
			})
		}
	}
	all.Wait()
	// Not with -run or where some were skipped.
	if !t.Failed() && len(results) == len(leases())*len(clients()) {
		checkTable(t, results)
	}
}

// take has a client take a lease.
func take(t *testing.T, c client, l lease) result {
	pod, server := l.serve(t)
	tap := newWitness(t, pod)
	guest := newGuest(t, pod)
	running := c.start(t, guest)

	tap.await(t, "ACK", isAck)
	r := result{state: running.await(t, c.makes(l))}
	if l.renew {
		running.do(t, "renew")
		renewal := tap.await(t, "renewal", isRenewal)
		r.renewed = "unicast"
		if renewal.broadcast {
			r.renewed = "broadcast"
		}
		tap.await(t, "ACK", isAck)
		running.await(t, c.makes(l))
	}
	server.isContent(t, c, l)
	if t.Failed() {
		t.Logf("seen: %v", tap.types())
	}
	c.record(t, l, tap.seen)
	return r
}

// fetch gets the clients that are not installed.
func fetch(t *testing.T) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "fetch.sh", filepath.Join(podtest.Built(t, "."), "clients"))
	if out, err := cmd.CombinedOutput(); err != nil {
		if os.Getenv("ALLOW_SKIP") == "1" {
			t.Skipf("needs Debian's packages of the clients: %v", err)
		}
		t.Fatalf("fetch clients: %v\n%s", err, out)
	}
}
