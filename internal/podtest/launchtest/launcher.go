// Package launchtest runs virt-launcher-net and libvirt's daemon as a container
// would have them.
package launchtest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest/vmtest"
)

// qemuConf has the embedded driver do without what a container lacks.
const qemuConf = `security_driver = "none"
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
`

// private runs "$@" with directories of its own where libvirt writes besides
// its root, and with the user that Debian's libvirt looks up whatever
// qemu.conf says.
const private = `
set -e
for dir in /run /var/lib /var/cache /var/log; do mount -t tmpfs none $dir; done
for file in passwd group; do
	cp /etc/$file /run/$file
	grep -q ^libvirt-qemu: /run/$file || case $file in
	passwd) echo libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin ;;
	group) echo libvirt-qemu:x:64055: ;;
	esac >>/run/$file
	mount --bind /run/$file /etc/$file
done
exec "$@"`

// killLeft kills the QEMU of the machine $2 whose process the driver noted in its root $1,
// as killVM does.
const killLeft = `
pid=$(cat "$1/run/qemu/$2.pid") && grep -q "$1" "/proc/$pid/cmdline" && kill -KILL "$pid"`

// Launcher is a running "virt-launcher-net run" that starts a VM with libvirt's
// driver inside its own process, so without a daemon.
type Launcher struct {
	cmd     *podtest.Cmd
	vm      string        // its domain's name
	root    string        // of the embedded libvirt driver
	ended   chan struct{} // closed when it has ended
	outcome error         // of its end, then
}

// Config says what a Launcher runs.
type Config struct {
	Binary   string // the program
	VM       vmtest.VM
	Dir      string    // for libvirt and the domain's XML; the caller removes it
	CacheDir string    // where libvirt keeps what it learned of QEMU, which takes it some seconds
	Args     []string  // of run, besides --domain and --connect
	Log      io.Writer // gets what the program prints
}

// RunArgs is the program's command line.
func (c Config) RunArgs() []string {
	return append([]string{"run", "--domain", c.xml(), "--connect", "qemu:///embed?root=" + c.root()}, c.Args...)
}

func (c Config) xml() string  { return filepath.Join(c.Dir, "vm.xml") }
func (c Config) root() string { return filepath.Join(c.Dir, "libvirt") }

// Start starts the program. The caller ends the Launcher with Kill.
func Start(c Config) (*Launcher, error) {
	if err := c.prepareLibvirt(); err != nil {
		return nil, fmt.Errorf("prepare libvirt: %w", err)
	}
	if err := os.WriteFile(c.xml(), c.VM.DomainXML(), 0o644); err != nil {
		return nil, fmt.Errorf("write domain: %w", err)
	}
	if err := podtest.AfterDeath(killLeft, c.root(), c.VM.Name); err != nil {
		return nil, err
	}
	cmd := podtest.Command(context.Background(), nil, "unshare", append([]string{"--mount", "sh", "-c", private, "sh", c.Binary}, c.RunArgs()...)...)
	cmd.Env = append(os.Environ(), "LIBVIRT_DEBUG=4") // errors only
	cmd.Stdout, cmd.Stderr = c.Log, c.Log
	// Out of reach of a terminal's Ctrl-C: whoever launched it ends it.
	cmd.SysProcAttr.Setpgid = true
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start virt-launcher-net: %w", err)
	}
	l := &Launcher{cmd: cmd, vm: c.VM.Name, root: c.root(), ended: make(chan struct{})}
	go func() {
		defer close(l.ended)
		l.outcome = cmd.Wait()
	}()
	return l, nil
}

// prepareLibvirt makes the embedded driver's root, with what it learned of
// QEMU before.
func (c Config) prepareLibvirt() error {
	for _, dir := range []string{filepath.Join(c.root(), "etc"), c.CacheDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	link := filepath.Join(c.root(), "cache")
	if err := os.Symlink(c.CacheDir, link); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return os.WriteFile(filepath.Join(c.root(), "etc", "qemu.conf"), []byte(qemuConf), 0o644)
}

// WhileRunning is a context that ends with ctx or the launcher.
func (l *Launcher) WhileRunning(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-l.ended:
			cancel(fmt.Errorf("virt-launcher-net run has ended before: %w", cmp.Or(l.outcome, errors.New("status 0"))))
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// End asks the launcher to end and returns how it did. The first time it is
// asked it shuts the guest down, the second time, after patience, it ends at
// once.
func (l *Launcher) End(patience time.Duration) error {
	for _, patience := range []time.Duration{patience, 5 * time.Second} {
		_ = l.cmd.Process.Signal(syscall.SIGTERM) // an error: it has ended
		select {
		case <-l.ended:
			return l.outcome
		case <-time.After(patience):
		}
	}
	return errors.New("virt-launcher-net does not end after SIGTERM")
}

// Signal sends a signal to the program and, if it is SIGKILL, waits for its end.
func (l *Launcher) Signal(signal syscall.Signal) error {
	if err := l.cmd.Process.Signal(signal); err != nil {
		return fmt.Errorf("signal virt-launcher-net: %w", err)
	}
	if signal == syscall.SIGKILL {
		<-l.ended
	}
	return nil
}

// Kill ends the launcher if it still runs, the hard way if it must, and the
// machine if the launcher left it behind. It does not wait for a guest that is
// still booting.
func (l *Launcher) Kill() error {
	select {
	case <-l.ended:
	default:
		if err := l.End(2 * time.Second); err != nil {
			_ = l.cmd.Process.Kill() // an error: it has ended
			<-l.ended
		}
	}
	return l.killVM()
}

// killVM kills the QEMU whose process the driver noted in its root, if that
// still runs.
func (l *Launcher) killVM() error {
	text, err := os.ReadFile(filepath.Join(l.root, "run", "qemu", l.vm+".pid"))
	if errors.Is(err, os.ErrNotExist) {
		return nil // it ended, and the driver saw it
	}
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("read process of the VM: %w", err)
	}
	// If it ended and the driver did not see that, the number is nobody's or
	// another's.
	cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if !bytes.Contains(cmdline, []byte(l.root)) {
		return nil
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}
