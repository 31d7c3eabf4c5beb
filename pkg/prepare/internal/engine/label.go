package engine

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	selinuxDir = "/sys/fs/selinux" // where the kernel shows SELinux, if that is on
	execLabel  = "/proc/thread-self/attr/exec"
	// program is the main package of which the program is, if it can make taps by a label.
	program = "github.com/virt-launcher-net/virt-launcher-net/cmd/virt-launcher-net"
	// TapMaker is the name by which the program runs itself to make a tap: see [MakeTap].
	TapMaker = "virt-launcher-net-tap-maker"
)

// labelPattern is an SELinux context: user:role:type, and levels if there are any. Most
// processes need none, and are spared the expression.
var labelPattern = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*:[A-Za-z0-9_.-]+:[A-Za-z0-9_.-]+(:[a-z0-9.,:-]+)?$`)
})

// CheckLabel says why the text is no SELinux label; empty is none, and no error.
func CheckLabel(label string) error {
	if label != "" && !labelPattern().MatchString(label) {
		return fmt.Errorf("%q is not an SELinux context, such as system_u:system_r:container_t:s0", label)
	}
	return nil
}

// canLabel says why no tap can have an SELinux label; nil: it can, as far as is known.
func canLabel() error {
	var fs unix.Statfs_t
	if err := unix.Statfs(selinuxDir, &fs); err != nil || uint32(fs.Type) != unix.SELINUX_MAGIC { // Type is of 32 bits on some machines, and signed
		return Advise(errors.New("SELinux is off, or not to be seen in " + selinuxDir + ": leave the SELinux context out"))
	}
	if info, ok := debug.ReadBuildInfo(); !ok || info.Path != program {
		return Advise(errors.New("the tap's SELinux context can be set by the program virt-launcher-net alone: leave it out"))
	}
	return nil
}

// setIFFAs is the ioctl TUNSETIFF by a process of that SELinux label. A tap has the label
// of the process that makes it, whatever the label for sockets is
// (selinux_tun_dev_alloc_security, security/selinux/hooks.c), and a process of several
// threads can't change its own. So the program runs itself for this one call.
func setIFFAs(label string, fd int, name string, flags uint16) error {
	err := runAs(label, fd, name, flags)
	if err != nil {
		err = Advise(fmt.Errorf("make the tap by the SELinux context %s: %w: the node's policy has to have that context, let this program change to it, "+
			"and let it make taps (boolean container_use_devices): see ausearch -m avc", label, err))
	}
	return err
}

func runAs(label string, fd int, name string, flags uint16) (err error) {
	runtime.LockOSThread() // whose label for execve(2) it is
	defer runtime.UnlockOSThread()
	if err := writeLabel(label); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, writeLabel("\n")) }()
	duplicate, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(duplicate), name)
	defer file.Close()
	p, err := os.StartProcess("/proc/self/exe", []string{TapMaker, name, strconv.Itoa(int(flags))}, //nolint:forbidigo // the program itself
		&os.ProcAttr{Files: []*os.File{file}, Env: []string{}})
	if err != nil {
		return err
	}
	state, err := p.Wait()
	if err != nil {
		return err
	}
	if code := state.ExitCode(); code != 0 {
		return unix.Errno(max(code, int(unix.EPERM))) // it was killed, if not
	}
	return nil
}

func writeLabel(label string) error {
	f, err := os.OpenFile(execLabel, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(label)
	return errors.Join(err, f.Close())
}

// MakeTap is what the program does that is run as [TapMaker], with the tap's name and
// flags: it makes standard input the tap. It returns the exit code, which is an errno.
func MakeTap(args []string) int {
	if len(args) != 2 {
		return int(unix.EINVAL)
	}
	flags, err := strconv.ParseUint(args[1], 10, 16)
	req, reqErr := unix.NewIfreq(args[0])
	if err = errors.Join(err, reqErr); err == nil {
		req.SetUint16(uint16(flags))
		err = unix.IoctlIfreq(0, unix.TUNSETIFF, req)
	}
	if err == nil {
		return 0
	}
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		return int(errno)
	}
	return int(unix.EINVAL)
}
