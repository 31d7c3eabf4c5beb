package statedir

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

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
//
// It is a lock of the kind of fcntl(2), for reading, since nobody can open the file for
// writing, of one byte, which says whose it is. The lock of flock(2) is not for keeping:
// CNI plugins such as sbr wait for it whenever an interface is added or deleted.
type Serving struct{ file *os.File }

// claimTime is how long a CNI plugin that acts on the namespace is waited for: sbr takes some
// milliseconds. A process that keeps the lock is not to hold up others who begin to serve.
const claimTime = 500 * time.Millisecond

// errTaken is why nobody waits any longer.
var errTaken = errors.New("somebody keeps the lock")

// Serve takes the right to serve the calling thread's network namespace. The error
// is a [ServedError] if it is taken. Close it.
func Serve(ctx context.Context) (*Serving, error) {
	f, err := os.Open(current)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	if err := claim(ctx, f); err != nil {
		release(f)
		return nil, err
	}
	return &Serving{f}, nil
}

// claim locks the file, if nobody has. One process looks at a time.
func claim(ctx context.Context, f *os.File) error {
	waiting, cancel := context.WithTimeoutCause(ctx, claimTime, errTaken)
	defer cancel()
	err := Flock(waiting, f)
	switch {
	case errors.Is(err, errTaken):
		return &ServedError{fileHolder(f)}
	case err != nil:
		return fmt.Errorf("lock network namespace: %w", err)
	}
	defer unlock(f)
	server := unix.Flock_t{Type: unix.F_WRLCK} // whoever has any byte is in the way
	if err = unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &server); err == nil && server.Type != unix.F_UNLCK {
		return &ServedError{processOf(server.Start)}
	}
	if err == nil {
		err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_RDLCK, Start: byteOf(os.Getpid()), Len: 1})
	}
	if err != nil {
		return fmt.Errorf("lock network namespace: %w", err)
	}
	return nil
}

// Close gives the right back, also where a process that is being started has a copy of
// the descriptor for a moment.
func (s *Serving) Close() {
	_ = unix.FcntlFlock(s.file.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK})
	s.file.Close()
}

// pidBits are those of a process's number (pid_max, proc(5)). Above them a byte has the
// PID namespace's inode.
const pidBits = 22

// byteOf is the byte that a process of this PID namespace locks.
func byteOf(pid int) int64 {
	var st unix.Stat_t
	_ = unix.Stat("/proc/self/ns/pid", &st) // an error: nobody can tell who it is
	return int64(st.Ino)<<pidBits | int64(pid)
}

// processOf is the process that has locked a byte: 0 if it is in another PID namespace.
func processOf(at int64) int {
	pid := int(at & (1<<pidBits - 1))
	if byteOf(pid) != at {
		return 0
	}
	return pid
}

// ServerOf is the number of the process that has the right to serve a network
// namespace, as far as the kernel shows that: 0 also if it is in another PID
// namespace.
func ServerOf(ns Namespace) (pid int) {
	var st unix.Stat_t
	if err := unix.Stat(current, &st); err != nil {
		return 0
	}
	st.Ino = ns.Inode // all namespaces are on one device (nsfs)
	eachLock(st, "OFDLCK", func(_ int, at int64) { pid = processOf(at) })
	return pid
}

// holderOf is the process that has the lock of a file (flock(2)), as far as the kernel
// shows that: 0 if it is in another PID namespace.
func holderOf(st unix.Stat_t) (holder int) {
	eachLock(st, "FLOCK", func(pid int, _ int64) { holder = max(pid, 0) })
	return holder
}

// eachLock does something with each lock of a kind that a file has: with its process's
// number, and with where it begins (proc_locks(5)).
func eachLock(st unix.Stat_t, kind string, do func(pid int, at int64)) {
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	locks, err := os.Open("/proc/locks")
	if err != nil {
		return
	}
	defer locks.Close()
	for lines := bufio.NewScanner(locks); lines.Scan(); {
		// 1: FLOCK  ADVISORY  WRITE 4711 00:04:4026531833 0 EOF
		field := strings.Fields(lines.Text())
		if len(field) < 7 || field[1] != kind || field[5] != file {
			continue
		}
		pid, pidErr := strconv.Atoi(field[4])
		if at, err := strconv.ParseInt(field[6], 10, 64); err == nil && pidErr == nil {
			do(pid, at)
		}
	}
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
