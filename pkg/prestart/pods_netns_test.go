package prestart_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// logged has a hook log into what is returned.
func logged(h *prestart.Hook) *podtest.Buffer {
	var log podtest.Buffer
	h.Log = slog.New(slog.NewTextHandler(&log, nil))
	return &log
}

// restored ends a session and has the pod as it was.
func restored(t *testing.T, pod *podtest.Pod, h prestart.Hook, session *prestart.Session, before string) {
	t.Helper()
	if err := session.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.Force = true
	if _, err := h.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("after restore:\n%s", d)
	}
}

// Each family has the default route of the interface that has it.
func TestDefaultRoutePerFamily(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.AWSIPv6)
	before := podtest.TakeSnapshot(t, pod.NS)
	h := newHook(t, pod)
	h.Interfaces = []string{"eth0", "v4if0"}
	session := run(t, h)
	if err := podtest.WaitSettled(t.Context(), pod.Node); err != nil {
		t.Fatal(err)
	}
	networks := session.Interfaces()
	guest6 := podtest.NewGuest(t, pod.NS, networks[0].Tap, networks[0].MAC.HardwareAddr())
	solicitIPv6(t, guest6)
	guest6.Run(t, "ping", "-c3", "-i0.2", "-W20", podtest.OutsideIPv6.String())
	guest4 := podtest.NewGuest(t, pod.NS, networks[1].Tap, networks[1].MAC.HardwareAddr())
	if lease, err := guest4.Udhcpc(t.Context()); err != nil || lease["ip"] != "169.254.172.10" {
		t.Fatalf("lease %v, error %v", lease, err)
	}
	guest4.Run(t, "ping", "-c3", "-i0.2", "-W20", podtest.OutsideIP.String())
	restored(t, pod, h, session, before)

	// Alone, eth0 is the VM's, and what that does not get is said.
	h.Interfaces = nil
	log := logged(&h)
	session = run(t, h)
	if names := session.Interfaces(); len(names) != 1 || names[0].Interface != "eth0" {
		t.Errorf("networks %+v", names)
	}
	if !strings.Contains(log.String(), "interface v4if0 (169.254.172.10/22, the IPv4 default route)") {
		t.Errorf("log:\n%s", log)
	}
}

// withNetwork adds net1 to a pod with an eth0 of its own, on a switch of the node
// that has no IPAM.
func withNetwork(t *testing.T) *podtest.Pod {
	t.Helper()
	pod := podtest.NewPod(t, podtest.BridgeCNI)
	pod.Node.IP(t, "link add plain0 "+podtest.Switch, "link set plain0 up", "addr add 10.77.0.1/24 dev plain0", "addr add fe80::1/64 dev plain0 nodad",
		"link add veth1 type veth peer name net1 netns "+pod.Path(), "link set veth1 master plain0 up")
	pod.IP(t, "link set net1 up")
	if err := podtest.WaitSettled(t.Context(), pod.NS); err != nil {
		t.Fatal(err)
	}
	return pod
}

// A network without IPAM can be all that the VM has, also where a router has given
// the pod an address: the VM takes what address it likes.
func TestNetworkWithoutIPAM(t *testing.T) {
	t.Parallel()
	for _, routed := range []bool{false, true} {
		t.Run(map[bool]string{false: "silent", true: "with a router"}[routed], func(t *testing.T) {
			t.Parallel()
			pod := withNetwork(t)
			if routed {
				frame := podtest.RouterFrame([]byte{2, 0, 0, 0, 0, 1}, netip.MustParseAddr("fe80::1"), netip.MustParsePrefix("2001:db8:77::/64"))
				if err := podtest.SendFrames(pod.Node, "plain0", frame); err != nil {
					t.Fatal(err)
				}
				if err := podtest.WaitRouter(t.Context(), pod.NS); err != nil {
					t.Fatal(err)
				}
				if err := podtest.WaitSettled(t.Context(), pod.NS); err != nil {
					t.Fatal(err)
				}
			}
			h := newHook(t, pod)
			h.Interfaces = []string{"net1"}
			session := run(t, h)
			network := session.Interfaces()[0]
			if len(network.Addresses) > 0 {
				t.Errorf("the VM is to have %v", network.Addresses)
			}
			guest := podtest.NewGuest(t, pod.NS, network.Tap, network.MAC.HardwareAddr())
			guest.IP(t, "addr add 10.77.0.9/24 dev eth0", "addr add 2001:db8:77::9/64 dev eth0 nodad")
			pod.Node.IP(t, "addr add 2001:db8:77::1/64 dev plain0 nodad")
			guest.Run(t, "ping", "-c3", "-i0.2", "-W20", "10.77.0.1")
			guest.Run(t, "ping", "-c3", "-i0.2", "-W20", "2001:db8:77::1")
		})
	}
}

// A network whose one address is a duplicate has IPAM nevertheless: the VM does not
// take what address it likes.
func TestDuplicateAddressIsGuarded(t *testing.T) {
	t.Parallel()
	pod := withNetwork(t)
	pod.Node.IP(t, "addr add fd77::9/64 dev plain0 nodad")
	pod.IP(t, "addr add fd77::9/64 dev net1")
	if err := podtest.WaitSettled(t.Context(), pod.NS); err == nil {
		t.Fatal("the address is no duplicate")
	}
	h := newHook(t, pod)
	h.Interfaces, h.SkipCheck = []string{"eth0", "net1"}, true
	log := logged(&h)
	network := run(t, h).Interfaces()[1]
	guest := podtest.NewGuest(t, pod.NS, network.Tap, network.MAC.HardwareAddr())
	guest.IP(t, "addr add 10.77.0.9/24 dev eth0")
	if out, err := guest.Output(t.Context(), "ping", "-c1", "-W1", "10.77.0.1"); err == nil {
		t.Errorf("the guest has an address of its choice:\n%s", out)
	}
	if !strings.Contains(log.String(), "fd77::9/64") || !strings.Contains(log.String(), "it is a duplicate") {
		t.Errorf("log:\n%s", log)
	}
}

// A pod on a node without IPv6 has its IPv4 handed on, and back.
func TestPodWithIPv6SwitchedOff(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.KindnetDual)
	for _, of := range []string{"all", "default", "eth0"} {
		if err := pod.Sysctl("net/ipv6/conf/"+of+"/disable_ipv6", "1"); err != nil {
			t.Fatal(err)
		}
	}
	before := podtest.TakeSnapshot(t, pod.NS)
	h := newHook(t, pod)
	session := run(t, h)
	network := session.Interfaces()[0]
	guest := podtest.NewGuest(t, pod.NS, network.Tap, network.MAC.HardwareAddr())
	if lease, err := guest.Udhcpc(t.Context()); err != nil || lease["ip"] != pod.IPv4.Addr().String() {
		t.Fatalf("lease %v, error %v", lease, err)
	}
	guest.Run(t, "ping", "-c3", "-i0.2", "-W20", podtest.OutsideIP.String())
	restored(t, pod, h, session, before)
}

// A pod that the CNI plugin sbr has moved the routes of is as any other for its VM.
func TestSourceBasedRouting(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.BridgeCNI)
	dir := t.TempDir()
	const conf = `{"cniVersion": "1.0.0", "name": "net", "plugins": [{` + podtest.SwitchPlugin + `"cni9", "isGateway": true,
		"ipam": {"type": "host-local", "dataDir": "DIR", "ranges": [[{"subnet": "10.88.0.0/24"}], [{"subnet": "fd88::/64"}]],
		"routes": [{"dst": "10.99.0.0/16"}]}}, {"type": "sbr"}]}`
	add := func(ns *podtest.NS) *podtest.Attachment {
		attachment, err := podtest.AddCNI(t.Context(), pod.Node, ns, []byte(strings.ReplaceAll(conf, "DIR", filepath.Join(dir, "networks"))),
			podtest.Built(t, "cni"), filepath.Join(dir, "cache"), "net1")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := attachment.Delete(context.WithoutCancel(t.Context())); err != nil {
				t.Error(err)
			}
		})
		return attachment
	}
	attachment := add(pod.NS)
	other := podtest.New(t)
	neighbor := add(other).Result.IPs[0].Address.IP.String()
	if rules := pod.Run(t, "ip", "rule"); !strings.Contains(rules, "lookup 100") {
		t.Fatalf("sbr has made no rule:\n%s", rules)
	}
	if err := podtest.WaitSettled(t.Context(), pod.NS); err != nil {
		t.Fatal(err)
	}
	before := podtest.TakeSnapshot(t, pod.NS)
	h := newHook(t, pod)
	h.Interfaces = []string{"net1"}
	session := run(t, h)
	network := session.Interfaces()[0]
	guest := podtest.NewGuest(t, pod.NS, network.Tap, network.MAC.HardwareAddr())
	lease, err := guest.Udhcpc(t.Context())
	if err != nil || lease["ip"] != attachment.Result.IPs[0].Address.IP.String() || lease["mask"] != "24" {
		t.Fatalf("lease %v, error %v", lease, err)
	}
	guest.Run(t, "ping", "-c3", "-i0.2", "-W20", "10.88.0.1")
	guest.Run(t, "ping", "-c3", "-i0.2", "-W20", neighbor)
	guest.Run(t, "ping", "-c3", "-i0.2", "-W20", podtest.OutsideIP.String()) // net1 is the VM's only one
	if routes := guest.Run(t, "ip", "route"); !strings.Contains(routes, "10.99.0.0/16 via 10.88.0.1") {
		t.Errorf("the guest's routes:\n%s", routes)
	}
	solicitIPv6(t, guest)
	guest.Run(t, "ping", "-c3", "-i0.2", "-W20", podtest.OutsideIPv6.String())
	guest.Run(t, "ping", "-c3", "-i0.2", "-W20", "fd88::1")
	restored(t, pod, h, session, before)

	h.Interfaces = []string{"eth0", "net1"} // the default route is eth0's
	session = run(t, h)
	second := podtest.NewGuest(t, pod.NS, session.Interfaces()[1].Tap, session.Interfaces()[1].MAC.HardwareAddr())
	if _, err := second.Udhcpc(t.Context()); err != nil {
		t.Fatal(err)
	}
	if routes := second.Run(t, "ip", "route"); strings.Contains(routes, "default") || !strings.Contains(routes, "10.88.0.0/24 dev eth0") {
		t.Errorf("the second NIC's routes:\n%s", routes)
	}
	restored(t, pod, h, session, before)
}

// What run refuses plan refuses, and nothing is changed.
func TestPlanRefusesWhatRunRefuses(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.BridgeCNI)
	pod.IP(t, "addr flush dev eth0", "addr add 127.9.0.7/8 dev eth0 scope global")
	before := podtest.TakeSnapshot(t, pod.NS)
	h := newHook(t, pod)
	_, runErr := h.Run(t.Context())
	_, planErr := h.Plan(t.Context())
	if runErr == nil || planErr == nil || runErr.Error() != planErr.Error() || !strings.Contains(planErr.Error(), "IPv4 address 127.9.0.7/8 is not a host's") {
		t.Errorf("run: %v\nplan: %v", runErr, planErr)
	}
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("afterwards:\n%s", d)
	}
}

// So it is with what is in the way in the pod: names, and what was prepared otherwise.
func TestPlanRefusesWhatIsInTheWay(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.BridgeCNI)
	pod.IP(t, "link add net1 type veth peer name other", "link set net1 up", "link set other up", "addr add 10.88.0.7/24 dev net1")
	h := newHook(t, pod)
	refused := func(h prestart.Hook, want string) error {
		t.Helper()
		_, runErr := h.Run(t.Context())
		_, planErr := h.Plan(t.Context())
		if runErr == nil || planErr == nil || runErr.Error() != planErr.Error() || !strings.Contains(planErr.Error(), want) {
			t.Errorf("run: %v\nplan: %v", runErr, planErr)
		}
		return planErr
	}
	h.Network.Names = map[string]string{"tap": "other"}
	if _, ok := errors.AsType[*prepare.NameTakenError](refused(h, "the name other is taken")); !ok {
		t.Error("it has another type")
	}
	h.Interfaces, h.Network.Names = []string{"eth0", "net1"}, nil
	h.PerInterface = map[string]prestart.InterfaceOptions{"eth0": {Network: &prepare.Options{Names: map[string]string{podtest.SwitchRole: "net1"}}}}
	_ = refused(h, "would both have a link net1")
	h.PerInterface = nil
	if _, err := h.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Plan(t.Context()); err != nil {
		t.Errorf("what is prepared so: %v", err)
	}
	h.Network.MTU = 1400
	if _, ok := errors.AsType[*prepare.OptionsError](refused(h, "mtu was 1500, is now 1400")); !ok {
		t.Error("it has another type")
	}
	if _, err := h.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Plan(t.Context()); err != nil {
		t.Errorf("once it is restored: %v", err)
	}
}

// A default route that no router advertisement can express is said, and so is that
// neither hostname nor DNS of another namespace are known.
func TestSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.BridgeDual)
	pod.IP(t, "route del default via fd00:10:22::1 dev eth0", "route add ::/0 dev eth0")
	h := newHook(t, pod)
	h.ResolvConf, h.Lease.Hostname = "", ""
	log := logged(&h)
	if _, err := h.Prepare(t.Context()); err != nil || strings.Contains(log.String(), "hostname") { // it tells no VM of one
		t.Errorf("%v, and it says\n%s", err, log)
	}
	run(t, h)
	for _, want := range []string{
		"it is a default route without a gateway, which a router advertisement can't express",
		`unknown="hostname and DNS"`, `remedy="set the options hostname, and resolv-conf or dns"`,
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %s in\n%s", want, log)
		}
	}
}
