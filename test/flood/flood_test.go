// Package flood tests the built program against a guest that means harm.
package flood_test

import (
	"errors"
	"flag"
	"maps"
	"math/rand/v2"
	"slices"
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
	// Until a real client has its lease, with the client's own time: what of the
	// flood still waits in the kernel is answered first, within the budget.
	patience = 2 * time.Second
)

// TestFlood: whatever a guest sends, and as much as it can, the server is what
// it was before, and the guest has its lease as soon as it asks decently.
func TestFlood(t *testing.T) {
	s := serve(t)
	s.lease(t)
	guest := hostile{mac: s.mac, address: s.pod.IP.Addr().AsSlice(), random: rand.New(rand.NewPCG(1, 2))}

	s.flood(t, guest, *floodTime/3) // what the runtime allocates once is there then
	before := s.usage(t)
	start := time.Now()
	sent := s.flood(t, guest, *floodTime)
	took := time.Since(start)
	after := s.usage(t)
	s.lease(t)
	leased := s.usage(t)

	share := (after.cpu - before.cpu).Seconds() / took.Seconds()
	t.Logf("%d frames in %v: CPU %.1f %%, RSS %d → %d KiB, threads %d → %d, descriptors %d → %d",
		sent, took.Round(time.Millisecond), 100*share, before.rss>>10, leased.rss>>10,
		before.threads, leased.threads, before.files, leased.files)
	if leased.rss > before.rss+moreRSS {
		t.Errorf("RSS was %d KiB, is %d KiB after the flood", before.rss>>10, leased.rss>>10)
	}
	if leased.threads > before.threads+moreThreads {
		t.Errorf("%d threads before the flood, %d after", before.threads, leased.threads)
	}
	if leased.files != before.files {
		t.Errorf("%d file descriptors before the flood, %d after", before.files, leased.files)
	}
	if share > mostCPU {
		t.Errorf("the flood took %.1f %% of a CPU", 100*share)
	}

	dropped := s.status(t).Dropped
	t.Logf("dropped: %v", dropped)
	for _, reason := range []string{"over-budget", "bad-frame", "bad-checksum", "other-source", "other-client", "relayed", "malformed"} {
		if dropped[reason] == 0 {
			t.Errorf("nothing was dropped as %s", reason)
		}
	}
	if len(s.log()) > 64<<10 {
		t.Errorf("the guest wrote %d bytes into the log", len(s.log()))
	}
}

// TestLink: the server outlives its tap going down and up, and one guest after
// the other, also such that did not get to ask.
func TestLink(t *testing.T) {
	t.Parallel()
	s := serve(t)
	s.lease(t)
	for range 3 {
		s.pod.Pod.IP(t, "link set "+s.tap+" down", "link set "+s.tap+" up")
		s.lease(t)
		tap, err := podtest.OpenTap(s.pod.Pod, s.tap, 1)
		if err != nil {
			t.Fatal(err)
		}
		s.pod.Pod.IP(t, "link set "+s.tap+" down")
		if _, err := tap.Write(make([]byte, 64)); !errors.Is(err, unix.EIO) {
			t.Errorf("a tap that is down: %v", err)
		}
		s.pod.Pod.IP(t, "link set "+s.tap+" up")
		if err := tap.Close(); err != nil {
			t.Fatal(err)
		}
		s.lease(t)
	}
	if status := s.status(t); status.State != "bound" {
		t.Errorf("the lease is %s", status.State)
	}
}

// flood sends all kinds of frames in random order, as fast as the tap takes
// them, and returns how many.
func (s *server) flood(t *testing.T, guest hostile, howLong time.Duration) int {
	t.Helper()
	tap, err := podtest.OpenTap(s.pod.Pod, s.tap, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	// Some of each kind, made before: what is measured is the server.
	var frames [][]byte
	kinds := guest.kinds()
	for _, name := range slices.Sorted(maps.Keys(kinds)) { // the same order for the same seed
		for range 64 {
			frames = append(frames, kinds[name]())
		}
	}
	sent := 0
	for start := time.Now(); time.Since(start) < howLong; sent++ {
		_, err := tap.Write(frames[guest.random.IntN(len(frames))])
		if err != nil && !errors.Is(err, unix.EINVAL) { // shorter than an Ethernet header
			t.Fatal(err)
		}
	}
	return sent
}

// lease seats a decent guest, which must get its lease at once.
func (s *server) lease(t *testing.T) {
	t.Helper()
	guest, err := podtest.StartGuest(t.Context(), s.pod.Pod, s.tap, s.mac)
	if err != nil {
		t.Fatal(err)
	}
	defer guest.Close()
	start := time.Now()
	lease, err := guest.Udhcpc(t.Context())
	if err != nil {
		t.Fatalf("%v\n%s", err, s.log())
	}
	took := time.Since(start)
	t.Logf("a client's lease after %v", took.Round(time.Millisecond))
	if want := s.pod.IP.Addr().String(); lease["ip"] != want {
		t.Errorf("the client got %s, want %s", lease["ip"], want)
	}
	if took > patience {
		t.Errorf("the client's lease took %v", took)
	}
}
