package kind

import (
	"maps"
	"strings"
	"testing"
)

// TestVM follows two VMs in pods, as the example has them, one of which may be
// restarted.
func TestVM(t *testing.T) {
	apply(t)
	api := "https://" + get(t, "service/kubernetes", ".spec.clusterIP") + "/livez"
	inside, own := "http://server.default.svc.cluster.local", "http://self.vm-a.svc.cluster.local"
	a := newVM(t, ".", "vm", "vm-a", "Never", api, inside, own)
	b := newVM(t, ".", "vm", "vm-b", "Always")
	before := left(t)
	a.apply(t)
	b.apply(t)

	t.Run("ready", func(t *testing.T) {
		a.waitReady(t)
		b.waitReady(t)
		a.checkReady(t)
		b.checkReady(t)
	})
	t.Run("reach", func(t *testing.T) {
		a.reach(t)
		b.reach(t)
		r := a.report(t)
		if s := a.status(t); r.Address.Addr().String() != a.ip(t) || r.MTU != s.MTU {
			t.Errorf("the guest reports %+v, the pod has %s and %+v", r, a.ip(t), s)
		}
		if want := map[string]string{api: "ok", inside: server, own: guest}; !maps.Equal(r.Got, want) {
			t.Errorf("the guest got %q, want %q", r.Got, want)
		}
	})
	t.Run("restart of the sidecar", a.testRestart)
	t.Run("sandbox made again", b.testSandbox)
	t.Run("pod made again", func(t *testing.T) {
		a.kubectl(t, "delete", "pod/vm")
		a.apply(t)
		a.waitReady(t)
		a.reach(t)
	})
	t.Run("end of the VM", a.end)
	t.Run("nothing is left", func(t *testing.T) { nothingIsLeft(t, before, a, b) })
}

// A sidecar that is killed serves again, and the guest's connections stay.
func (v *vm) testRestart(t *testing.T) {
	connection := dial(t, v.ip(t))
	kill(t, v.get(t, ".status.initContainerStatuses[0].containerID"))
	client(t, "ping", "-c", "5", "-i", "0.1", "-W", "2", v.ip(t)) // while nobody serves
	v.kubectl(t, "wait", "--for=jsonpath={.status.initContainerStatuses[0].restartCount}=1", "--timeout="+patience, "pod/"+v.pod)
	v.waitReady(t)
	v.run(t, "wait", "--for=lease", "--timeout=10s")
	if answer := connection.get(t); !strings.HasSuffix(answer, guest) {
		t.Errorf("the connection opened before gives %q", answer)
	}
	v.reach(t)
	if restarts := v.get(t, ".status.containerStatuses[0].restartCount"); restarts != "0" {
		t.Errorf("the launcher was restarted %s times", restarts)
	}
}

// A pod whose sandbox dies gets another network: the sidecar must not take up
// what it did in the first.
func (v *vm) testSandbox(t *testing.T) {
	before, address := v.sandbox(t), v.ip(t)
	kill(t, before)
	v.kubectl(t, "wait", "--for=condition=Ready=false", "--timeout="+patience, "pod/"+v.pod)
	v.waitReady(t)
	if now := v.sandbox(t); now == before {
		t.Errorf("the sandbox is still %s", now)
	}
	t.Logf("the pod's address was %s and is %s", address, v.ip(t))
	v.checkReady(t)
	v.reach(t)
}
