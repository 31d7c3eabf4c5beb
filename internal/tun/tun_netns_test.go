package tun

import (
	"errors"
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// Opening a tap makes none, not even one that is deleted again, and not if the
// tap goes away while it is opened.
func TestOpenMakesNoTap(t *testing.T) {
	t.Parallel()
	ns := podtest.New(t)
	// nextIndex is what a link that is made now gets: the kernel counts those that
	// were deleted, too.
	nextIndex := func() (index int) {
		t.Helper()
		ns.IP(t, "link add name next type bridge")
		if err := ns.Do(func() error {
			l, err := net.InterfaceByName("next")
			if err == nil {
				index = l.Index
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		ns.IP(t, "link del next")
		return index
	}
	before := nextIndex()
	for _, queues := range []int{1, 2} {
		if err := ns.Do(func() error {
			if _, err := Open("tap0", queues); !errors.Is(err, ErrMissing) || !strings.HasPrefix(err.Error(), "tap0 is missing: ") {
				t.Errorf("Open says %v", err)
			}
			fd, err := unix.Open(Device, unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if err := attach(fd, "tap0", queues); !errors.Is(err, ErrMissing) {
				t.Errorf("attach says %v", err)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if after := nextIndex(); after != before+1 {
		t.Errorf("%d links were made", after-before-1)
	}
}
