package vmtest

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// QEMU is a QEMU in the namespace, which may be nil, not started: an emulated
// machine, slower than KVM but the same everywhere, with the firmware's console on
// its first serial port and no device but those in args. Its processor has nothing
// that is dear to emulate, as AVX and page tables of five levels are. It goes before
// other processes: tests wait for it, step by step.
func QEMU(ctx context.Context, ns *podtest.NS, args ...string) *podtest.Cmd {
	return podtest.Command(ctx, ns, "nice", append([]string{
		"-n", "-10", "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", "q35,accel=tcg,graphics=off", "-cpu", "Nehalem",
	}, args...)...)
}

// Machine is a running QEMU with the guest of test/guest.
type Machine struct {
	cmd             *podtest.Cmd
	serial, monitor string
	log             podtest.Buffer
	ended           context.Context // the cause is how it ended
}

// Start has a QEMU in the namespace boot the VM, with devices as in args. It is
// killed at the test's end.
func Start(t testing.TB, ns *podtest.NS, vm VM, args ...string) *Machine {
	t.Helper()
	dir := t.TempDir()
	m := &Machine{serial: filepath.Join(dir, "serial.log"), monitor: filepath.Join(dir, "monitor")}
	m.cmd = QEMU(t.Context(), ns, slices.Concat([]string{
		"-m", "256", "-kernel", vm.Kernel(), "-initrd", vm.Initrd(), "-append", vm.Cmdline(),
		"-serial", "file:" + m.serial, "-monitor", "unix:" + m.monitor + ",server=on,wait=off",
	}, args)...)
	m.cmd.Stdout, m.cmd.Stderr = &m.log, &m.log
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancelCause(context.Background())
	m.ended = ended
	go func() {
		_ = m.cmd.Wait() // its state tells more
		end(fmt.Errorf("QEMU has ended: %v", m.cmd.ProcessState))
	}()
	t.Cleanup(m.Kill)
	return m
}

// Report waits until the guest has reported and done what it was asked. The
// test ends if that takes longer than it may, or QEMU ends before.
func (m *Machine) Report(t testing.TB, within time.Duration) Report {
	t.Helper()
	report, err := m.report(within)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func (m *Machine) report(within time.Duration) (Report, error) {
	ctx, cancel := context.WithTimeout(m.ended, within)
	defer cancel()
	report, err := WaitReport(ctx, m.serial)
	if err != nil {
		return report, fmt.Errorf("%w\nQEMU printed:\n%s\nits monitor says:\n%s", err, m.log.String(), m.ask("info status\ninfo registers\n"))
	}
	return report, nil
}

// ask has QEMU's monitor run commands, and returns what it says within a second.
func (m *Machine) ask(commands string) string {
	conn, err := net.Dial("unix", m.monitor)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second)) // an error comes from what follows
	if _, err := io.WriteString(conn, commands); err != nil {
		return err.Error()
	}
	said, _ := io.ReadAll(conn) // until the deadline
	return string(said)
}

// PowerOff presses the power button and returns once QEMU has ended. The test
// ends if that takes longer than it may.
func (m *Machine) PowerOff(t testing.TB, within time.Duration) {
	t.Helper()
	m.ask("system_powerdown\n")
	select {
	case <-m.ended.Done():
		if !m.cmd.ProcessState.Success() {
			t.Error(context.Cause(m.ended))
		}
	case <-time.After(within):
		t.Fatal("the guest ignores the power button")
	}
}

// Kill kills QEMU, as the kernel does when it is out of memory, and returns once
// it has ended.
func (m *Machine) Kill() {
	_ = m.cmd.Process.Signal(unix.SIGKILL) // an error: it has ended
	<-m.ended.Done()
}
