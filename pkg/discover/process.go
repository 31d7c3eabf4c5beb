package discover

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// process is a directory of /proc, held open: it is of this process and no later
// one of the same number.
type process struct {
	pid  int
	proc *os.File
}

// path is the path of a file of the process in /proc.
func (p process) path(name string) string { return under(p.proc, name) }

// under is a path by an open directory, or by an open file if there is no name.
func under(f *os.File, name string) string {
	return filepath.Join("/proc/self/fd", strconv.Itoa(int(f.Fd())), name)
}

// namespace identifies a namespace by its device and inode.
type namespace [2]uint64

// namespaceAt identifies the namespace whose file is at path.
func namespaceAt(path string) (namespace, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return namespace{}, fmt.Errorf("identify namespace %s: %w", path, err)
	}
	return namespace{st.Dev, st.Ino}, nil
}

// isOwn reports whether a network namespace, the calling thread's, is this process's:
// whether all of its threads are there. Which one was there first can't be told, since
// the calling thread may be the process's main one.
func isOwn(netns namespace) (bool, error) {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return false, fmt.Errorf("list threads: %w", err)
	}
	for _, t := range threads {
		id, err := namespaceAt("/proc/self/task/" + t.Name() + "/ns/net")
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) { // it has ended
			continue
		}
		if err != nil || id != netns {
			return false, err
		}
	}
	return true, nil
}

// inProcesses calls what reads something of a kind (uts, mnt) with a process in a network
// namespace that has a namespace of its own of that kind: hint first, else the one with
// the lowest number, which is the container that made the pod's namespaces. One that has
// the node's name or files, as a VM or an agent may, is not the pod's. It returns the kinds
// for which there is none. A node has thousands of processes: they are gone through once.
func inProcesses(hint int, netns namespace, read map[string]func(process)) (missing map[string]bool) {
	missing = map[string]bool{}
	foreign := map[string][]namespace{} // this process's own, and that of the first process, which may be the node's
	for kind := range read {
		missing[kind] = true
		for _, pid := range []string{"self", "1"} {
			if id, err := namespaceAt("/proc/" + pid + "/ns/" + kind); err == nil {
				foreign[kind] = append(foreign[kind], id)
			}
		}
	}
	visit := func(pid int) {
		dir := fmt.Sprintf("/proc/%d", pid)
		if id, err := namespaceAt(dir + "/ns/net"); err != nil || id != netns {
			return // others are not even opened
		}
		proc, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return
		}
		defer proc.Close()
		p := process{pid, proc}
		for kind, f := range read {
			net, netErr := namespaceAt(p.path("ns/net"))
			own, ownErr := namespaceAt(p.path("ns/" + kind))
			if missing[kind] && netErr == nil && ownErr == nil && net == netns && !slices.Contains(foreign[kind], own) {
				delete(missing, kind)
				f(p)
			}
		}
	}
	visit(hint)
	if len(missing) == 0 {
		return nil
	}
	for _, pid := range processes() {
		if visit(pid); len(missing) == 0 {
			break
		}
	}
	return missing
}

// processes returns the numbers of all processes that can be seen, in order.
func processes() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids
}

// read returns what a file in the process's /etc has, as that sees it. The file is the
// pod's, and the pod may be hostile: nothing but a regular file is opened, no link is
// followed, and no more than so many bytes are read, and one.
func (p process) read(most int64, name string) (b []byte, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("read /etc/%s of process %d: %w", name, p.pid, cause(err))
		}
	}()
	etc, err := os.OpenFile(p.path("root/etc"), unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer etc.Close()
	file, err := os.OpenFile(under(etc, name), unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return readRegular(under(file, ""), most)
}

var errNotRegular = errors.New("it is not a regular file")

// readRegular reads a file if it is a regular one, and no more than so many bytes
// and one. Others are not even opened, since that may do something.
func readRegular(path string, most int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errNotRegular
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most+1))
}

// cause is an error without the path that the caller names.
func cause(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err
	}
	return err
}

// hostname returns the process's, which its UTS namespace has, or as long as that
// can't be entered its /etc/hostname.
func (p process) hostname() (string, error) {
	name, err := p.utsName()
	if err == nil {
		return name, nil
	}
	const most = 256
	b, fileErr := p.read(most, "hostname")
	if name := strings.TrimSpace(string(b)); fileErr == nil && name != "" && len(b) <= most {
		return name, nil
	}
	return "", err
}

// utsName enters the process's UTS namespace and comes back.
func (p process) utsName() (string, error) {
	there, err := os.Open(p.path("ns/uts"))
	if err != nil {
		return "", fmt.Errorf("open UTS namespace of process %d: %w", p.pid, cause(err))
	}
	defer there.Close()
	runtime.LockOSThread()
	back, err := os.Open("/proc/thread-self/ns/uts")
	if err != nil {
		runtime.UnlockOSThread()
		return "", fmt.Errorf("open own UTS namespace: %w", err)
	}
	defer back.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWUTS); err != nil {
		runtime.UnlockOSThread()
		return "", fmt.Errorf("enter UTS namespace of process %d: %w", p.pid, err)
	}
	var name unix.Utsname
	err = unix.Uname(&name)
	// A thread that can't come back stays locked, so that it ends with its goroutine.
	if backErr := unix.Setns(int(back.Fd()), unix.CLONE_NEWUTS); backErr != nil {
		return "", errors.Join(err, fmt.Errorf("leave UTS namespace of process %d: %w", p.pid, backErr))
	}
	runtime.UnlockOSThread()
	return unix.ByteSliceToString(name.Nodename[:]), err
}
