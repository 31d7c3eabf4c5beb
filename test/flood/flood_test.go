// Package flood tests the built program against a guest that means harm.
package flood_test

import (
	"errors"
	"flag"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

var floodTime = flag.Duration("flood", 5*time.Second, "how long the hostile guest floods")

// What may be more after the flood than before, and what it may cost.
const (
	// Go's collector leaves garbage until the heap has grown to its goal, and
	// keeps the pages for a while.
	moreRSS = 3 << 20
	// A thread of the Go runtime takes the place of one blocked in a system call.
	moreThreads = 2
	// Share of one CPU during the flood.
	mostCPU = 0.10
	// What the guest may have written into the log.
	mostLog = 64 << 10
)

// family is what the flood of IPv4 and that of IPv6 differ in.
type family struct {
	name    string
	shape   podtest.Shape
	kinds   func(*testing.T, *server) kinds
	clients []func(*server, *testing.T) // decent guests, of which each must get its lease at once
	parts   []part
}

// part is a part of the status, and what it must have counted after the flood.
type part struct {
	name              string
	received, dropped []string
}

func families() []family {
	return []family{
		{
			name: "IPv4", shape: podtest.Flannel, kinds: kinds4,
			clients: []func(*server, *testing.T){(*server).udhcpc},
			parts: []part{
				{
					name:     "lease",
					received: []string{"DISCOVER", "REQUEST", "INFORM"},
					dropped:  []string{"over-budget", "bad-frame", "bad-checksum", "other-source", "other-client", "relayed", "malformed"},
				},
			},
		},
		{
			name: "IPv6", shape: podtest.CalicoDual, kinds: kinds6,
			// The flood was none of DHCPv4's: that serves as before.
			clients: []func(*server, *testing.T){(*server).raw6, (*server).dhclient6, (*server).udhcpc},
			parts: []part{
				{
					name:     "lease6",
					received: []string{"SOLICIT", "REQUEST", "RENEW", "REBIND", "CONFIRM", "RELEASE", "DECLINE", "INFORMATION-REQUEST", "OTHER"},
					dropped: []string{
						"over-budget", "bad-frame", "bad-checksum", "other-source", "relayed", "malformed",
						"unexpected-type", "other-server", "unicast", "no-address",
					},
				},
				{
					name:     "router",
					received: []string{"RS"},
					dropped:  []string{"over-budget", "bad-frame", "bad-checksum", "other-source", "bad-hop-limit", "malformed"},
				},
			},
		},
	}
}

// TestFlood: whatever a guest sends, and as much as it can, the server is what
// it was before, and the guest has its lease as soon as it asks decently.
func TestFlood(t *testing.T) {
	for _, f := range families() {
		t.Run(f.name, func(t *testing.T) {
			s := serve(t, f.shape)
			f.ask(t, s)
			frames := f.kinds(t, s).some()
			s.flood(t, frames, *floodTime/3) // what the runtime allocates once is there then
			before := s.usage(t)
			start := time.Now()
			sent := s.flood(t, frames, *floodTime)
			took := time.Since(start)
			after := s.usage(t)
			f.ask(t, s)
			leased := s.usage(t)

			share := (after.cpu - before.cpu).Seconds() / took.Seconds()
			t.Logf("%d frames in %v: CPU %.1f %%, RSS %d → %d KiB, threads %d → %d, descriptors %d → %d",
				sent, took.Round(time.Millisecond), 100*share, before.rss>>10, leased.rss>>10,
				before.threads, leased.threads, before.files, leased.files)
			leased.notMoreThan(t, before)
			if share > mostCPU {
				t.Errorf("the flood took %.1f %% of a CPU", 100*share)
			}
			for _, p := range f.parts {
				p.check(t, s)
			}
			if len(s.log()) > mostLog {
				t.Errorf("the guest wrote %d bytes into the log", len(s.log()))
			}
		})
	}
}

// TestLink: the server outlives its tap going down and up, and one guest after
// the other, also such that did not get to ask.
func TestLink(t *testing.T) {
	for _, f := range families() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, f.shape)
			f.ask(t, s)
			soonest := f.clients[0]
			for range 3 {
				s.pod.IP(t, "link set "+s.tap+" down", "link set "+s.tap+" up")
				soonest(s, t)
				s.leaveDown(t)
				soonest(s, t)
			}
			f.ask(t, s)
			if lease := f.parts[0].name; s.status(t, lease).State != "bound" {
				t.Errorf("the %s is %s", lease, s.status(t, lease).State)
			}
		})
	}
}

// ask seats all decent guests, one after the other.
func (f family) ask(t *testing.T, s *server) {
	t.Helper()
	for _, ask := range f.clients {
		ask(s, t)
	}
}

func (p part) check(t *testing.T, s *server) {
	t.Helper()
	status := s.status(t, p.name)
	t.Logf("%s: received %v, dropped %v", p.name, status.Received, status.Dropped)
	for _, typ := range p.received {
		if status.Received[typ] == 0 {
			t.Errorf("%s: no %s was looked at", p.name, typ)
		}
	}
	for _, reason := range p.dropped {
		if status.Dropped[reason] == 0 {
			t.Errorf("%s: nothing was dropped as %s", p.name, reason)
		}
	}
}

// flood sends the frames in random order, as fast as the tap takes them, and
// returns how many.
func (s *server) flood(t *testing.T, frames [][]byte, howLong time.Duration) int {
	t.Helper()
	tap, err := podtest.OpenTap(s.pod.NS, s.tap, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	random, sent := rand.New(rand.NewPCG(3, 4)), 0
	for start := time.Now(); time.Since(start) < howLong; sent++ {
		_, err := tap.Write(frames[random.IntN(len(frames))])
		if err != nil && !errors.Is(err, unix.EINVAL) { // shorter than an Ethernet header
			t.Fatal(err)
		}
	}
	return sent
}

// leaveDown has a guest sit down, and leave while the tap is down.
func (s *server) leaveDown(t *testing.T) {
	t.Helper()
	tap, err := podtest.OpenTap(s.pod.NS, s.tap, 1)
	if err != nil {
		t.Fatal(err)
	}
	s.pod.IP(t, "link set "+s.tap+" down")
	if _, err := tap.Write(make([]byte, 64)); !errors.Is(err, unix.EIO) {
		t.Errorf("a tap that is down: %v", err)
	}
	s.pod.IP(t, "link set "+s.tap+" up")
	if err := tap.Close(); err != nil {
		t.Fatal(err)
	}
}
