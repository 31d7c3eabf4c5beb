package prepare

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/internal/tun"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// crippled runs fn on a thread that is thrown away, in the namespace, after
// cripple has taken something from that thread.
func crippled(t *testing.T, ns *podtest.NS, cripple, fn func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good
		done <- ns.Do(func() error {
			if err := cripple(); err != nil {
				return err
			}
			return fn()
		})
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// withoutNetfilter has the thread see what a kernel without nftables says.
func withoutNetfilter() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	const number, domain, protocol = 0, 16, 32 // offsets in struct seccomp_data
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	unless := func(value uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jf: skip}
	}
	answer := func(value uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: value}
	}
	filter := []unix.SockFilter{
		load(number), unless(unix.SYS_SOCKET, 5),
		load(domain), unless(unix.AF_NETLINK, 3),
		load(protocol), unless(unix.NETLINK_NETFILTER, 1),
		answer(unix.SECCOMP_RET_ERRNO | uint32(unix.EPROTONOSUPPORT)),
		answer(unix.SECCOMP_RET_ALLOW),
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}

// emptyDev hides /dev/net/tun from the thread.
func emptyDev() error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	return unix.Mount("tmpfs", "/dev/net", "tmpfs", 0, "")
}

// driverless has the thread see a tun device whose driver is missing.
func driverless() error {
	if err := emptyDev(); err != nil {
		return err
	}
	return unix.Mknod(tun.Device, unix.S_IFCHR|0o666, int(unix.Mkdev(10, 254)))
}

// otherDevice has the thread see another device in the place of tun.
func otherDevice() error {
	if err := emptyDev(); err != nil {
		return err
	}
	return unix.Mknod(tun.Device, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))) // null
}

func TestCheckSupportRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		cripple func() error
		want    []string
	}{
		{"nothing missing", func() error { return nil }, nil},
		{"no nftables", withoutNetfilter, []string{"nft add table " + podtest.GuardTable, "protocol not supported", "load the module nf_tables", "without the port guard"}},
		{"no tun device", emptyDev, []string{"open /dev/net/tun", "no such file", "hostPath volume of type CharDevice"}},
		{"no tun driver", driverless, []string{"open /dev/net/tun", "no such device", "load the module tun"}},
		{"another device", otherDevice, []string{"open /dev/net/tun", "another device", "hostPath volume of type CharDevice"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pod := podtest.NewPod(t, podtest.AWS)
			before := podtest.TakeSnapshot(t, pod.NS)
			crippled(t, pod.NS, c.cripple, func() error {
				plan, err := planOf("eth0")
				if err != nil {
					return err
				}
				refusal := CheckSupport(plan)
				if len(c.want) == 0 {
					return refusal
				}
				expectWords(t, refusal, c.want)
				store, err := OpenStore(t.Context(), t.TempDir())
				if err != nil {
					return err
				}
				defer store.Close()
				_, _, err = Apply(t.Context(), nil, store, plan)
				expectWords(t, err, c.want)
				return nil
			})
			if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
				t.Errorf("afterwards:\n%s", d)
			}
		})
	}
}

func expectWords(t *testing.T, err error, words []string) {
	t.Helper()
	if err == nil {
		t.Error("no error")
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("no %q in: %v", word, err)
		}
	}
}

// What the kernel has, and what no kernel has, is told apart, and asking leaves
// nothing behind.
func TestSupported(t *testing.T) {
	t.Parallel()
	ns := podtest.New(t)
	before := podtest.TakeSnapshot(t, ns)
	if err := ns.Do(func() error {
		k, err := engine.Open(discard)
		if err != nil {
			return err
		}
		defer k.Close()
		if err := k.KindSupported("veth", "CONFIG_VETH"); err != nil {
			t.Error(err)
		}
		if err := k.KindSupported("no-such-kind", "CONFIG_X"); !errors.Is(err, unix.EOPNOTSUPP) || !strings.Contains(err.Error(), "load the module") {
			t.Errorf("a kind that no kernel has: %v", err)
		}
		if err := nft.Supported(nft.Netdev); err != nil {
			t.Error(err)
		}
		if err := nft.Supported(nft.Family{Number: 99}); !errors.Is(err, unix.EOPNOTSUPP) {
			t.Errorf("a family that no kernel has: %v", err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, ns)); d != "" {
		t.Errorf("asking changed:\n%s", d)
	}
}
