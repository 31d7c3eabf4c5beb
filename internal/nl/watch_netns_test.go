package nl

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// TestWatchLink: a watch hears of its own link, of no other, and of its end as often
// as it is asked.
func TestWatchLink(t *testing.T) {
	t.Parallel()
	ns := podtest.NewTapNS(t)
	var w *LinkWatch
	if err := ns.Do(func() error {
		link, err := net.InterfaceByName("tap0")
		if err != nil {
			return err
		}
		w, err = WatchLink(link.Index)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	quiet := func(after string) {
		t.Helper()
		if err := w.SetDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		for {
			flags, err := w.Next()
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
			if err != nil || after != "" {
				t.Fatalf("after %s: %x, %v", after, flags, err)
			}
		}
	}
	quiet("") // what was on its way
	ns.IP(t, "link add other type veth peer name peer", "link set other up", "link del other")
	quiet("another link's life")

	if err := w.SetDeadline(time.Now().Add(podtest.Patience)); err != nil {
		t.Fatal(err)
	}
	ns.IP(t, "link set tap0 down")
	for up := true; up; {
		flags, err := w.Next()
		if err != nil {
			t.Fatal(err)
		}
		up = flags&unix.IFF_UP != 0
	}
	ns.IP(t, "link del tap0")
	for range 2 {
		_, err := w.Next()
		for err == nil {
			_, err = w.Next()
		}
		if !errors.Is(err, unix.ENODEV) {
			t.Errorf("of its end it says %v", err)
		}
	}
}
