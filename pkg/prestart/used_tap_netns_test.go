package prestart_test

import (
	"errors"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/internal/tun"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/check"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// Flags of TUNSETIFF (linux/if_tun.h).
const (
	plainTap  = unix.IFF_TAP | unix.IFF_NO_PI
	headerTap = plainTap | unix.IFF_VNET_HDR
)

// Nothing that a monitor leaves on a tap, by any ioctl of drivers/net/tun.c or by
// what it may do to a link, keeps the next one, or this program, from using it.
func TestTapWasUsed(t *testing.T) {
	t.Parallel()
	integer := func(request uint, value int) func(int) error {
		return func(fd int) error { return unix.IoctlSetPointerInt(fd, request, value) }
	}
	plain := func(request uint, value int) func(int) error {
		return func(fd int) error { return unix.IoctlSetInt(fd, request, value) }
	}
	none := func(int) error { return nil }
	for _, c := range []struct {
		name   string
		flags  uint16
		queues int
		do     func(fd int) error
		ip     string // besides
	}{
		{name: "header of virtio 1", flags: headerTap, do: integer(unix.TUNSETVNETHDRSZ, 12)},
		{name: "header with a hash", flags: headerTap, do: integer(unix.TUNSETVNETHDRSZ, 20)},
		{name: "no header", flags: plainTap, do: none},
		{name: "packet information", flags: unix.IFF_TAP, do: none},
		{name: "NAPI", flags: headerTap | unix.IFF_NAPI, do: none},
		{name: "offloads", flags: headerTap, do: plain(unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4|unix.TUN_F_TSO6|unix.TUN_F_UFO)},
		{name: "little endian", flags: headerTap, do: integer(unix.TUNSETVNETLE, 1)},
		{name: "no room to send", flags: headerTap, do: integer(unix.TUNSETSNDBUF, 1)},
		{name: "address filter", flags: headerTap, do: onlyTo([6]byte{2, 0, 0, 0, 0, 9})},
		{name: "socket filter", flags: headerTap, do: dropAll},
		{name: "no carrier", flags: headerTap, do: integer(unix.TUNSETCARRIER, 0)},
		{name: "owner", flags: headerTap, do: plain(unix.TUNSETOWNER, 4711)},
		{name: "group", flags: headerTap, do: plain(unix.TUNSETGROUP, 4711)},
		{name: "MTU", flags: headerTap, do: none, ip: "link set tap-eth0 mtu 1280"},
		{name: "MAC", flags: headerTap, do: none, ip: "link set tap-eth0 address fe:00:00:00:00:09"},
		{name: "down, no port, with an address", flags: headerTap, do: none, ip: "link set tap-eth0 down nomaster addrgenmode random"},
		{name: "parked queue", flags: headerTap | unix.IFF_MULTI_QUEUE, queues: 2, do: park},
		{name: "parked queue without header or carrier", flags: plainTap | unix.IFF_MULTI_QUEUE, queues: 2, do: func(fd int) error {
			return errors.Join(park(fd), integer(unix.TUNSETCARRIER, 0)(fd))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pod := podtest.NewPod(t, podtest.CalicoDual)
			before := podtest.TakeSnapshot(t, pod.NS)
			h := newHook(t, pod)
			h.Network.Queues, h.Network.TapOwner = c.queues, &prepare.Owner{UID: 4712, GID: 4713}
			session := run(t, h)
			fd := openTap(t, pod.NS, c.flags)
			if err := c.do(fd); err != nil {
				t.Fatal(err)
			}
			if c.ip != "" {
				pod.IP(t, c.ip)
			}
			// Beside the living monitor.
			if _, err := h.Check(t.Context()); !errors.Is(err, check.ErrTapInUse) {
				t.Errorf("check beside the monitor: %v", err)
			}
			if err := session.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if session, err := h.Run(t.Context()); err != nil {
				t.Errorf("run beside the monitor: %v", err)
			} else if err := session.Close(t.Context()); err != nil {
				t.Error(err)
			}
			// After it.
			if err := unix.Close(fd); err != nil {
				t.Fatal(err)
			}
			untilFree(t, h)
			session = run(t, h)
			untilFree(t, h)
			if _, err := h.Check(t.Context()); err != nil {
				t.Errorf("check: %v", err)
			}
			if out := pod.Run(t, "ip", "-d", "link", "show", "tap-eth0"); !strings.Contains(out, "persist on user 4712 group 4713") {
				t.Errorf("afterwards the tap is\n%s", out)
			}
			if c.queues < 2 {
				guest, err := podtest.StartGuest(t.Context(), pod.NS, "tap-eth0", pod.MAC)
				if err != nil {
					t.Fatal(err)
				}
				if lease, err := guest.Udhcpc(t.Context()); err != nil || lease["ip"] != pod.IPv4.Addr().String() {
					t.Errorf("the next guest: %v, %v", lease, err)
				}
				if err := guest.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if err := session.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			untilFree(t, h)
			h.Force = true // the guest has the tap still
			if _, err := h.Restore(t.Context()); err != nil {
				t.Fatal(err)
			}
			if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
				t.Errorf("after restore:\n%s", d)
			}
		})
	}
}

// openTap opens the pod's tap as a monitor does.
func openTap(t *testing.T, ns *podtest.NS, flags uint16) int {
	t.Helper()
	var fd int
	if err := ns.Do(func() (err error) {
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
		req, err := unix.NewIfreq("tap-eth0")
		if err != nil {
			return err
		}
		req.SetUint16(flags)
		for start := time.Now(); ; {
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
			if !errors.Is(err, unix.EBUSY) || time.Since(start) > time.Minute {
				return err
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	return fd
}

// untilFree waits until nobody has the tap open: a process that other tests start
// has this one's descriptors for a moment.
func untilFree(t *testing.T, h prestart.Hook) {
	t.Helper()
	for {
		status, err := statusOf(t, h)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(status.Interfaces[0].Links, func(l prestart.LinkStatus) bool { return l.Name == "tap-eth0" && l.Carrier }) {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// onlyTo has the tap take frames to one address only (struct tun_filter).
func onlyTo(mac [6]byte) func(int) error {
	return func(fd int) error {
		filter := struct {
			flags, count uint16
			address      [6]byte
		}{0, 1, mac}
		return ioctl(fd, unix.TUNSETTXFILTER, unsafe.Pointer(&filter))
	}
}

// dropAll has the tap take no frame. The filter's instructions are gone once this
// returns, as they are with a monitor that has ended.
func dropAll(fd int) error {
	memory, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	filter := (*unix.SockFilter)(unsafe.Pointer(&memory[0]))
	*filter = unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
	program := unix.SockFprog{Len: 1, Filter: filter}
	return errors.Join(ioctl(fd, unix.TUNATTACHFILTER, unsafe.Pointer(&program)), unix.Munmap(memory))
}

// park detaches a queue, as QEMU does with those that the guest does not use.
func park(fd int) error {
	req, err := unix.NewIfreq("tap-eth0")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_DETACH_QUEUE)
	return unix.IoctlIfreq(fd, unix.TUNSETQUEUE, req)
}

func ioctl(fd int, request uint, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(arg))
	runtime.KeepAlive(arg)
	if errno != 0 {
		return os.NewSyscallError("ioctl", errno)
	}
	return nil
}

// A tap that was deleted is missing, says each who needs it, at once; nothing
// makes one but run, which says what becomes of the VM.
func TestTapDeleted(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.CalicoDual)
	h := newHook(t, pod)
	var said podtest.Buffer
	h.Log = slog.New(slog.NewTextHandler(&said, nil))
	session := run(t, h)
	pod.IP(t, "link del tap-eth0")
	const remedy = "restart the VM that had it open, or plug its NIC in again"
	if err := session.Wait(t.Context()); err == nil || !strings.Contains(err.Error(), remedy) {
		t.Errorf("serving ends with: %v", err)
	}
	_ = session.Close(t.Context()) // it says the same
	_, err := h.Check(t.Context())
	if !errors.Is(err, tun.ErrMissing) || !strings.Contains(err.Error(), "tap-eth0 is missing: ") || !strings.Contains(err.Error(), remedy) {
		t.Errorf("check says: %v", err)
	}
	if out, err := pod.Output(t.Context(), "ip", "link", "show", "tap-eth0"); err == nil {
		t.Errorf("check made %s", out)
	}
	run(t, h)
	if !strings.Contains(said.String(), "the tap was missing and is created again: restart the VM") {
		t.Errorf("the log says\n%s", said.String())
	}
}
