package prestart_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// Two pods that live at once never touch each other's state: neither with the
// directory that each gets by itself, nor with one that both are given.
func TestTwoPods(t *testing.T) {
	t.Parallel()
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprintf("shared %v", shared), func(t *testing.T) {
			t.Parallel()
			dir := ""
			if shared {
				dir = t.TempDir()
			}
			a, b := podtest.NewPod(t, podtest.Flannel), podtest.NewPod(t, podtest.Calico)
			beforeA, beforeB := podtest.TakeSnapshot(t, a.NS), podtest.TakeSnapshot(t, b.NS)
			ha, hb := newHook(t, a), newHook(t, b)
			ha.StateDir, hb.StateDir = dir, dir
			session := run(t, ha)
			if restored, err := hb.Restore(t.Context()); err != nil || len(restored) > 0 {
				t.Errorf("restore of what is not prepared: %v, %v", restored, err)
			}
			if status, err := hb.Status(t.Context()); err != nil || status.Prepared || status.Server.Alive {
				t.Errorf("the other pod's status is %+v, %v", status, err)
			}
			other := run(t, hb)
			for _, one := range []struct {
				hook prestart.Hook
				pod  *podtest.Pod
			}{{ha, a}, {hb, b}} {
				answer, err := asker(one.hook).Wait(t.Context(), control.ForNetwork)
				if err != nil || answer.Of("eth0").Lease.Address.Addr() != one.pod.IPv4.Addr() {
					t.Errorf("wait of %s says %+v, %v", one.pod.IPv4, answer, err)
				}
			}
			for _, err := range []error{session.Close(t.Context()), other.Close(t.Context())} {
				if err != nil {
					t.Fatal(err)
				}
			}
			for _, h := range []prestart.Hook{ha, hb} {
				if restored, err := h.Restore(t.Context()); err != nil || len(restored) != 1 {
					t.Errorf("restored %q, %v", restored, err)
				}
			}
			if d := podtest.Diff(beforeA, podtest.TakeSnapshot(t, a.NS)) + podtest.Diff(beforeB, podtest.TakeSnapshot(t, b.NS)); d != "" {
				t.Errorf("after restore:\n%s", d)
			}
		})
	}
}

// Pods that are prepared at once with one directory, of which none has a record yet,
// get each its own state.
func TestPodsAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var hooks [3]prestart.Hook
	errs := make(chan error)
	for i := range hooks {
		hooks[i] = newHook(t, podtest.NewPod(t, podtest.Calico))
		hooks[i].StateDir = dir
	}
	for _, h := range hooks {
		go func() { _, err := h.Prepare(t.Context()); errs <- err }()
	}
	for range hooks {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	for _, h := range hooks {
		if restored, err := h.Restore(t.Context()); err != nil || len(restored) != 1 {
			t.Errorf("restored %q, %v", restored, err)
		}
	}
}

// The directory that a namespace gets by itself is the same whatever path names it,
// also from within, and is gone with what is in it.
func TestDirectoryOfNamespace(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Calico)
	before := podtest.TakeSnapshot(t, pod.NS)
	h := newHook(t, pod)
	h.StateDir = ""
	mounted := filepath.Join(t.TempDir(), "ns")
	if err := os.WriteFile(mounted, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	podtest.Mount(t, pod.Path(), mounted, "", "")
	if _, err := h.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	var own string
	for _, path := range []string{pod.Path(), mounted, ""} {
		h.Netns = path
		err := pod.Do(func() error {
			status, err := h.Status(t.Context())
			if err == nil && !status.Prepared {
				err = errors.New("it is not prepared")
			}
			return err
		})
		if err != nil {
			t.Errorf("by %q: %v", path, err)
		}
	}
	found, err := filepath.Glob(prepare.DefaultStateDir + "/netns-*/eth0.json")
	if err != nil {
		t.Fatal(err)
	}
	inode := strings.Trim(strings.TrimPrefix(readlink(t, pod.NS), "net:"), "[]")
	for _, path := range found {
		if strings.Contains(path, inode) {
			own = filepath.Dir(path)
		}
	}
	if own == "" {
		t.Fatalf("no directory of %s among %q", inode, found)
	}
	if err := pod.Do(func() error { _, err := h.Restore(t.Context()); return err }); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(own); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", own, err)
	}
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("after restore:\n%s", d)
	}
}

func readlink(t *testing.T, ns *podtest.NS) (link string) {
	t.Helper()
	if err := ns.Do(func() (err error) { link, err = os.Readlink("/proc/thread-self/ns/net"); return err }); err != nil {
		t.Fatal(err)
	}
	return link
}
