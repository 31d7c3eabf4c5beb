package prestart_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// An unplug that lacks a capability says which, and touches nothing: the NIC is served
// and watched as before.
func TestUnplugWithoutCapability(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	addNet1(t, pod)
	lacks := false
	session, h := plugged(t, pod, func(fn func() error) error {
		if !lacks {
			return fn()
		}
		return without(fn, unix.CAP_NET_ADMIN, unix.CAP_NET_RAW)
	})
	before := podtest.TakeSnapshot(t, pod.NS)
	lacks = true
	err := session.Unplug(t.Context(), "net1")
	if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "unplug net1: ") || !strings.Contains(err.Error(), "NET_ADMIN") || strings.Contains(err.Error(), "tap-net1") {
		t.Errorf("without NET_ADMIN: %v", err)
	}
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("after a failed unplug:\n%s", d)
	}
	if s := session.Status().Of("net1"); s.Name == "" || s.Error != "" || s.Unwatched != "" || s.Lease == nil || !s.Lease.Serving {
		t.Errorf("after a failed unplug it is %+v", s)
	}
	lacks = false
	if err := session.Unplug(t.Context(), "net1"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(h.StateDir, "net1.json")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// Where the record can't be removed, the interface is put back all the same, and the error
// names what is missing: no tap, which is to be missing.
func TestUnplugWithoutRecordRemoved(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	addNet1(t, pod)
	lacks := false
	session, h := plugged(t, pod, func(fn func() error) error {
		if lacks {
			if err := unix.Setfsuid(1000); err != nil {
				return err
			}
			defer func() { _ = unix.Setfsuid(0) }()
		}
		return fn()
	})
	files, err := filepath.Glob(filepath.Join(h.StateDir, "*"))
	for _, file := range files {
		err = errors.Join(err, os.Chmod(file, 0o666))
	}
	err = errors.Join(err, os.Chmod(h.StateDir, 0o777|os.ModeSticky))
	for dir := filepath.Dir(h.StateDir); filepath.Dir(dir) != filepath.Clean(os.TempDir()) && dir != "/"; {
		dir = filepath.Dir(dir)
		err = errors.Join(err, os.Chmod(dir, 0o755)) // that of the test
	}
	if err != nil {
		t.Fatal(err)
	}
	lacks = true
	err = session.Unplug(t.Context(), "net1")
	if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "this needs the right to remove files from the state directory") || strings.Contains(err.Error(), "tap-net1") {
		t.Errorf("with a record that can't be removed: %v", err)
	}
	if s := session.Status(); !s.Ready || len(s.Interfaces) != 1 {
		t.Errorf("the status is %+v", s)
	}
	if out := pod.Run(t, "ip", "-brief", "addr"); strings.Contains(out, "tap-net1") || !strings.Contains(out, "10.9.0.7/24") {
		t.Errorf("the pod has\n%s", out)
	}
}

// plugged is a session with eth0 that has plugged net1 in, by what privileged lets it do.
func plugged(t *testing.T, pod *podtest.Pod, privileged func(func() error) error) (*prestart.Session, prestart.Hook) {
	t.Helper()
	h := newHook(t, pod)
	h.Interfaces, h.Hotplug = []string{"eth0"}, &prestart.Hotplug{Privileged: privileged}
	session := run(t, h)
	if _, err := session.Plug(t.Context(), "net1", prestart.InterfaceOptions{}); err != nil {
		t.Fatal(err)
	}
	podtest.WaitReleased(pod.NS, "tap-net1")
	return session, h
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
