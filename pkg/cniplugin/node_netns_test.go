package cniplugin_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// What the plugin has attached for containers that are no more is cleared, and nothing
// else.
func TestGarbage(t *testing.T) {
	t.Parallel()
	pod, other := podtest.NewPod(t, podtest.Flannel), podtest.NewPod(t, podtest.Calico)
	r := newRuntime(t, pod.Node)
	before := settled(t, other.NS)
	list := r.list("1.1.0", plugin(`"select": "all"`))
	second := r.list("1.1.0", plugin(`"select": "all"`))
	second.Name = "second"
	r.add(list, sandbox(pod.NS, "valid", "eth0", nil))
	r.add(list, sandbox(other.NS, "stale", "eth0", nil))
	third := podtest.NewPod(t, podtest.GKE)
	r.add(second, sandbox(third.NS, "of-another-network", "eth0", nil))
	// One whose namespace is gone, and one whose ADD was killed.
	gone, err := podtest.BuildPod(t.Context(), podtest.GKE)
	if err != nil {
		t.Fatal(err)
	}
	r.add(list, sandbox(gone.NS, "gone", "eth0", nil))
	if err := os.Rename(filepath.Join(r.base, "gone/eth0.attachment"), filepath.Join(r.base, "gone/eth0.pending")); err != nil {
		t.Fatal(err)
	}
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(r.base, "netns-4026531840"), 0o700); err != nil { // of who uses it without CNI
		t.Fatal(err)
	}
	// An ADD was killed before it had anything.
	if err := os.MkdirAll(filepath.Join(r.base, "begun"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.base, "begun/lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// Of some no attachment can be read: their pods are gone, or still there.
	damage := map[string]func(path string) error{
		"damaged": func(path string) error { return os.WriteFile(path, []byte("{"), 0o600) },
		"lost":    os.Remove,
	}
	for name, do := range damage {
		for _, lives := range []string{"gone", "living"} {
			pod, err := podtest.BuildPod(t.Context(), podtest.GKE)
			if err != nil {
				t.Fatal(err)
			}
			id := name + "-" + lives
			r.add(list, sandbox(pod.NS, id, "eth0", nil))
			if err := do(filepath.Join(r.base, id, "eth0.attachment")); err != nil {
				t.Fatal(err)
			}
			if lives == "living" {
				t.Cleanup(func() { _ = pod.Close() })
				mounted := filepath.Join(t.TempDir(), "netns")
				if err := os.WriteFile(mounted, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				podtest.Mount(t, pod.Path(), mounted, "", "")
			} else if err := pod.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	r.forget() // the runtime has lost what it knew
	want := []string{"damaged-living", "lost-living", "netns-4026531840", "of-another-network", "valid"}
	var names []string
	// A process that is being started has a namespace open for a moment that is gone.
	for start := time.Now(); !slices.Equal(names, want); {
		if time.Since(start) > podtest.Patience {
			t.Fatalf("there are %q, want %q", names, want)
		}
		if err := r.gc(list, types.GCAttachment{ContainerID: "valid", IfName: "eth0"}); err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(r.base)
		if err != nil {
			t.Fatal(err)
		}
		names = nil
		for _, e := range entries {
			names = append(names, e.Name())
		}
	}
	same(t, "the stale one", before, other.NS)
	if out := pod.Run(t, "ip", "-br", "link"); !strings.Contains(out, "tap-eth0") {
		t.Errorf("the valid one has\n%s", out)
	}
}

// gc clears what is not valid.
func (r *runtime) gc(list *libcni.NetworkConfigList, valid ...types.GCAttachment) error {
	return r.node.Do(func() error {
		return r.cni.GCNetworkList(context.Background(), list, &libcni.GCArgs{ValidAttachments: valid})
	})
}

// What is valid has another key in the specification's first text than in libcni: a runtime
// that gives that one alone keeps what it names.
func TestGarbageByTheOtherKey(t *testing.T) {
	t.Parallel()
	pod, r := newPod(t, podtest.Flannel)
	r.add(r.list("1.1.0", plugin(`"select": "all"`)), sandbox(pod.NS, "c1", "eth0", nil))
	was := settled(t, pod.NS)
	collect := func(attachments string) {
		t.Helper()
		conf := fmt.Sprintf(`{"cniVersion": "1.1.0", "name": "net", "type": "virt-launcher-net", "stateDir": %q, "cni.dev/attachments": %s}`, r.base, attachments)
		program := podtest.Built(t, "virt-launcher-net")
		err := pod.Node.Do(func() error {
			return invoke.ExecPluginWithoutResult(t.Context(), program, []byte(conf), &invoke.Args{Command: "GC", Path: filepath.Dir(program)}, nil)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	collect(`[{"containerID": "c1", "ifname": "eth0"}]`)
	same(t, "the valid one", was, pod.NS)
	collect(`[]`)
	r.empty()
}

// mount gives the state directory a file system of its own.
func (r *runtime) mount(options string) {
	r.t.Helper()
	if err := os.MkdirAll(r.base, 0o700); err != nil {
		r.t.Fatal(err)
	}
	podtest.Mount(r.t, "tmpfs", r.base, "tmpfs", options)
}

// Where there is no room, or nothing can be written, ADD says so and leaves the pod as it
// was; DEL needs no room.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	pod, r := newPod(t, podtest.Flannel)
	before := settled(t, pod.NS)
	list, rt := r.list("1.0.0", plugin(`"select": "all"`)), sandbox(pod.NS, "c1", "eth0", nil)
	r.mount("size=1m")
	failed := 0
	for pages := 0; ; pages++ {
		if err := os.WriteFile(filepath.Join(r.base, "fill"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		fill(t, filepath.Join(r.base, "fill"), 1<<20-pages*4096)
		_, err := r.tryAdd(t.Context(), list, rt)
		if err == nil {
			break
		}
		failed++
		wantError(t, err, 102, "no space left on device")
		if entries, err := os.ReadDir(r.base); err != nil || len(entries) != 1 {
			t.Fatalf("with %d pages: %v, %v", pages, entries, err)
		}
		same(t, fmt.Sprintf("with %d pages", pages), before, pod.NS)
	}
	if failed == 0 {
		t.Error("ADD needs no room")
	}
	fill(t, filepath.Join(r.base, "fill"), 2<<20)
	if err := r.check(list, rt); err != nil {
		t.Error(err)
	}
	if err := r.gc(r.list("1.1.0", plugin(`"select": "all"`))); err != nil {
		t.Error(err)
	}
	same(t, "afterwards", before, pod.NS)
	// Where a number of files is all that there is room for, likewise.
	if err := os.Remove(filepath.Join(r.base, "fill")); err != nil {
		t.Fatal(err)
	}
	for files := 2; ; files++ {
		if err := unix.Mount("", r.base, "", unix.MS_REMOUNT, fmt.Sprintf("size=1m,nr_inodes=%d", files)); err != nil {
			t.Fatal(err)
		}
		_, err := r.tryAdd(t.Context(), list, rt)
		if err != nil {
			wantError(t, err, 102, "no space left on device", onNode)
		}
		if delErr := r.tryDel(list, rt); delErr != nil {
			t.Fatalf("DEL with room for %d files: %v", files, delErr)
		}
		r.empty()
		if err == nil {
			break
		}
	}
	same(t, "afterwards", before, pod.NS)
}

// onNode is what helps where a plugin can't write, whose directory is no pod's.
const onNode = "state directory on the node has to be writable"

// Where nothing can be written, ADD changes nothing, and DEL says what has to be writable:
// the node's directory.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	pod, r := newPod(t, podtest.Flannel)
	before := settled(t, pod.NS)
	list, rt := r.list("1.0.0", plugin(`"select": "all"`)), sandbox(pod.NS, "c1", "eth0", nil)
	r.mount("")
	remount := func(flags uintptr) {
		t.Helper()
		if err := unix.Mount("", r.base, "", unix.MS_REMOUNT|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	remount(unix.MS_RDONLY)
	_, err := r.tryAdd(t.Context(), list, rt)
	wantError(t, err, 102, "read-only file system", r.base, onNode)
	r.del(list, rt)
	remount(0)
	// What an ADD left that was killed before it prepared anything keeps no pod from ending.
	dir := filepath.Join(r.base, "c1")
	for _, left := range []string{"", "eth0.pending"} {
		r.add(list, rt)
		text, err := os.ReadFile(filepath.Join(dir, "eth0.attachment"))
		if err != nil {
			t.Fatal(err)
		}
		r.del(list, rt)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if left != "" {
			err = os.WriteFile(filepath.Join(dir, left), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		remount(unix.MS_RDONLY)
		r.del(list, rt)
		remount(0)
	}
	r.add(list, rt)
	remount(unix.MS_RDONLY)
	if err := r.check(list, rt); err != nil {
		t.Error(err)
	}
	wantError(t, r.gc(r.list("1.1.0", plugin(`"select": "all"`))), 104, "read-only file system", onNode)
	err = r.tryDel(list, rt)
	if wantError(t, err, 104, "read-only file system", r.base, onNode); strings.Contains(fmt.Sprint(err), "emptyDir") {
		t.Errorf("on the node nobody has that: %v", err)
	}
	same(t, "the pod's interface is not put back", before, pod.NS)
	remount(0)
	r.del(list, rt)
	r.empty()
}

// fill writes to a file until it has so many bytes, or nothing more fits.
func fill(t *testing.T, path string, bytes int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page := make([]byte, 4096)
	for n := 0; n < bytes; n += len(page) {
		if _, err := f.Write(page); err != nil {
			return
		}
	}
}

// A container's name may be as long as a file's.
func TestLongNames(t *testing.T) {
	t.Parallel()
	pod, r := newPod(t, podtest.Flannel)
	list := r.list("1.0.0", plugin(`"select": "all"`))
	call := func(id, command string) (string, error) { // libcni's cache has no room for these
		return r.node.Output(t.Context(), "env", "CNI_COMMAND="+command, "CNI_CONTAINERID="+id, "CNI_IFNAME=eth0", "CNI_NETNS="+pod.Path(), "CNI_PATH=/",
			"sh", "-c", `echo "$0" | `+podtest.Built(t, "virt-launcher-net"), string(list.Plugins[0].Bytes[:len(list.Plugins[0].Bytes)-1])+`, "name": "net", "cniVersion": "1.0.0"}`)
	}
	longest := strings.Repeat("x", 255)
	for _, command := range []string{"ADD", "CHECK", "DEL"} {
		if out, err := call(longest, command); err != nil {
			t.Errorf("%s: %v, %s", command, err, out)
		}
	}
	if out, err := call(longest+"x", "ADD"); err == nil || !strings.Contains(fmt.Sprint(out, err), "file name too long") {
		t.Errorf("ADD: %v, %s", err, out)
	}
	if out, err := call(longest+"x", "DEL"); err != nil {
		t.Errorf("DEL: %v, %s", err, out)
	}
	r.empty()
}

// STATUS says no only where no pod can be added.
func TestStatus(t *testing.T) {
	t.Parallel()
	pod := podtest.NewBarePod(t)
	r := newRuntime(t, pod.Node)
	status := func(keys ...string) error {
		return pod.Node.Do(func() error { return r.cni.GetStatusNetworkList(t.Context(), r.list("1.1.0", plugin(keys...))) })
	}
	for _, keys := range [][]string{{capabilities}, {capabilities, `"mtuu": 1`}, {`"select": "all"`}} {
		if err := status(keys...); err != nil {
			t.Errorf("%q: %v", keys, err)
		}
	}
	wantError(t, status(`"select": "all"`, `"mtuu": 1`), types.ErrUnsupportedField, "mtuu")
	if entries, err := os.ReadDir(r.base); err != nil || len(entries) > 0 {
		t.Errorf("it leaves %v, %v", entries, err)
	}
	if err := os.RemoveAll(r.base); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.base, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantError(t, status(`"select": "all"`), 50, "not a directory")
	for options, want := range map[string]string{"size=4k": "no space left", "size=4k,ro": "read-only"} {
		r.base = filepath.Join(t.TempDir(), "state")
		r.mount(options)
		_ = os.WriteFile(filepath.Join(r.base, "fill"), make([]byte, 1<<20), 0o600) // an error is what it is for
		wantError(t, status(`"select": "all"`), 50, want, "has to be writable, with room in it")
	}
	wantError(t, status(`"select": "x"`), types.ErrInvalidNetworkConfig, "select")
}
