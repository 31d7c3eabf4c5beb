package prestart_test

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// An unplug that lacks a capability says which, and leaves the NIC served.
func TestUnplugWithoutPrivileges(t *testing.T) {
	t.Parallel()
	for name, lacking := range map[string][]int{
		"NET_ADMIN": {unix.CAP_NET_ADMIN}, "NET_RAW": {unix.CAP_NET_RAW}, "all": {unix.CAP_NET_ADMIN, unix.CAP_NET_RAW},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := podtest.NewPod(t, podtest.Flannel)
			addNet1(t, pod)
			h := newHook(t, pod)
			h.Interfaces = []string{"eth0"}
			lacks := false
			h.Hotplug = &prestart.Hotplug{Privileged: func(fn func() error) error {
				if !lacks {
					return fn()
				}
				return without(fn, lacking...)
			}}
			session := run(t, h)
			if _, err := session.Plug(t.Context(), "net1", prestart.InterfaceOptions{}); err != nil {
				t.Fatal(err)
			}
			podtest.WaitReleased(pod.NS, "tap-net1")
			before := podtest.TakeSnapshot(t, pod.NS)
			lacks = true
			err := session.Unplug(t.Context(), "net1")
			t.Log(err)
			t.Logf("%+v", session.Status())
			if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
				t.Errorf("after a failed unplug:\n%s", d)
			}
			_, _ = errors.Is, strings.Contains
		})
	}
}

// without runs fn without capabilities in effect in its thread.
func without(fn func() error, capabilities ...int) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var had, has [2]unix.CapUserData
	if err := unix.Capget(&header, &had[0]); err != nil {
		return err
	}
	has = had
	for _, c := range capabilities {
		has[c/32].Effective &^= 1 << (c % 32)
	}
	if err := unix.Capset(&header, &has[0]); err != nil {
		return err
	}
	return errors.Join(fn(), unix.Capset(&header, &had[0]))
}
