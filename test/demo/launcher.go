package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
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

// launcher is a running "virt-launcher-net run".
type launcher struct {
	cmd     *exec.Cmd
	root    string        // of the embedded libvirt driver
	ended   chan struct{} // closed when it has ended
	outcome error         // of its end, then
}

// launch starts virt-launcher-net, which starts the machine with libvirt's
// driver inside its own process.
func (d *demo) launch(vm podtest.VM) (*launcher, error) {
	root := d.path("libvirt")
	if err := d.prepareLibvirt(root); err != nil {
		return nil, err
	}
	if err := os.WriteFile(d.path("vm.xml"), vm.DomainXML(), 0o644); err != nil {
		return nil, err
	}
	args := []string{
		"run", "--netns", d.pod.Pod.Path(), "--state-dir", d.path("state"),
		"--resolv-conf", d.path("resolv.conf"), "--hostname", hostname,
		"--domain", d.path("vm.xml"), "--connect", "qemu:///embed?root=" + root,
	}
	d.screen.show(commandLine("virt-launcher-net", args), "")
	cmd := exec.Command("unshare", append([]string{"--mount", "sh", "-c", private, "sh", d.binary}, args...)...)
	cmd.Env = append(os.Environ(), "LIBVIRT_DEBUG=4") // errors only
	log := d.screen.log()
	cmd.Stdout, cmd.Stderr = log, log
	// Out of reach of a terminal's Ctrl-C: the demo ends it in its turn.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start virt-launcher-net: %w", err)
	}
	l := &launcher{cmd: cmd, root: root, ended: make(chan struct{})}
	go func() {
		defer close(l.ended)
		l.outcome = cmd.Wait()
	}()
	return l, nil
}

// prepareLibvirt makes the embedded driver's root, with what it learned of
// QEMU in earlier demos.
func (d *demo) prepareLibvirt(root string) error {
	for _, dir := range []string{filepath.Join(root, "etc"), d.cacheDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := os.Symlink(d.cacheDir, filepath.Join(root, "cache")); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, "etc", "qemu.conf"), []byte(qemuConf), 0o644)
}

// whileRunning is a context that ends with ctx or the launcher.
func (l *launcher) whileRunning(ctx context.Context) (context.Context, context.CancelFunc) {
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

// end asks the launcher to end and returns how it did. The first time it is
// asked it shuts the guest down, the second time, after patience, it ends at
// once.
func (l *launcher) end(patience time.Duration) error {
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

// kill ends the launcher if it still runs, the hard way if it must, and the
// machine if the launcher left it behind. It does not wait for a guest that is
// still booting.
func (l *launcher) kill() error {
	select {
	case <-l.ended:
	default:
		if err := l.end(2 * time.Second); err != nil {
			_ = l.cmd.Process.Kill() // an error: it has ended
			<-l.ended
		}
	}
	return l.killVM()
}

// killVM kills the QEMU whose process the driver noted in its root, if that
// still runs.
func (l *launcher) killVM() error {
	text, err := os.ReadFile(filepath.Join(l.root, "run", "qemu", "demo.pid"))
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
