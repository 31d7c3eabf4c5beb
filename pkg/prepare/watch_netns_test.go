package prepare

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

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
