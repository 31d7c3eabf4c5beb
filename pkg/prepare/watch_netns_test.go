package prepare

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// What is planned is encoded once, not at each look; a table that changes is compared again.
func TestLookAgain(t *testing.T) {
	pod := podtest.NewPod(t, podtest.Flannel)
	var w *Watch
	pod.In(t, func() error {
		plan, err := ApplyOne(t.Context(), t.TempDir(), Options{}, "eth0")
		if err == nil {
			w, err = OpenWatch(plan)
		}
		return err
	})
	defer w.Close()
	look := func() (found []Difference) {
		found, err := w.Look()
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	first := testing.AllocsPerRun(3, func() {
		w.compared = nil
		look()
	})
	if again := testing.AllocsPerRun(3, func() { look() }); again > first/3 {
		t.Errorf("a look allocates %.0f times, the first one %.0f", again, first)
	}
	pod.Run(t, "nft", "flush chain "+podtest.GuardTable+" from_guest")
	if err := w.WaitTables(t.Context()); err != nil {
		t.Fatal(err)
	}
	if found := look(); len(found) != 1 || !strings.Contains(found[0].Is, "from_guest has 0 rules") {
		t.Errorf("after a change it says %v", found)
	}
}

// Links that are changed without end do not keep the watch busy, and hide nothing.
func TestWatchOfLinksThatChangeWithoutEnd(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	dir := t.TempDir()
	var w *Watch
	pod.In(t, func() error {
		if err := ApplyAll(t.Context(), dir, Options{}, "eth0"); err != nil {
			return err
		}
		plans, err := ReadPlans(discard, dir)
		if err == nil {
			w, err = OpenWatch(plans...)
		}
		return err
	})
	defer w.Close()
	if found, err := w.Look(); err != nil || len(found) > 0 || w.Unwatched() != nil {
		t.Fatalf("of a prepared pod it says %v, %v, %v", found, err, w.Unwatched())
	}
	ctx, cancel := context.WithCancel(t.Context())
	woken := make(chan int)
	found := make(chan []Difference, 1)
	go func() {
		n := 0
		for ; w.Wait(ctx) == nil; n++ {
			if differences, err := w.Look(); err != nil || len(differences) > 0 {
				found <- differences
				break
			}
		}
		woken <- n
	}()
	var changes []string
	for i := range 10000 {
		changes = append(changes, fmt.Sprintf("link set lo alias a%d", i))
	}
	start := time.Now()
	pod.IP(t, changes...)
	pod.IP(t, "link set br-eth0 down")
	differences := <-found
	took := time.Since(start)
	cancel()
	if n := <-woken; n > int(took/settleTime)+1 {
		t.Errorf("woken %d times in %s", n, took)
	}
	if len(differences) != 1 || differences[0].String() != "br-eth0 is down, not up" {
		t.Errorf("it says %v", differences)
	}
}

// A permanent neighbor to which somebody gives another MAC is told, with the way out: the VM
// is answered by that which the CNI gave.
func TestWatchOfNeighbors(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, datapath string) {
		pod := podtest.NewPod(t, podtest.AWS)
		var w *Watch
		var answer string
		pod.In(t, func() error {
			plan, err := ApplyOne(t.Context(), t.TempDir(), Options{Datapath: datapath}, "eth0")
			if err == nil {
				answer = plan.NIC().Answers[0].MAC.String()
				w, err = OpenWatch(plan)
			}
			return err
		})
		defer w.Close()
		const set, other = "neigh replace 169.254.1.1 dev eth0 nud permanent lladdr ", "02:00:00:00:00:99"
		for _, c := range []struct{ mac, want string }{
			{other, "[the neighbor 169.254.1.1 at eth0 is of MAC " + other + ", not of " + answer + ", which the VM is told]"}, {answer, "[]"},
		} {
			pod.IP(t, set+c.mac)
			if err := w.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			found, err := w.Look()
			if err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(found) != c.want {
				t.Errorf("with %s it says %v, want %s", c.mac, found, c.want)
			}
			for _, d := range found {
				expectWords(t, errors.New(d.Remedy), []string{"lladdr " + answer, "restore"})
			}
		}
	})
}
