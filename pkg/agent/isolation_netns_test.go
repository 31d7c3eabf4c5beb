package agent_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/attachment"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/agent"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
)

// message is one of the guest; server is that of the offer that is taken.
func (v vm) message(t testing.TB, kind dhcpv4.MessageType, server net.IP) []byte {
	t.Helper()
	m, err := dhcpv4.New(dhcpv4.WithHwAddr(v.mac), dhcpv4.WithMessageType(kind))
	if err != nil {
		t.Fatal(err)
	}
	if server != nil {
		m.UpdateOption(dhcpv4.OptServerIdentifier(server))
		m.UpdateOption(dhcpv4.OptRequestedIPAddress(v.IPv4.Addr().AsSlice()))
	}
	return podtest.UDPFrame(v.mac, net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, netip.AddrPortFrom(netip.IPv4Unspecified(), 68),
		netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), 67), m.ToBytes())
}

// exchange gets a lease, from DISCOVER to ACK, and returns how long that took.
func (v vm) exchange(t testing.TB, nic podtest.NIC) time.Duration {
	t.Helper()
	begin := time.Now()
	var server net.IP
	for _, step := range []struct{ say, want dhcpv4.MessageType }{
		{dhcpv4.MessageTypeDiscover, dhcpv4.MessageTypeOffer}, {dhcpv4.MessageTypeRequest, dhcpv4.MessageTypeAck},
	} {
		nic.Send(v.message(t, step.say, server))
		const messageAt = podtest.EthernetLen + podtest.IPv4Len + podtest.UDPLen
		frame := nic.Receive(5*time.Second, func(frame []byte) bool {
			if len(frame) <= messageAt {
				return false
			}
			m, err := dhcpv4.FromBytes(frame[messageAt:])
			if err != nil || m.MessageType() != step.want {
				return false
			}
			server = m.ServerIdentifier()
			return true
		})
		if frame == nil {
			t.Fatalf("the guest of %s gets no %s", v.Attachment.Pod, step.want)
		}
	}
	return time.Since(begin)
}

// Of ten pods some misbehave, each in its own way, and all that the others notice is that
// the processor is shared.
func TestIsolation(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.startProcess(t)
	n.until(t, "it answers", func(agent.Status) bool { return true })
	const pods, bad = 10, 4
	vms := make([]vm, pods)
	for i := range vms {
		if i == fullDisk {
			fill(t, attachment.Dir(n.stateDir, fmt.Sprint("sandbox-vm", i)), false)
		}
		vms[i] = n.newVM(t, fmt.Sprint("vm", i))
		if err := n.client().Attach(t.Context(), vms[i].ContainerID, "eth0"); err != nil {
			t.Fatal(err)
		}
	}
	nics := make([]podtest.NIC, pods)
	for i, v := range vms {
		nics[i] = podtest.NewNIC(t, v.NS, v.tap)
	}
	measure := func() (took []time.Duration) {
		for range 20 {
			for i := bad; i < pods; i++ {
				took = append(took, vms[i].exchange(t, nics[i]))
			}
		}
		slices.Sort(took)
		return took
	}
	before := measure()

	stop := make(chan struct{})
	var misbehaving sync.WaitGroup
	misbehaving.Go(func() { // a guest that floods
		frame := vms[flood].message(t, dhcpv4.MessageTypeDiscover, nil)
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = nics[flood].Write(frame)
			}
		}
	})
	misbehaving.Go(func() { garbage(t, vms[garbled], stop) })
	fill(t, attachment.Dir(n.stateDir, vms[fullDisk].ContainerID), true)
	vms[fullDisk].exchange(t, nics[fullDisk]) // it is served nevertheless
	_ = nics[deleted].Close()
	vms[deleted].IP(t, "link del "+vms[deleted].tap)
	after := measure()
	close(stop)
	misbehaving.Wait()

	median := func(took []time.Duration) time.Duration { return took[len(took)/2] }
	t.Logf("an exchange takes %s and %s at most, beside misbehaving pods %s and %s", median(before), before[len(before)-1], median(after), after[len(after)-1])
	if limit := 20*median(before) + 50*time.Millisecond; median(after) > limit {
		t.Errorf("beside misbehaving pods an exchange takes %s, and %s before", median(after), median(before))
	}
	status := n.until(t, "the deleted link is told", func(s agent.Status) bool { return ready(s) == pods-1 })
	for _, p := range status.Pods {
		if p.Served.Ready == (p.Name == fmt.Sprint("vm", deleted)) {
			t.Errorf("%s is ready: %v", p.Name, p.Served.Ready)
		}
	}
	// Once the garbage has ended, the pod is answered.
	status2, err := ask(t, vms[garbled])
	if err != nil || status2.Of("eth0").Lease == nil {
		t.Errorf("the pod's status is %+v, %v", status2, err)
	}
}

// Who misbehaves.
const (
	flood = iota
	deleted
	fullDisk
	garbled
)

// fill has a directory be on a small disk, or fills that.
func fill(t *testing.T, dir string, full bool) {
	t.Helper()
	if !full {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		podtest.Mount(t, "none", dir, "tmpfs", "size=128k,mode=700")
		return
	}
	err := os.WriteFile(filepath.Join(dir, "ballast"), make([]byte, 1<<20), 0o600)
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
}

// garbage connects to the socket in the pod, says what is no request, or nothing, and
// stays.
func garbage(t *testing.T, v vm, stop <-chan struct{}) {
	var open []net.Conn
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-time.After(time.Millisecond):
		}
		_ = v.Do(func() error {
			conn, err := (&net.Dialer{Timeout: 10 * time.Millisecond}).DialContext(t.Context(), "unix", control.PodSocketName)
			if err != nil {
				return err
			}
			open = append(open, conn)
			_ = conn.SetWriteDeadline(time.Now().Add(time.Millisecond))
			_, err = conn.Write([]byte([]string{"", "\x00\xff\r\n\r\n", "POST /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\nx", "GET /v1/wait?for=lease HTTP/1.1\r\n"}[i%4]))
			return err
		})
	}
}

// ask asks in the pod.
func ask(t *testing.T, v vm) (status control.Status, err error) {
	t.Helper()
	v.In(t, func() error {
		status, err = control.Client{StateDir: filepath.Join(t.TempDir(), "none")}.Status(t.Context())
		return nil
	})
	return status, err
}

// Where somebody in the pod has taken the socket's name, the VM is served nevertheless,
// and once it is free the pod is answered. Another pod is not asked.
func TestSocketInPod(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.start(t)
	v, other := n.newVM(t, "vm1"), n.newVM(t, "vm2")
	var taken net.Listener
	v.In(t, func() (err error) {
		taken, err = (&net.ListenConfig{}).Listen(t.Context(), "unix", control.PodSocketName)
		return err
	})
	n.until(t, "it answers", func(agent.Status) bool { return true })
	for _, id := range []string{v.ContainerID, other.ContainerID} {
		if err := n.client().Attach(t.Context(), id, "eth0"); err != nil {
			t.Fatal(err)
		}
	}
	v.boot(t, v.guest(t))
	if status, err := ask(t, other); err != nil || status.Of("eth0").Lease.Address.Addr() != other.IPv4.Addr() || !status.Ready {
		t.Errorf("the other pod's status is %+v, %v", status, err)
	}
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	v.In(t, func() error {
		status, err := control.Client{StateDir: filepath.Join(t.TempDir(), "none")}.Wait(t.Context(), control.ForLease)
		if err != nil || status.Of("eth0").Lease.Address.Addr() != v.IPv4.Addr() {
			t.Errorf("the pod's status is %+v, %v", status, err)
		}
		return nil
	})
	if err := n.client().Detach(t.Context(), v.ContainerID, "eth0"); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(t, v); !errors.Is(err, control.ErrNobodyServes) {
		t.Errorf("without its NIC the pod is told %v", err)
	}
}
