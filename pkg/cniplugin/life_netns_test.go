package cniplugin_test

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// DEL is no error for what is gone, in part or as a whole, and may be repeated.
func TestDelete(t *testing.T) {
	t.Parallel()
	pod, r := newPod(t, podtest.Flannel)
	before := settled(t, pod.NS)
	list, rt := r.list("1.0.0", plugin(`"select": "all"`)), sandbox(pod.NS, "c1", "eth0", nil)
	at := func(path string) *libcni.RuntimeConf {
		gone := *rt
		gone.NetNS = path
		return &gone
	}
	for _, path := range []string{pod.Path(), "", "/run/nope", "/etc/hostname"} {
		r.del(list, at(path)) // never added
	}
	r.empty()
	if _, err := os.Stat(r.base); err == nil {
		t.Error("a DEL makes a directory")
	}
	// Whatever the runtime knows of it, a namespace that lives is put back.
	another := podtest.New(t)
	for _, path := range []string{"", "/run/nope", "/etc/hostname", another.Path()} {
		r.add(list, rt)
		for range 2 {
			r.del(list, at(path))
			r.empty()
		}
		same(t, "after a DEL with CNI_NETNS="+path, before, pod.NS)
	}
	// A record that can't be read does not keep the pod from going.
	r.add(list, rt)
	if err := os.WriteFile(filepath.Join(r.base, "c1/eth0.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.del(list, rt)
	r.empty()
	if log := r.log.String(); !strings.Contains(log, "eth0 is prepared") || !strings.Contains(log, "nothing says what it was") {
		t.Errorf("it says\n%s", log)
	}
}

// An interface that is plugged in later is prepared and taken back while the first one
// lives.
func TestLater(t *testing.T) {
	t.Parallel()
	for _, datapath := range datapaths {
		t.Run(datapath, func(t *testing.T) {
			t.Parallel()
			pod, r := newPod(t, podtest.Flannel)
			before := settled(t, pod.NS)
			options := plugin(capabilities, `"datapath": "`+datapath+`"`)
			first, second := r.list("1.1.0", options), r.list("1.1.0", `{"type": "ptp", `+hostLocal+`}, `+options)
			second.Name = "second"
			eth0, net1 := sandbox(pod.NS, "c1", "eth0", isVM), sandbox(pod.NS, "c1", "net1", isVM)
			delete(net1.CapabilityArgs, "dns") // Multus passes none
			r.add(first, eth0)
			one := settled(t, pod.NS)
			if names := interfaces(r.add(second, net1)); !slices.Equal(names[1:], []string{"net1 in the pod", "tap-net1 in the pod"}) {
				t.Errorf("the second has %q", names)
			}
			if dns := string(r.attached("c1", "net1").Options["dns"]); !strings.Contains(dns, "10.96.0.10") {
				t.Errorf("the second NIC's DNS is %s", dns)
			}
			if err := r.check(first, eth0); err != nil {
				t.Error(err)
			}
			// What is attached is nobody else's.
			other := r.list("1.0.0", plugin(`"select": "all"`, `"interface": "eth0"`))
			other.Name = "third"
			_, err := r.tryAdd(t.Context(), other, sandbox(pod.NS, "c1", "net2", nil))
			wantError(t, err, 102, "eth0 is attached already, as eth0 of the network net")
			r.del(other, sandbox(pod.NS, "c1", "net2", nil))

			r.del(second, net1)
			same(t, "without the second", one, pod.NS)
			if err := r.check(first, eth0); err != nil {
				t.Error(err)
			}
			r.add(second, net1)
			r.del(first, eth0) // the first goes first
			if files := r.files(); slices.ContainsFunc(files, func(name string) bool { return strings.Contains(name, "eth0") }) {
				t.Errorf("it is left: %q", files)
			}
			r.del(second, net1)
			r.empty()
			same(t, "afterwards", before, pod.NS)
		})
	}
}

// Calls at once for one container, and for several, are as calls one after the other.
func TestAtOnce(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	pod.Node.IP(t, "link add host1 type veth peer name net1 netns "+pod.Path(), "link set host1 up")
	pod.IP(t, "addr add 192.0.2.77/24 dev net1", "link set net1 up")
	r := newRuntime(t, pod.Node)
	before := settled(t, pod.NS)
	eth0, net1 := r.list("1.0.0", plugin(`"select": "all"`)), r.list("1.0.0", plugin(`"select": "all"`))
	net1.Name = "second"
	const calls = 6
	results := make([]*types100.Result, calls)
	var wait sync.WaitGroup
	for i := range calls {
		wait.Go(func() {
			list, name := eth0, "eth0"
			if i%2 == 1 {
				list, name = net1, "net1"
			}
			var err error
			if results[i], err = r.tryAdd(t.Context(), list, sandbox(pod.NS, "c1", name, nil)); err != nil {
				t.Errorf("ADD of %s: %v", name, err)
			}
		})
	}
	if wait.Wait(); t.Failed() {
		return
	}
	for i := range calls {
		if !reflect.DeepEqual(results[i], results[i%2]) {
			t.Errorf("two calls have %v and %v", results[i], results[i%2])
		}
	}
	for range 3 { // ADD and DEL in any order leave one or the other
		wait.Go(func() { _, _ = r.tryAdd(t.Context(), eth0, sandbox(pod.NS, "c1", "eth0", nil)) })
		wait.Go(func() {
			if err := r.tryDel(eth0, sandbox(pod.NS, "c1", "eth0", nil)); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	r.add(eth0, sandbox(pod.NS, "c1", "eth0", nil))
	if err := r.check(eth0, sandbox(pod.NS, "c1", "eth0", nil)); err != nil {
		t.Error(err)
	}
	r.del(net1, sandbox(pod.NS, "c1", "net1", nil))
	r.del(eth0, sandbox(pod.NS, "c1", "eth0", nil))
	r.empty()
	same(t, "afterwards", before, pod.NS)
}

// An ADD that is killed at any moment is undone by DEL, and done by another ADD.
func TestKilled(t *testing.T) {
	t.Parallel()
	for _, datapath := range datapaths {
		t.Run(datapath, func(t *testing.T) {
			t.Parallel()
			pod, r := newPod(t, podtest.Flannel)
			before := settled(t, pod.NS)
			list, rt := r.list("1.0.0", plugin(`"select": "all"`, `"datapath": "`+datapath+`"`)), sandbox(pod.NS, "c1", "eth0", nil)
			start := time.Now()
			want := r.add(list, rt)
			took := time.Since(start)
			r.del(list, rt)
			killed := 0
			for i := range 16 {
				ctx, cancel := context.WithTimeout(t.Context(), rand.N(took))
				start := time.Now()
				_, err := r.tryAdd(ctx, list, rt)
				cancel()
				if err != nil {
					killed++
				} else { // a busy machine took longer for the one before
					took = time.Since(start)
				}
				if i%2 == 0 {
					got, err := r.tryAdd(t.Context(), list, rt)
					if err != nil || !reflect.DeepEqual(got, want) {
						t.Fatalf("after a killed ADD: %v, %v", got, err)
					}
					if err := r.check(list, rt); err != nil {
						t.Error(err)
					}
				}
				r.del(list, rt)
				r.empty()
				same(t, "after a killed ADD and DEL", before, pod.NS)
			}
			if killed < 3 {
				t.Errorf("only %d were killed", killed)
			}
		})
	}
}
