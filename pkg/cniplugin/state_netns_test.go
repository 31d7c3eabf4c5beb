package cniplugin_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// A container's sandbox may be made anew once its network namespace is gone. One that lives
// has to be put back first.
func TestSandboxMadeAnew(t *testing.T) {
	t.Parallel()
	old, err := podtest.BuildPod(t.Context(), podtest.Flannel)
	if err != nil {
		t.Fatal(err)
	}
	pod, r := newPod(t, podtest.Flannel)
	list := r.list("1.1.0", plugin(`"select": "all"`))
	before := settled(t, pod.NS)
	path := filepath.Join(t.TempDir(), "netns") // one that no other test's namespace gets
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	podtest.Mount(t, old.Path(), path, "", "")
	first := sandbox(old.NS, "c1", "eth0", nil)
	first.NetNS = path
	r.add(list, first)
	was := settled(t, old.NS)
	_, err = r.tryAdd(t.Context(), list, sandbox(pod.NS, "c1", "eth0", nil))
	wantError(t, err, 102, "eth0 attached in another network namespace, "+path, "DEL")
	same(t, "refused, in the old one", was, old.NS)
	same(t, "refused, in the new one", before, pod.NS)
	if err := errors.Join(unix.Unmount(path, unix.MNT_DETACH), old.Close()); err != nil {
		t.Fatal(err)
	}
	rt := sandbox(pod.NS, "c1", "eth0", nil)
	r.add(list, rt)
	if err := r.check(list, rt); err != nil {
		t.Error(err)
	}
	r.del(list, rt)
	r.empty()
	same(t, "afterwards", before, pod.NS)
}

// A sandbox that is made anew may have the path of the one before, as after a restart of the
// node where the state is on its disk: of that one nothing is attached any more.
func TestSandboxMadeAnewAtTheSamePath(t *testing.T) {
	t.Parallel()
	old := podtest.NewPod(t, podtest.Flannel)
	pod, r := newPod(t, podtest.Flannel)
	old.Node.IP(t, "link add host1 type veth peer name net1 netns "+old.Path(), "link set host1 up")
	old.IP(t, "addr add 192.0.2.77/24 dev net1", "link set net1 up")
	before := settled(t, pod.NS)
	path := filepath.Join(t.TempDir(), "netns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	list, second := r.list("1.1.0", plugin(`"select": "all"`)), r.list("1.1.0", plugin(`"select": "all"`, `"interface": "net1"`))
	second.Name = "second"
	eth0, net1 := sandbox(pod.NS, "c1", "eth0", nil), sandbox(pod.NS, "c1", "net1", nil)
	eth0.NetNS, net1.NetNS = path, path
	podtest.Mount(t, old.Path(), path, "", "")
	r.add(list, eth0)
	r.add(second, net1)
	podtest.Mount(t, pod.Path(), path, "", "")
	r.add(list, eth0)
	if err := r.check(list, eth0); err != nil {
		t.Error(err)
	}
	if files := r.files(); contains(files, "c1/net1.attachment") || !contains(files, "c1/eth0.attachment") {
		t.Errorf("there are %q", files)
	}
	r.del(list, eth0)
	r.empty()
	same(t, "afterwards", before, pod.NS)
}

// Something else in the place of a container's directory keeps no pod from going.
func TestNoDirectory(t *testing.T) {
	t.Parallel()
	pod, r := newPod(t, podtest.Flannel)
	before := settled(t, pod.NS)
	list, rt := r.list("1.1.0", plugin(`"select": "all"`)), sandbox(pod.NS, "c1", "eth0", nil)
	path := filepath.Join(r.base, "c1")
	if err := os.MkdirAll(r.base, 0o700); err != nil {
		t.Fatal(err)
	}
	for what, put := range map[string]func() error{
		"a file":      func() error { return os.WriteFile(path, nil, 0o600) },
		"a link":      func() error { return os.Symlink(t.TempDir(), path) },
		"a lost link": func() error { return os.Symlink("nowhere", path) },
	} {
		if err := put(); err != nil {
			t.Fatal(err)
		}
		_, err := r.tryAdd(t.Context(), list, rt)
		wantError(t, err, 102, path+": not a directory: remove it")
		if err := r.check(list, rt); err == nil {
			t.Errorf("%s: CHECK finds nothing", what)
		}
		r.del(list, rt)
		if err := r.gc(list); err != nil {
			t.Errorf("%s: GC: %v", what, err)
		}
		if err := os.Remove(path); err != nil {
			t.Errorf("%s is gone: %v", what, err)
		}
	}
	same(t, "afterwards", before, pod.NS)
}

// A pod whose tables the agent repairs while it is attached again, deleted or cleared has
// nothing left afterwards: no table, no directory.
func TestRepairedMeanwhile(t *testing.T) {
	t.Parallel()
	for _, datapath := range datapaths {
		t.Run(datapath, func(t *testing.T) {
			t.Parallel()
			pod, r := newPod(t, podtest.Flannel)
			list, rt := r.list("1.1.0", plugin(`"select": "all"`, `"datapath": "`+datapath+`"`)), sandbox(pod.NS, "c1", "eth0", nil)
			before := settled(t, pod.NS)
			r.startAgent()
			end := map[string]func() error{
				"DEL": func() error { return r.tryDel(list, rt) },
				"GC": func() error {
					r.forget()
					return r.gc(list)
				},
			}
			for what, end := range end {
				r.add(list, rt)
				var flushing sync.WaitGroup
				flush := func() {
					flushing.Go(func() {
						for range 5 {
							_, _ = pod.Output(t.Context(), "nft", "flush", "ruleset")
						}
					})
				}
				flush()
				r.add(list, rt)
				flushing.Wait()
				flush()
				if err := end(); err != nil {
					t.Errorf("%s: %v", what, err)
				}
				flushing.Wait()
				r.empty()
				same(t, "after "+what, before, pod.NS)
			}
		})
	}
}

// A NIC whose attachment can't be read is no matter of calls for another NIC: neither DEL of
// that one, nor DEL after its ADD is refused, takes it from the VM. Its own DEL does.
func TestDamagedBesideAnother(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	pod.Node.IP(t, "link add host1 type veth peer name net1 netns "+pod.Path(), "link set host1 up")
	pod.IP(t, "addr add 192.0.2.77/24 dev net1", "link set net1 up")
	r := newRuntime(t, pod.Node)
	before := settled(t, pod.NS)
	list, second := r.list("1.1.0", plugin(`"select": "all"`)), r.list("1.1.0", plugin(`"select": "all"`))
	second.Name = "second"
	eth0, net1 := sandbox(pod.NS, "c1", "eth0", nil), sandbox(pod.NS, "c1", "net1", nil)
	damage := func() {
		t.Helper()
		if err := os.WriteFile(filepath.Join(r.base, "c1/eth0.attachment"), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.add(list, eth0)
	one := settled(t, pod.NS)
	r.add(second, net1)
	damage()
	r.del(second, net1)
	same(t, "without the second", one, pod.NS)
	_, err := r.tryAdd(t.Context(), second, net1)
	wantError(t, err, 102, "eth0.attachment")
	r.del(second, net1)
	same(t, "after an ADD that was refused", one, pod.NS)
	r.del(list, eth0)
	r.empty()
	same(t, "afterwards", before, pod.NS)

	r.add(list, eth0)
	r.add(second, net1)
	damage()
	r.del(list, eth0)
	if err := r.check(second, net1); err != nil {
		t.Errorf("the second, without the first: %v", err)
	}
	r.del(second, net1)
	r.empty()
	same(t, "in the other order", before, pod.NS)
}

// An ADD that fails leaves what is prepared of another NIC, also where somebody has deleted that
// one's attachment: its DEL puts it back.
func TestLostBesideAnother(t *testing.T) {
	t.Parallel()
	pod, r := newPod(t, podtest.Flannel)
	before := settled(t, pod.NS)
	list, second := r.list("1.1.0", plugin(`"select": "all"`)), r.list("1.1.0", plugin(`"select": "all"`, `"interface": "nope0"`, `"timeout": "200ms"`))
	second.Name = "second"
	eth0, net1 := sandbox(pod.NS, "c1", "eth0", nil), sandbox(pod.NS, "c1", "net1", nil)
	r.add(list, eth0)
	if err := os.Remove(filepath.Join(r.base, "c1/eth0.attachment")); err != nil {
		t.Fatal(err)
	}
	_, err := r.tryAdd(t.Context(), second, net1)
	wantError(t, err, types.ErrTryAgainLater, "nope0")
	r.del(list, eth0)
	r.empty()
	same(t, "afterwards", before, pod.NS)
}

// Where the plugin is in the list twice, as by the installer and by hand, the tap is in the
// result once.
func TestTwiceInList(t *testing.T) {
	t.Parallel()
	pod, r := newPod(t, podtest.Flannel)
	before := settled(t, pod.NS)
	list, rt := r.list("1.0.0", plugin(`"select": "all"`)+", "+plugin(`"select": "all"`)), sandbox(pod.NS, "c1", "eth0", nil)
	if got, want := interfaces(r.add(list, rt)), []string{"eth0 in the pod", "tap-eth0 in the pod"}; !slices.Equal(got, want) {
		t.Errorf("the result has %q, want %q", got, want)
	}
	if err := r.check(list, rt); err != nil {
		t.Error(err)
	}
	r.del(list, rt)
	r.empty()
	same(t, "afterwards", before, pod.NS)
}
