package statedir

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ServedError is that a network namespace is served by a process already.
type ServedError struct{ PID int } // 0: it is in another PID namespace

func (e *ServedError) Error() string {
	return fmt.Sprintf("another virt-launcher-net serves this pod already: %s has the lock of its network namespace: end it first, or see its status", Process(e.PID))
}

// Serving is the right to serve a network namespace, which one session has at a
// time. It is a lock on the namespace's own file, so it can't be removed, whatever
// becomes of the state directory, and it ends with the process. Whoever can open
// the namespace can take it, so a process of the pod can keep a server away, which
// is then told who that is.
type Serving struct{ file *os.File }

// Serve takes the right to serve the calling thread's network namespace. The error
// is a [ServedError] if it is taken. Close it.
func Serve() (*Serving, error) {
	f, err := os.Open(current)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	err = tryLock(f)
	if err == nil {
		return &Serving{f}, nil
	}
	defer f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, &ServedError{fileHolder(f)}
	}
	return nil, fmt.Errorf("lock network namespace: %w", err)
}

// Close gives the right back.
func (s *Serving) Close() { release(s.file) }

// ServerOf is the number of the process that has the right to serve a network
// namespace, as far as the kernel shows that: 0 also if it is in another PID
// namespace.
func ServerOf(ns Namespace) int {
	var st unix.Stat_t
	if err := unix.Stat(current, &st); err != nil {
		return 0
	}
	st.Ino = ns.Inode // all namespaces are on one device (nsfs)
	return holderOf(st)
}

// holderOf is the process that has the lock of a file, as far as the kernel shows
// that (proc_locks(5)): 0 if it is in another PID namespace.
func holderOf(st unix.Stat_t) int {
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	locks, err := os.Open("/proc/locks")
	if err != nil {
		return 0
	}
	defer locks.Close()
	for lines := bufio.NewScanner(locks); lines.Scan(); {
		// 1: FLOCK  ADVISORY  WRITE 4711 00:04:4026531833 0 EOF
		field := strings.Fields(lines.Text())
		if len(field) < 6 || field[1] != "FLOCK" || field[5] != file {
			continue
		}
		if pid, err := strconv.Atoi(field[4]); err == nil && pid > 0 {
			return pid
		}
	}
	return 0
}

func fileHolder(f *os.File) int {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0
	}
	return holderOf(st)
}

// Process names a process by its number and its command.
func Process(pid int) string {
	if pid <= 0 { // it is in another PID namespace
		return "a process of another container"
	}
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if name := strings.TrimSpace(string(comm)); err == nil && name != "" {
		return fmt.Sprintf("process %d (%q)", pid, name)
	}
	return fmt.Sprintf("process %d", pid)
}
