package discover

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
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
	root *os.File
}

func openProcess(pid int) (process, error) {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return process{}, fmt.Errorf("open process %d: %w", pid, err)
	}
	return process{pid, os.NewFile(uintptr(fd), "process")}, nil
}

func (p process) close() { p.root.Close() }

// namespace identifies one of the process's namespaces: net, uts, mnt.
func (p process) namespace(kind string) (id [2]uint64, err error) {
	var st unix.Stat_t
	if err := unix.Fstatat(int(p.root.Fd()), "ns/"+kind, &st, 0); err != nil {
		return id, fmt.Errorf("identify %s namespace of process %d: %w", kind, p.pid, err)
	}
	return [2]uint64{st.Dev, st.Ino}, nil
}

// isIn reports whether the process is in the namespace.
func (p process) isIn(kind string, id [2]uint64) bool {
	got, err := p.namespace(kind)
	return err == nil && got == id
}

// threadNetns identifies the network namespace of the calling thread.
func threadNetns() (id [2]uint64, err error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return id, fmt.Errorf("identify network namespace: %w", err)
	}
	return [2]uint64{st.Dev, st.Ino}, nil
}

// isOwn reports whether a network namespace, the calling thread's, is this process's:
// whether all of its threads are there. Which one was there first can't be told, since
// the calling thread may be the process's main one.
func isOwn(netns [2]uint64) (bool, error) {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return false, fmt.Errorf("list threads: %w", err)
	}
	for _, t := range threads {
		var st unix.Stat_t
		err := unix.Stat("/proc/self/task/"+t.Name()+"/ns/net", &st)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) { // it has ended
			continue
		}
		if err != nil {
			return false, fmt.Errorf("identify network namespace of thread %s: %w", t.Name(), err)
		}
		if netns != [2]uint64{st.Dev, st.Ino} {
			return false, nil
		}
	}
	return true, nil
}

// foreign are namespaces by their kind that are not the pod's: this process's own
// and those of the first process, which may be the node's.
type foreign map[string][][2]uint64

func foreignNamespaces() foreign {
	f := foreign{}
	for _, pid := range []int{os.Getpid(), 1} {
		p, err := openProcess(pid)
		if err != nil {
			continue
		}
		for _, kind := range []string{"uts", "mnt"} {
			if id, err := p.namespace(kind); err == nil {
				f[kind] = append(f[kind], id)
			}
		}
		p.close()
	}
	return f
}

func (f foreign) has(kind string, p process) bool {
	id, err := p.namespace(kind)
	return err != nil || slices.Contains(f[kind], id)
}

// podProcess returns a process in a network namespace that has a namespace of its
// own of a kind: hint first, else the one with the lowest number, which is the
// container that holds the pod's namespaces. ok is false if there is none: one that
// has the node's name or files, as a VM or an agent may, is not the pod's.
func podProcess(hint int, netns [2]uint64, kind string) (p process, ok bool) {
	not := foreignNamespaces()
	for _, pid := range append([]int{hint}, processes()...) {
		p, err := openProcess(pid)
		if err != nil {
			continue
		}
		if p.isIn("net", netns) && !not.has(kind, p) {
			return p, true
		}
		p.close()
	}
	return process{}, false
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

// read returns what a file of the process holds, as that sees it. The file is the
// pod's, and the pod may be hostile: nothing but a regular file is opened, no link
// is followed, and no more than so many bytes are read.
func (p process) read(most int64, directory, name string) ([]byte, error) {
	path := "/" + directory + "/" + name
	root, err := unix.Openat(int(p.root.Fd()), "root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open root of process %d: %w", p.pid, err)
	}
	defer unix.Close(root)
	dir, err := unix.Openat(root, directory, unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /%s of process %d: %w", directory, p.pid, err)
	}
	defer unix.Close(dir)
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s of process %d: %w", path, p.pid, err)
	}
	defer unix.Close(fd)
	b, err := readRegular(fmt.Sprintf("/proc/self/fd/%d", fd), most)
	if err != nil {
		return nil, fmt.Errorf("read %s of process %d: %w", path, p.pid, err)
	}
	return b, nil
}

var errNotRegular = errors.New("it is no regular file")

// readRegular reads a file if it is a regular one, and no more than so many bytes
// and one. Others are not even opened, since that may do something.
func readRegular(path string, most int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = errNotRegular
	}
	if err != nil {
		return nil, cause(err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, cause(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	return b, cause(err)
}

// cause is an error without the path that the caller names.
func cause(err error) error {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
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
	b, fileErr := p.read(most, "etc", "hostname")
	if name := strings.TrimSpace(string(b)); fileErr == nil && name != "" && len(b) <= most {
		return name, nil
	}
	return "", err
}

// utsName enters the process's UTS namespace and comes back.
func (p process) utsName() (string, error) {
	fd, err := unix.Openat(int(p.root.Fd()), "ns/uts", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("open UTS namespace of process %d: %w", p.pid, err)
	}
	defer unix.Close(fd)
	runtime.LockOSThread()
	back, err := unix.Open("/proc/thread-self/ns/uts", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return "", fmt.Errorf("open own UTS namespace: %w", err)
	}
	defer unix.Close(back)
	if err := unix.Setns(fd, unix.CLONE_NEWUTS); err != nil {
		runtime.UnlockOSThread()
		return "", fmt.Errorf("enter UTS namespace of process %d: %w", p.pid, err)
	}
	var name unix.Utsname
	err = unix.Uname(&name)
	// A thread that can't come back stays locked, so that it ends with its goroutine.
	if backErr := unix.Setns(back, unix.CLONE_NEWUTS); backErr != nil {
		return "", errors.Join(err, fmt.Errorf("leave UTS namespace of process %d: %w", p.pid, backErr))
	}
	runtime.UnlockOSThread()
	return unix.ByteSliceToString(name.Nodename[:]), err
}
