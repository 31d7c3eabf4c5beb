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

// results are what the clients did with the leases. Safe for use by several
// goroutines.
type results struct {
	mu sync.Mutex
	by map[string]result // by names of lease and client
}

func (r *results) add(l lease, c client, got result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.by[l.name+"/"+c.name] = got
}

func TestClients(t *testing.T) {
	fetch(t)
	all := &results{by: map[string]result{}}
	var work sync.WaitGroup
	for _, c := range clients() {
		if c.boot != nil {
			work.Go(func() {
				take := slices.DeleteFunc(everyLease(), func(l lease) bool { return !c.takes(l) })
				t.Run(c.name, func(t *testing.T) { takeInTurn(t, c, take, all) })
			})
		}
	}
	// They mostly wait, so more at once than there are processors.
	slots := make(chan struct{}, 12)
	cases := 0
	for _, l := range slices.Backward(everyLease()) { // those that wait longest first
		for _, c := range takers(l) {
			cases++
			start := c.starter(l)
			if start == nil {
				continue // takes its turn
			}
			slots <- struct{}{}
			work.Go(func() {
				defer func() { <-slots }()
				t.Run(l.name+"/"+c.name, func(t *testing.T) {
					at := l.serve(t)
					all.add(l, c, at.take(t, c, func() running { return start(t, c, at) }))
				})
			})
		}
	}
	work.Wait()
	// Not with -run or where some were skipped.
	if !t.Failed() && len(all.by) == cases {
		checkTable(t, all.by)
	}
}

// takeInTurn boots a client's machine, and has it take one lease after the other.
func takeInTurn(t *testing.T, c client, take []lease, all *results) {
	var seats []*seat
	for _, l := range take {
		seats = append(seats, l.serve(t))
	}
	vm := c.boot(t, seats)
	for i, at := range seats {
		t.Run(at.name, func(t *testing.T) {
			if i > 0 {
				vm.leave(t, i-1)
			}
			all.add(at.lease, c, at.take(t, c, func() running { return vm.take(t, i, at) }))
		})
	}
}

// running is a client at work in a guest.
type running interface {
	// state reads what the client has made of its lease until now.
	state(t *testing.T) state
	// renew asks a client to renew its lease before it would, if it can be asked.
	renew(t *testing.T)
}

// take has a client take the lease, as it is started.
func (at *seat) take(t *testing.T, c client, start func() running) result {
	tap := newWitness(t, at.pod)
	guest := start()
	tap.await(t, "grant", c.granted(at.lease))
	want := c.makes(at.lease)
	r := result{state: await(t, guest, want)}
	switch {
	case !at.renew:
	case !c.renews(at.lease):
		r.renewed = "none"
	default:
		guest.renew(t)
		m := tap.await(t, "renewal", at.renewal)
		switch {
		case m.broadcast && m.six:
			r.renewed = "multicast"
		case m.broadcast:
			r.renewed = "broadcast"
		default:
			r.renewed = "unicast"
		}
		tap.await(t, "grant", c.granted(at.lease))
		await(t, guest, want)
	}
	at.isContent(t, c)
	if on, ok := guest.(networked); ok {
		at.outlive(t, on, want)
	}
	if t.Failed() {
		t.Logf("seen: %v", tap.types())
	}
	c.record(t, at.lease, tap.seen)
	r.state = at.withoutAlias(r.state)
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
