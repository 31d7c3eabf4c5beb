package vm

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest/vmtest"
)

// hastyGuest is a guest whose clock counts instructions, and goes straight on to
// the next timer when there are none to do (QEMU's -icount sleep=off): it sleeps
// through a day in seconds. But if it slept while it waits for the network, its
// patience would end before an answer comes. So it is kept awake, but in pass.
type hastyGuest struct{ shell *podtest.Console }

// stayAwake has the guest's shell start what always has something to do.
const stayAwake = "while :; do :; done & awake=$!; renice -n 19 $awake"

// bootHasty boots the guest of test/guest with a NIC at the tap of each pod, and
// with a shell in the place of its init.
func bootHasty(t *testing.T, pods []*podtest.Pod) *hastyGuest {
	t.Helper()
	guest := podtest.Built(t, "guest")
	args := []string{
		"-m", "256",
		// An instruction takes 4 ns, about as long as it really does, so that the guest
		// is about as patient as others.
		"-icount", "shift=2,sleep=off",
		"-kernel", filepath.Join(guest, "vmlinux"), "-initrd", filepath.Join(guest, "initramfs"),
		// Without what would wake it for the kernel's own sake, or lets it boot longer.
		"-append", "console=ttyS0 quiet panic=-1 no_timer_check tsc=reliable nowatchdog cgroup_disable=memory psi=0 cryptomgr.notests mitigations=off rdinit=/bin/sh",
		"-serial", "stdio",
	}
	var taps []*os.File
	for i, pod := range pods {
		taps = append(taps, podtest.TapFile(t, pod.NS, "tap-eth0"))
		args = append(args,
			"-netdev", fmt.Sprintf("tap,id=net%d,fd=%d,vhost=off", i, 3+i),
			"-device", fmt.Sprintf("virtio-net-pci,netdev=net%d,romfile=,mac=%v", i, pod.MAC))
	}
	cmd := vmtest.QEMU(t.Context(), nil, args...)
	cmd.ExtraFiles = taps // from 3 on
	g := &hastyGuest{podtest.StartConsole(t, cmd)}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the guest printed:\n%s", g.shell.Text())
		}
	})
	g.shell.Wait(t, bootTime, "prompt", func(text string) bool { return strings.HasSuffix(text, "# ") })
	g.run(t, "stty -echo; export PATH=/bin PS1=; mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev")
	g.run(t, stayAwake)
	// Two more that would wake it (Documentation/admin-guide/sysctl/vm.rst).
	g.run(t, "echo 0 >/proc/sys/vm/compaction_proactiveness; echo 3600 >/proc/sys/vm/stat_interval")
	g.run(t, "sed -n '/^for module/,/^done/p' /init >/run/modules; . /run/modules")
	return g
}

// run has the guest's shell run a command, and returns what it printed. The
// test ends if the command fails.
func (g *hastyGuest) run(t *testing.T, command string) string {
	t.Helper()
	out, failed := g.try(t, command)
	if failed {
		t.Fatalf("%s failed:\n%s", command, out)
	}
	return out
}

// try is run for a command that may fail.
func (g *hastyGuest) try(t *testing.T, command string) (out string, failed bool) {
	t.Helper()
	const well, badly = "that went well\n", "that went badly\n" // unlike what the terminal may echo
	before := len(g.shell.Text())
	g.shell.Say(t, "{ "+command+"; } 2>&1 && echo that 'went' well || echo that 'went' badly\n")
	text := g.shell.Wait(t, bootTime, "end of "+command, func(text string) bool {
		return strings.HasSuffix(text[before:], well) || strings.HasSuffix(text[before:], badly)
	})[before:]
	out, failed = strings.CutSuffix(text, badly)
	return strings.TrimSuffix(out, well), failed
}

// uptime is the guest's own time.
func (g *hastyGuest) uptime(t *testing.T) time.Duration {
	t.Helper()
	text, _, _ := strings.Cut(g.run(t, "cat /proc/uptime"), " ")
	uptime, err := time.ParseDuration(text + "s")
	if err != nil {
		t.Fatal(err)
	}
	return uptime
}

// pass lets time pass in the guest until its uptime is as given.
func (g *hastyGuest) pass(t *testing.T, until time.Duration) {
	t.Helper()
	before, start := g.uptime(t), time.Now()
	seconds := strconv.FormatFloat((until - before).Seconds(), 'f', 0, 64)
	g.run(t, "kill $awake; sleep "+seconds+"; sleep 1; "+stayAwake)
	after := g.uptime(t)
	if after < until {
		t.Fatalf("the guest's uptime is %v, not %v", after, until)
	}
	t.Logf("%v passed in %v", after-before, time.Since(start).Round(time.Millisecond))
}
