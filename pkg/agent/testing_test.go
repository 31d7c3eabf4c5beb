package agent_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/attachment"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/agent"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// node is what an agent serves in a test: its state directory, and the directory in
// which network namespaces are mounted, as /run/netns is.
type node struct {
	stateDir string
	netns    string
	log      podtest.Buffer // of all agents
}

func newNode(t testing.TB) *node {
	t.Helper()
	n := &node{stateDir: filepath.Join(t.TempDir(), "state"), netns: filepath.Join(t.TempDir(), "netns")}
	if err := os.Mkdir(n.netns, 0o755); err != nil {
		t.Fatal(err)
	}
	return n
}

// mount mounts a network namespace, and returns its path. It is unmounted at the test's
// end, if that is not done before.
func (n *node) mount(t testing.TB, ns *podtest.NS, name string) string {
	t.Helper()
	path := filepath.Join(n.netns, name)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	podtest.Mount(t, ns.Path(), path, "", "")
	return path
}

// unmount does what a runtime does at a pod's end.
func unmount(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
		return err
	}
	return os.Remove(path)
}

// vm is a pod of the node that is prepared for its VM.
type vm struct {
	*podtest.Pod
	attachment.Attachment
	tap string
	mac net.HardwareAddr
}

// prepare prepares an interface of the pod as the CNI plugin does.
func (n *node) prepare(t testing.TB, pod *podtest.Pod, path, name string, options map[string]string) vm {
	t.Helper()
	return n.prepareAs(t, "sandbox-"+filepath.Base(path), pod, path, name, options)
}

// prepareAs is prepare for a container of that ID.
func (n *node) prepareAs(t testing.TB, id string, pod *podtest.Pod, path, name string, options map[string]string) vm {
	t.Helper()
	v := vm{Pod: pod, Attachment: attachment.Attachment{
		ContainerID: id, Interface: name, Netns: path, Since: time.Now(), Pod: attachment.Pod{Namespace: "default", Name: filepath.Base(path)},
		Options: map[string]json.RawMessage{"hostname": []byte(`"vm"`), "dns": []byte(`"10.96.0.10"`)},
	}}
	for key, value := range options {
		v.Options[key] = []byte(value)
	}
	o, err := v.Settings()
	if err != nil {
		t.Fatal(err)
	}
	prepared, err := prestart.Hook{
		Netns: path, StateDir: attachment.Dir(n.stateDir, id), Interfaces: []string{name}, Network: o.Network, Lease: o.Lease, NoIdentity: true, Timeout: time.Minute,
	}.Prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	v.tap, v.mac = prepared[0].Tap, prepared[0].MAC.HardwareAddr()
	if err := v.Write(n.stateDir); err != nil {
		t.Fatal(err)
	}
	return v
}

// newVM makes a pod with a network of its own, and prepares it.
func (n *node) newVM(t testing.TB, name string) vm {
	t.Helper()
	pod := podtest.NewPod(t, podtest.Calico)
	return n.prepare(t, pod, n.mount(t, pod.NS, name), "eth0", nil)
}

// running is an agent that runs in this process.
type running struct {
	*agent.Agent
	log    podtest.Buffer
	cancel context.CancelFunc
	ended  chan error
}

// start starts an agent, which is ended at the test's end.
func (n *node) start(t testing.TB) *running {
	t.Helper()
	r := &running{ended: make(chan error, 1)}
	r.Agent = agent.New(agent.Options{StateDir: n.stateDir, Log: slog.New(slog.NewTextHandler(io.MultiWriter(&r.log, &n.log), &slog.HandlerOptions{Level: slog.LevelDebug}))})
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go func() { r.ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		r.stop(t)
		if t.Failed() {
			t.Logf("the agent logged:\n%s", r.log.String())
		}
	})
	return r
}

func (r *running) stop(t testing.TB) {
	t.Helper()
	if r.cancel == nil {
		return
	}
	r.cancel()
	r.cancel = nil
	if err := <-r.ended; err != nil {
		t.Error(err)
	}
}

func (n *node) client() agent.Client { return agent.Client{StateDir: n.stateDir} }

// until waits until the agent's status is as wanted.
func (n *node) until(t testing.TB, what string, wanted func(agent.Status) bool) agent.Status {
	t.Helper()
	var status agent.Status
	var err error
	defer func() {
		if t.Failed() {
			t.Logf("the status is %+v, %v", status, err)
		}
	}()
	n.log.Until(t, what, func(string) bool {
		status, err = n.client().Status(t.Context())
		return err == nil && wanted(status)
	})
	return status
}

// ready tells how many pods of an agent are ready.
func ready(s agent.Status) (count int) {
	for _, p := range s.Pods {
		if p.Served.Ready {
			count++
		}
	}
	return count
}

// guest plugs a guest into the VM's tap.
func (v vm) guest(t testing.TB) *podtest.Guest {
	t.Helper()
	return podtest.NewGuest(t, v.NS, v.tap, v.mac)
}

// boot has a guest get its lease.
func (v vm) boot(t testing.TB, guest *podtest.Guest) {
	t.Helper()
	lease, err := guest.Udhcpc(t.Context())
	if err == nil && netip.MustParseAddr(lease["ip"]) != v.IPv4.Addr() {
		err = fmt.Errorf("lease is %v, want %s", lease, v.IPv4)
	}
	if err != nil {
		t.Fatal(err)
	}
}
