package cniconf

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/attachment"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

const flannel = `{"name": "cbr0", "cniVersion": "0.3.1", "plugins": [
  {"type": "flannel", "delegate": {"hairpinMode": true, "isDefaultGateway": true}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
`

func testNode(t *testing.T) Node {
	n := Node{
		BinDir: filepath.Join(t.TempDir(), "bin"), ConfDir: filepath.Join(t.TempDir(), "net.d"), StateDir: t.TempDir(), Chain: true,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	for _, dir := range []string{n.BinDir, n.ConfDir} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func (n Node) put(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(n.ConfDir, name), []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
}

// types are the plugins of the file that containerd takes: the first by name, with libcni.
func (n Node) types(t *testing.T) []string {
	t.Helper()
	files, err := libcni.ConfFiles(n.ConfDir, []string{".conf", ".conflist", ".json"})
	if err != nil || len(files) == 0 {
		t.Fatalf("the runtime finds %q, %v", files, err)
	}
	slices.Sort(files)
	list, err := libcni.ConfListFromFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var types []string
	for _, p := range list.Plugins {
		types = append(types, p.Network.Type)
	}
	return types
}

func (n Node) files(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, dir := range []string{n.ConfDir, n.BinDir} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			text, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			if e.Name() == Type {
				text = fmt.Appendf(nil, "%d bytes", len(text))
			}
			all[e.Name()] = string(text)
		}
	}
	return all
}

func (n Node) install(t *testing.T, want bool) {
	t.Helper()
	if changed, err := n.Install(t.Context()); err != nil || changed != want {
		t.Fatalf("install: changed %v, want %v; %v", changed, want, err)
	}
	if err := n.Installed(); err != nil {
		t.Fatal(err)
	}
}

func (n Node) uninstall(t *testing.T) {
	t.Helper()
	if _, err := n.Uninstall(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := n.Uninstalled(); err != nil {
		t.Fatal(err)
	}
}

// Installed it is in the chain, and installed again nothing changes; uninstalled all is as
// it was.
func TestInstall(t *testing.T) {
	n := testNode(t)
	n.put(t, "10-flannel.conflist", flannel)
	n.put(t, "20-other.conflist", strings.ReplaceAll(flannel, "cbr0", "other"))
	n.put(t, "README", "not a configuration")
	before := n.files(t)
	if err := n.Installed(); !errors.Is(err, ErrPending) {
		t.Errorf("before it is installed: %v", err)
	}

	n.install(t, true)
	if got := n.types(t); !slices.Equal(got, []string{"flannel", "portmap", Type}) {
		t.Errorf("the chain is %q", got)
	}
	info, err := os.Stat(n.binary())
	if same, _ := n.sameBinary(); err != nil || !same || info.Mode() != 0o755 {
		t.Errorf("the binary is %v, %v", info, err)
	}
	if info, err := os.Stat(filepath.Join(n.ConfDir, "10-flannel.conflist")); err != nil || info.Mode() != 0o640 {
		t.Errorf("the configuration is %v, %v", info, err)
	}
	n.install(t, false)

	n.Entry = map[string]json.RawMessage{"podPorts": []byte(`"8080"`), "datapath": []byte(`"redirect"`)}
	n.install(t, true)
	if got := n.files(t)["10-flannel.conflist"]; !strings.Contains(got,
		`"io.kubernetes.cri.pod-annotations": true}, "datapath": "redirect", "podPorts": "8080"}]}`) || strings.Count(got, Type) != 1 {
		t.Errorf("with other options it is\n%s", got)
	}
	if err := os.WriteFile(n.binary(), []byte("an older one"), 0o755); err != nil {
		t.Fatal(err)
	}
	n.install(t, true)

	n.uninstall(t)
	if after := n.files(t); !mapsEqual(before, after) {
		t.Errorf("there was\n%q, there is\n%q", before, after)
	}
	n.uninstall(t) // again
}

// until waits until check has no error, which it is asked for whenever something in the
// node's directories changes, or in others.
func (n Node) until(t *testing.T, check func() error, others ...string) {
	t.Helper()
	w, err := fsnotify.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, dir := range append(others, n.ConfDir, n.BinDir) {
		if err := w.Add(dir); err != nil {
			t.Fatal(err)
		}
	}
	late := time.After(time.Minute)
	for err := check(); err != nil; err = check() {
		select {
		case <-w.Events:
		case err := <-w.Errors:
			t.Fatal(err)
		case <-late:
			t.Fatal(err)
		}
	}
}

func mapsEqual(a, b map[string]string) bool { return fmt.Sprint(a) == fmt.Sprint(b) }

// A single plugin gets a list of its own, which the runtime takes before it, and which
// goes when the CNI comes with a list.
func TestConf(t *testing.T) {
	const bridge = `{"cniVersion": "0.4.0", "name": "mynet", "type": "bridge", "ipam": {"type": "host-local"}}`
	n := testNode(t)
	n.put(t, "10-bridge.conf", bridge)
	before := n.files(t)
	n.install(t, true)
	n.install(t, false)
	if got := n.types(t); !slices.Equal(got, []string{"bridge", Type}) {
		t.Errorf("the chain is %q", got)
	}
	list, err := libcni.ConfListFromFile(filepath.Join(n.ConfDir, "10-bridge-virt-launcher-net.conflist"))
	if err != nil || list.Name != "mynet" || list.CNIVersion != "0.4.0" || n.files(t)["10-bridge.conf"] != bridge {
		t.Errorf("it is %+v, %v", list, err)
	}
	n.uninstall(t)
	if after := n.files(t); !mapsEqual(before, after) {
		t.Errorf("there was\n%q, there is\n%q", before, after)
	}

	n.install(t, true)
	n.put(t, "05-new.conflist", flannel)
	n.install(t, true)
	if got := n.types(t); !slices.Equal(got, []string{"flannel", "portmap", Type}) {
		t.Errorf("the chain is %q", got)
	}
	if got := n.files(t); len(got) != 3 {
		t.Errorf("there is %q", got)
	}
}

// Behind Multus the plugin is in the runtime's own chain, so that it gets annotations, in
// a file that Multus does not take for the cluster's network.
func TestMultus(t *testing.T) {
	n := testNode(t)
	n.put(t, "10-flannel.conflist", flannel)
	n.put(t, "00-multus.conf", `{"cniVersion": "1.0.0", "name": "multus-cni-network", "type": "multus-shim", "clusterNetwork": "/host/etc/cni/net.d/10-flannel.conflist"}`)
	before := n.files(t)
	n.install(t, true)
	if got := n.types(t); !slices.Equal(got, []string{"multus-shim", Type}) {
		t.Errorf("the chain is %q", got)
	}
	after := n.files(t)
	if after["00-multus-virt-launcher-net.conflist"] == "" || len(after) != 4 || after["10-flannel.conflist"] != flannel {
		t.Errorf("there is %q", after)
	}
	n.uninstall(t)
	if after := n.files(t); !mapsEqual(before, after) {
		t.Errorf("there was\n%q, there is\n%q", before, after)
	}
}

// Lists that name the plugin and are another's stay: one with no other plugin, as for Multus,
// and one that is called after it, of which only the entry comes and goes.
func TestOwn(t *testing.T) {
	const alone = `{"name": "vms", "cniVersion": "1.0.0", "plugins": [{"type": "virt-launcher-net", "select": "all"}]}`
	n := testNode(t)
	n.put(t, "10-virt-launcher-net.conflist", flannel)
	n.put(t, "20-vms.conflist", alone)
	n.put(t, "30-vms-virt-launcher-net.conflist", alone)
	before := n.files(t)
	n.install(t, true)
	if got := n.types(t); !slices.Equal(got, []string{"flannel", "portmap", Type}) {
		t.Errorf("the chain is %q", got)
	}
	n.uninstall(t)
	if after := n.files(t); !mapsEqual(before, after) {
		t.Errorf("there was\n%q, there is\n%q", before, after)
	}
}

// What can't be chained yet is told, the plugin itself is there, and another's files are
// left alone.
func TestNotChained(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"none":         {nil, "no CNI configuration in %s yet"},
		"damaged":      {map[string]string{"10-a.conflist": flannel[:40], "20-b.conf": "{"}, "10-a.conflist: parse JSON: the text ends too early"},
		"old version":  {map[string]string{"10-a.conflist": strings.Replace(flannel, "0.3.1", "0.2.0", 1)}, `has cniVersion "0.2.0"`},
		"no version":   {map[string]string{"10-a.conf": `{"name": "a", "type": "bridge"}`}, `has cniVersion ""`},
		"multus":       {map[string]string{"05-multus.conf": `{"cniVersion": "0.3.1", "name": "m", "type": "multus-shim"}`, "10-a.conflist": flannel}, "chain=off"},
		"list as conf": {map[string]string{"10-a.conf": flannel}, "a plugin without a type"},
		"ours alone":   {map[string]string{"10-a.conflist": `{"name": "a", "cniVersion": "1.0.0", "plugins": [{"type": "virt-launcher-net"}]}`}, "no plugin but virt-launcher-net"},
		"ours as conf": {map[string]string{"10-a.conf": `{"name": "a", "cniVersion": "1.0.0", "type": "virt-launcher-net"}`}, "no plugin but virt-launcher-net"},
	} {
		t.Run(name, func(t *testing.T) {
			n := testNode(t)
			for name, text := range c.files {
				n.put(t, name, text)
			}
			before := n.files(t)
			want := strings.ReplaceAll(c.want, "%s", n.ConfDir)
			if _, err := n.Install(t.Context()); !errors.Is(err, ErrNotChained) || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
			after := n.files(t)
			if after[Type] == "" {
				t.Error("the plugin itself is not there")
			}
			delete(after, Type)
			if !mapsEqual(before, after) {
				t.Errorf("there was\n%q, there is\n%q", before, after)
			}
			n.Chain = false
			n.install(t, false)
		})
	}
}

// A file that can't be read does not keep the plugin out of the next one, which CRI-O
// takes.
func TestDamagedFirst(t *testing.T) {
	n := testNode(t)
	n.put(t, "05-a.conflist", "{")
	n.put(t, "10-b.conflist", flannel)
	n.install(t, true)
	if got := n.files(t); got["05-a.conflist"] != "{" || !strings.Contains(got["10-b.conflist"], Type) {
		t.Errorf("there is %q", got)
	}
}

// A link that leads to where the installer does not see, as from the directory that a
// container has of the node, may be what the runtime takes: no other file is in its place.
func TestLinkOutOfSight(t *testing.T) {
	t.Parallel()
	n := testNode(t)
	target := filepath.Join(t.TempDir(), "cbr0.conflist")
	if err := os.Symlink(target, filepath.Join(n.ConfDir, "10-flannel.conflist")); err != nil {
		t.Fatal(err)
	}
	n.put(t, "20-other.conflist", flannel)
	_, err := n.Install(t.Context())
	if !errors.Is(err, ErrNotChained) || !strings.Contains(err.Error(), "10-flannel.conflist leads to "+target) {
		t.Errorf("a link that leads to nothing: %v", err)
	}
	if text, err := os.ReadFile(filepath.Join(n.ConfDir, "20-other.conflist")); string(text) != flannel {
		t.Errorf("the other file is %s, %v", text, err)
	}
	if err := os.WriteFile(target, []byte(flannel), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Install(t.Context()); err != nil {
		t.Error(err)
	}
	if got := n.types(t); !slices.Contains(got, Type) {
		t.Errorf("the runtime runs %q", got)
	}
	if _, err := n.Uninstall(t.Context()); err != nil {
		t.Error(err)
	}
}

// Directories that can't be written, or are not there, are named.
func TestUnfitDirectories(t *testing.T) {
	n := testNode(t)
	n.put(t, "10-flannel.conflist", flannel)
	missing := n
	missing.ConfDir += "/none"
	if _, err := missing.Install(t.Context()); err == nil || !strings.Contains(err.Error(), missing.ConfDir+": no such file or directory: name the runtime's") {
		t.Errorf("without a directory: %v", err)
	}
	for _, dirOf := range []func(Node) string{func(n Node) string { return n.BinDir }, func(n Node) string { return n.ConfDir }} {
		n := testNode(t)
		n.put(t, "10-flannel.conflist", flannel)
		dir := dirOf(n)
		readOnly(t, dir)
		if _, err := n.Install(t.Context()); !errors.Is(err, unix.EROFS) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s is read-only: %v", dir, err)
		}
	}
}

func readOnly(t *testing.T, dir string) {
	t.Helper()
	podtest.Mount(t, dir, dir, "", "")
	if err := unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
}

// Many installers at once, and a CNI that rewrites its file meanwhile: no file is ever
// damaged, nothing of the CNI's is undone, and in the end the plugin is there once.
func TestTogether(t *testing.T) {
	n := testNode(t)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if err := n.Keep(ctx, n.Install); err != nil {
				t.Error(err)
			}
		})
	}
	path := filepath.Join(n.ConfDir, "10-flannel.conflist")
	latest := ""
	for i := range 20 {
		latest = strings.Replace(flannel, "cbr0", fmt.Sprint("cbr", i), 1)
		n.put(t, "10-flannel.conflist", latest)             // in place, as cp does
		time.Sleep(time.Duration(i) * 5 * time.Millisecond) // before, while and after they look: none of it is to matter
		if text, err := os.ReadFile(path); err != nil || !json.Valid(text) {
			t.Errorf("the file has\n%s\n%v", text, err)
		}
	}
	want := strings.Replace(latest, "}]}", "},\n  "+string(n.entry())+"]}", 1)
	n.until(t, func() error {
		text, err := os.ReadFile(path)
		if err == nil && string(text) != want {
			err = fmt.Errorf("the file has\n%s\nwant\n%s", text, want)
		}
		return err
	})
	cancel()
	all.Wait()
	if got := n.files(t); got["10-flannel.conflist"] != want || len(got) != 2 {
		t.Errorf("there is %q, want\n%s", got, want)
	}
}

// Kept, it is there when the CNI comes, or another one before it, and when somebody removes
// it.
func TestKeep(t *testing.T) {
	n := testNode(t)
	log := &podtest.Buffer{}
	n.Log = slog.New(slog.NewTextHandler(log, nil))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- n.Keep(ctx, n.Install) }()
	installed := func() { t.Helper(); n.until(t, n.Installed) }
	n.put(t, "10-flannel.conflist", flannel[:30]) // half of it
	log.Wait(t, "the text ends too early")
	n.put(t, "10-flannel.conflist", flannel)
	installed()
	n.put(t, "10-flannel.conflist", flannel)
	installed()
	if err := os.Remove(n.binary()); err != nil {
		t.Fatal(err)
	}
	installed()
	// Another network comes, which the runtime takes from then on, and goes again.
	n.put(t, "05-calico.conflist", strings.Replace(flannel, "cbr0", "calico", 1))
	installed()
	if types := n.types(t); !slices.Contains(types, Type) {
		t.Errorf("of another network the runtime runs %q", types)
	}
	if err := os.Remove(filepath.Join(n.ConfDir, "05-calico.conflist")); err != nil {
		t.Fatal(err)
	}
	if types := n.types(t); !slices.Contains(types, Type) { // at once: a pod may be made just now
		t.Errorf("without another network the runtime runs %q", types)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	n.uninstall(t)
	if got := n.files(t); len(got) != 1 || got["10-flannel.conflist"] != flannel {
		t.Errorf("uninstalled there is %q", got)
	}
	n.BinDir += "/none"
	if err := n.Keep(t.Context(), n.Install); err == nil {
		t.Error("it is kept in no directory")
	}
}

// Who keeps it ends when a directory is made anew, which he would not see: the one that has
// the path of the old one, and the one that a container has no mount of.
func TestKeepReplaced(t *testing.T) {
	t.Parallel()
	for _, dirOf := range []func(*Node) *string{func(n *Node) *string { return &n.BinDir }, func(n *Node) *string { return &n.ConfDir }} {
		for _, mounted := range []bool{false, true} {
			n := testNode(t)
			n.put(t, "10-flannel.conflist", flannel)
			there := *dirOf(&n)
			if mounted {
				*dirOf(&n) = t.TempDir()
				podtest.Mount(t, there, *dirOf(&n), "", "") // as a container has one of the node
			}
			ended := make(chan error)
			go func() { ended <- n.Keep(t.Context(), n.Install) }()
			n.until(t, n.Installed)
			err := os.RemoveAll(there)
			for errors.Is(err, unix.ENOTEMPTY) { // the plugin is put there again meanwhile
				err = os.RemoveAll(there)
			}
			if err := errors.Join(err, os.Mkdir(there, 0o755)); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-ended:
				if err == nil || !strings.Contains(err.Error(), *dirOf(&n)+", or put another") {
					t.Errorf("%s is another one, mounted %v: %v", there, mounted, err)
				}
			case <-time.After(time.Minute):
				t.Errorf("%s is another one, mounted %v, and nobody notices", there, mounted)
			}
		}
	}
}

// A link's target that comes later is noticed, wherever it is.
func TestKeepLink(t *testing.T) {
	t.Parallel()
	n := testNode(t)
	log := &podtest.Buffer{}
	n.Log = slog.New(slog.NewTextHandler(log, nil))
	target := filepath.Join(t.TempDir(), "cbr0.conflist")
	if err := os.Symlink(target, filepath.Join(n.ConfDir, "10-flannel.conflist")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- n.Keep(ctx, n.Install) }()
	log.Wait(t, "level=WARN msg=waiting") // for the link's target
	if err := os.WriteFile(target, []byte(flannel), 0o600); err != nil {
		t.Fatal(err)
	}
	n.until(t, n.Installed, filepath.Dir(target))
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// The binary stays for the end of pods that it has prepared.
func TestInUse(t *testing.T) {
	n := testNode(t)
	n.put(t, "10-flannel.conflist", flannel)
	n.install(t, true)
	a := attachment.Attachment{
		ContainerID: "c", Interface: "eth0", Netns: "/proc/self/ns/net",
		Pod: attachment.Pod{Namespace: "vms", Name: "vm-1"},
	}
	if err := a.Write(n.StateDir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(n.StateDir, "another's"), 0o700); err != nil {
		t.Fatal(err)
	}
	damaged := filepath.Join(n.StateDir, "damaged")
	if err := os.Mkdir(damaged, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(damaged, "eth0.attachment"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	changed, err := n.Uninstall(t.Context())
	if !errors.Is(err, ErrInUse) || !changed || !strings.Contains(err.Error(), ": vms/vm-1, container damaged (") || !strings.Contains(err.Error(), "remove "+damaged) {
		t.Errorf("changed %v, %v", changed, err)
	}
	if got := n.files(t); got["10-flannel.conflist"] != flannel || got[Type] == "" {
		t.Errorf("there is %q", got)
	}
	if err := n.Uninstalled(); !errors.Is(err, ErrPending) {
		t.Errorf("while it is in use: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- n.Keep(ctx, n.Uninstall) }() // waits for the pod's end
	if err := errors.Join(attachment.Remove(n.StateDir, "c", "eth0"), os.RemoveAll(damaged)); err != nil {
		t.Fatal(err)
	}
	n.until(t, n.Uninstalled)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := n.Uninstalled(); err != nil {
		t.Error(err)
	}
}
