// Package pod tests the program as a sidecar: podman runs it in a container of
// its own, from an empty image and with next to no privileges, beside another
// that runs QEMU, in a pod whose network real CNI plugins made. "make test-pod"
// runs it.
package pod

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest/vmtest"
)

const (
	image    = "localhost/virt-launcher-net"
	client   = "client" // a container in a pod of its own
	stateDir = "/run/virt-launcher-net"
	nicsDir  = "/run/nics"
	page     = "hello from the guest\n"

	// bootTime is how long a guest may take to boot and to get its lease.
	bootTime = time.Minute
	// restartTime is how long podman may take to start the sidecar again and it
	// to serve; of that, the sidecar takes some 10 ms.
	restartTime = 30 * time.Second
	// leaseTime makes the guest ask again after half of it; its udhcpc takes no
	// shorter one.
	leaseTime = 30 * time.Second
)

// vmPod is a pod with a VM.
type vmPod struct {
	*node
	name   string
	dir    string // where its guest reports
	ip     netip.Addr
	mac    string
	guest  vmtest.Report
	before string // the node's network before it
	spaces string // and the namespaces for networks there
}

// sidecar is the name of the container that runs the program.
func (p *vmPod) sidecar() string { return p.name + "-network" }

// launcher is the name of the container that runs QEMU.
func (p *vmPod) launcher() string { return p.name + "-launcher" }

// status is what the test needs of what the program says of itself.
type status struct {
	Server struct {
		Alive bool
		Since time.Time
	}
	Interfaces []struct {
		MAC       string
		Addresses []netip.Prefix
		Lease     struct {
			State    string
			Received map[string]int
		}
	}
}

func (p *vmPod) status(ctx context.Context) (status, error) {
	var s status
	out, err := p.try(ctx, "podman", "exec", p.sidecar(), "/virt-launcher-net", "status", "-o", "json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &s)
	}
	if err == nil && len(s.Interfaces) != 1 {
		err = fmt.Errorf("want one interface in %s", out)
	}
	return s, err
}

// TestPod follows a pod with a VM from its start to its end.
func TestPod(t *testing.T) {
	if os.Getenv("VLN_TEST_POD") == "" {
		t.Skip("needs podman and an image: run make test-pod")
	}
	n := newNode(t)
	n.podman(t, "build", "--quiet", "--tag", image, "--build-arg", "TARGETOS=linux", "--build-arg", "TARGETARCH="+runtime.GOARCH,
		filepath.Dir(podtest.Built(t, ".")))
	// Another pod on the node; the first one also makes the bridge, which stays.
	n.runHost(t, []string{"--name", client, "--cgroup-parent", n.cgroup, "--cap-add", "net_raw"}, "sleep", "infinity")

	p := n.startVM(t, "vm")
	t.Run("image", p.testImage)
	t.Run("reach", p.testReach)
	t.Run("restart", p.testRestart)
	t.Run("removal", p.testRemoval)
}

// startVM starts a pod with the sidecar and, once that has prepared the
// network, a VM on it, and waits until the guest has reported.
func (n *node) startVM(t *testing.T, name string) *vmPod {
	t.Helper()
	p := &vmPod{node: n, name: name, dir: t.TempDir(), before: podtest.TakeSnapshot(t, n.NS), spaces: n.run(t, "ls", "/run/netns")}
	t.Cleanup(func() {
		if t.Failed() {
			p.logAll(t)
		}
	})
	n.podman(t, "pod", "create", "--name", name, "--cgroup-parent", n.cgroup)
	n.podman(t, "run", "--detach", "--pod", name, "--name", p.sidecar(), "--restart", "always",
		"--read-only", "--read-only-tmpfs=false", "--security-opt", "no-new-privileges",
		"--cap-drop", "all", "--cap-add", "net_admin,net_raw",
		"--device", "/dev/net/tun", "--volume", name+"-state:"+stateDir, "--volume", name+"-nics:"+nicsDir,
		image, "run", "--output-dir", nicsDir, "--lease-time", leaseTime.String())
	n.podman(t, "exec", p.sidecar(), "/virt-launcher-net", "wait", "--for", "network", "--timeout", "10s")
	s, err := p.status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.mac, p.ip = s.Interfaces[0].MAC, s.Interfaces[0].Addresses[0].Addr()

	p.launch(t)
	ctx, cancel := context.WithTimeout(t.Context(), bootTime)
	defer cancel()
	if p.guest, err = vmtest.WaitReport(ctx, filepath.Join(p.dir, "serial")); err != nil {
		t.Fatal(err)
	}
	return p
}

// launch starts QEMU in a container without any capability: the tap alone gives
// it the pod's network.
func (p *vmPod) launch(t *testing.T) {
	t.Helper()
	options := []string{
		"--pod", p.name, "--name", p.launcher(), "--cap-drop", "all", "--device", "/dev/net/tun",
		"--volume", podtest.Built(t, "guest") + ":/guest:ro", "--volume", p.dir + ":/report",
		"--volume", p.name + "-nics:" + nicsDir + ":ro",
	}
	vm := vmtest.VM{GuestDir: "/guest"}
	p.runHost(t, options, "bash", "-euc", `mapfile -t nics <"$1"; exec "${@:2}" "${nics[@]}"`, "launcher", nicsDir+"/qemu.args",
		"qemu-system-x86_64", "-nodefaults", "-nographic", "-no-reboot", "-machine", "q35,accel=tcg", "-cpu", "max", "-m", "256",
		"-kernel", vm.Kernel(), "-initrd", vm.Initrd(), "-append", vm.Cmdline(), "-serial", "file:/report/serial")
}

// runHost starts a container that has this machine's programs and nothing else.
// The options are those of "podman run", besides the command.
func (n *node) runHost(t *testing.T, options []string, command ...string) {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"bin", "lib", "lib64", "sbin"} {
		if err := os.Symlink("usr/"+dir, filepath.Join(root, dir)); err != nil {
			t.Fatal(err)
		}
	}
	n.podman(t, slices.Concat([]string{"run", "--detach"}, options,
		[]string{"--volume", "/usr:/usr:ro", "--rootfs", root}, command)...)
}

// The image holds the program alone, small, and the program cannot get any
// privileges but those it needs.
func (p *vmPod) testImage(t *testing.T) {
	if layers := p.podman(t, "image", "inspect", "--format", "{{len .RootFS.Layers}}", image); layers != "1" {
		t.Errorf("the image has %s layers", layers)
	}
	size, err := os.Stat(podtest.Built(t, "image/linux/"+runtime.GOARCH+"/virt-launcher-net"))
	if err != nil {
		t.Fatal(err)
	}
	if size.Size() > 15<<20 {
		t.Errorf("the program has %d bytes", size.Size())
	}
	pid := p.podman(t, "inspect", "--format", "{{.State.Pid}}", p.sidecar())
	for line := range strings.Lines(p.run(t, "cat", "/proc/"+pid+"/status")) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		want := map[string]string{"CapBnd": "0000000000003000", "NoNewPrivs": "1"}
		if w, ok := want[name]; ok && value != w { // bits 12 and 13 are CAP_NET_ADMIN and CAP_NET_RAW
			t.Errorf("%s is %s, want %s", name, value, w)
		}
	}
}

// The guest has the pod's address and is there for other pods.
func (p *vmPod) testReach(t *testing.T) {
	if p.guest.Address.Addr() != p.ip || p.guest.MAC != p.mac || p.guest.MTU != 1450 {
		t.Errorf("the guest reports %+v, the pod has %s %s", p.guest, p.ip, p.mac)
	}
	p.podman(t, "exec", p.sidecar(), "/virt-launcher-net", "wait", "--for", "lease", "--timeout", "1s")
	p.podman(t, "exec", client, "ping", "-c", "2", "-i", "0.2", "-W", "2", p.ip.String())
	if out := p.podman(t, "exec", client, "curl", "-sS", "--max-time", "5", "http://"+p.ip.String()); out != strings.TrimSpace(page) {
		t.Errorf("the guest's page is %q", out)
	}
}

// A sidecar that is killed serves again, its own container new and the pod's
// network as it was; a connection to the VM outlives it.
func (p *vmPod) testRestart(t *testing.T) {
	connection := p.dial(t)
	before := p.inPod(t)
	killed := time.Now()
	p.kill(t, p.sidecar())

	// The VM is there while nobody serves.
	p.run(t, "ping", "-c", "5", "-i", "0.05", "-W", "1", p.ip.String())
	ctx, cancel := context.WithTimeout(t.Context(), restartTime)
	defer cancel()
	s := p.waitStatus(ctx, t, func(s status) bool { return s.Server.Alive && s.Server.Since.After(killed) })
	t.Logf("it serves %v after it was killed", s.Server.Since.Sub(killed).Round(time.Millisecond))

	// The guest's next renewal is answered by the new process.
	ctx, cancel = context.WithTimeout(t.Context(), 2*leaseTime)
	defer cancel()
	s = p.waitStatus(ctx, t, func(s status) bool { return s.Interfaces[0].Lease.Received["REQUEST"] > 0 })
	if state := s.Interfaces[0].Lease.State; state != "bound" {
		t.Errorf("the lease is %s", state)
	}
	if diff := podtest.Diff(before, p.inPod(t)); diff != "" {
		t.Errorf("the pod's network changed:\n%s", diff)
	}
	if _, err := io.WriteString(connection, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(connection)
	if err != nil || !strings.HasSuffix(string(answer), page) {
		t.Errorf("the connection opened before gives %q, %v", answer, err)
	}
}

// dial opens a connection to the guest's web server and leaves it idle.
func (p *vmPod) dial(t *testing.T) net.Conn {
	t.Helper()
	var connection net.Conn
	err := p.Do(func() (err error) { // one address: dialled on this thread
		connection, err = net.DialTimeout("tcp4", netip.AddrPortFrom(p.ip, 80).String(), 2*time.Second)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	if err := connection.SetDeadline(time.Now().Add(3 * leaseTime)); err != nil {
		t.Fatal(err)
	}
	return connection
}

// inPod is a snapshot of the pod's network.
func (p *vmPod) inPod(t *testing.T) string {
	t.Helper()
	infra := p.podman(t, "pod", "inspect", "--format", "{{.InfraContainerID}}", p.name)
	path := p.podman(t, "inspect", "--format", "{{.NetworkSettings.SandboxKey}}", infra)
	ns, err := podtest.OpenNS(fmt.Sprintf("/proc/%d/root%s", p.pid, path))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	return podtest.TakeSnapshot(t, ns)
}

// waitStatus waits until the program says what is wanted.
func (p *vmPod) waitStatus(ctx context.Context, t *testing.T, wanted func(status) bool) status {
	t.Helper()
	for {
		s, err := p.status(ctx)
		if err == nil && wanted(s) {
			return s
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the sidecar says %+v, %v", s, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Nothing of a removed pod stays on the node.
func (p *vmPod) testRemoval(t *testing.T) {
	p.podman(t, "pod", "rm", "--force", "--time", "5", p.name)
	// The kernel takes a namespace and what is in it down by and by.
	ctx, cancel := context.WithTimeout(t.Context(), podtest.Patience)
	defer cancel()
	for {
		diff := podtest.Diff(p.before, podtest.TakeSnapshot(t, p.NS))
		if diff == "" {
			break
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the node is not as before the pod:\n%s", diff)
		case <-time.After(50 * time.Millisecond):
		}
	}
	if now := p.run(t, "ls", "/run/netns"); now != p.spaces {
		t.Errorf("network namespaces on the node were %q, now %q", p.spaces, now)
	}
}

// logAll prints what the containers and the guest said.
func (p *vmPod) logAll(t *testing.T) {
	for _, container := range []string{p.sidecar(), p.launcher()} {
		out, _ := p.command(context.Background(), "podman", "logs", container).CombinedOutput() // or why not
		t.Logf("%s printed:\n%s", container, out)
	}
	serial, _ := os.ReadFile(filepath.Join(p.dir, "serial")) // if it came so far
	t.Logf("the guest printed:\n%s", serial)
}
